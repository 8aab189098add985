"""The wire format of protocol buffers, as far as Caffe's files need it.

A message is a sequence of fields: number, wire type and value. A value is a view of the bytes of
the file, so that no claimed length allocates memory. Nested messages are parsed on request.
Source: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

__all__ = [
    "Fields",
    "Value",
    "field",
    "fields",
    "group_fields",
    "packed",
    "unpacked",
    "varint",
]

MOST_FIELDS = 200  # of a message within another: a layer has some twenty
MOST_PACKED = 1_000  # bytes of packed numbers, such as the sizes of a table

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5

Value = int | memoryview
Fields = dict[int, list[Value]]
"""Values of a message by field number, in order."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yields number and value of each field: an integer for a varint, otherwise its bytes.

    Raises:
        ValueError: if the bytes are not a message.
    """
    position = 0
    while position < len(message):
        key, position = read_varint(message, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if kind == VARINT:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if kind == LENGTH:
            length, position = read_varint(message, position)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field is of the unknown kind {kind}")
        if length > len(message) - position:
            raise ValueError("a field is longer than the message")
        yield number, message[position : position + length]
        position += length


def group_fields(message: Value, most: int = MOST_FIELDS) -> Fields:
    """Returns the fields of a nested message.

    Args:
        message: bytes of the message.
        most: limit of the number of fields, since two bytes suffice for a field.

    Raises:
        ValueError: if it is not a message, or has more fields.
    """
    if isinstance(message, int):
        raise ValueError("it has a number where a message belongs")
    grouped: Fields = {}
    for count, (number, value) in enumerate(fields(message)):
        if count >= most:
            raise ValueError(f"it has more than {most:,} fields")
        grouped.setdefault(number, []).append(value)
    return grouped


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Returns an integer of up to 64 bits and the position after it.

    Raises:
        ValueError: if it does not end.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("a number ends too early")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number does not end")


def unpacked(values: list[Value]) -> list[int]:
    """Returns the numbers of a repeated field, written one by one or packed.

    Raises:
        ValueError: if they do not end.
    """
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        if len(value) > MOST_PACKED:
            raise ValueError(f"it packs more than {MOST_PACKED:,} bytes of numbers")
        position = 0
        while position < len(value):
            number, position = read_varint(value, position)
            numbers.append(number)
    return numbers


def varint(value: int) -> bytes:
    """Returns an integer as a varint: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """Returns a field: an integer as a varint, anything else with its length before it."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | LENGTH) + varint(len(content)) + content


def packed(number: int, values: tuple[int, ...]) -> bytes:
    """Returns a repeated field of numbers, packed."""
    return field(number, b"".join(map(varint, values)))
