"""Protocol buffers on the wire, as far as Caffe's files need them.

A message is a row of fields: a number, a kind, and a value. Nothing is allocated by what a length
claims: a value is a view of the bytes that are there. Nobody descends but the caller.
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
"""Values of a message by number of the field, in order."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yields number and value of each field: a number where it is a varint, else its bytes.

    Raises:
        ValueError: when the bytes are no message.
    """
    place = 0
    while place < len(message):
        key, place = read_varint(message, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if kind == VARINT:
            value, place = read_varint(message, place)
            yield number, value
            continue
        if kind == LENGTH:
            length, place = read_varint(message, place)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field is of the unknown kind {kind}")
        if length > len(message) - place:
            raise ValueError("a field is longer than what is there")
        yield number, message[place : place + length]
        place += length


def group_fields(message: Value, most: int = MOST_FIELDS) -> Fields:
    """Returns the fields of a message that lies in another.

    Args:
        message: its bytes.
        most: how many fields it may have: a field may take two bytes, and much longer to read.

    Raises:
        ValueError: when it is none, or has more fields.
    """
    if isinstance(message, int):
        raise ValueError("a number stands where a message should")
    found: Fields = {}
    for count, (number, value) in enumerate(fields(message)):
        if count >= most:
            raise ValueError(f"it has more than {most:,} fields")
        found.setdefault(number, []).append(value)
    return found


def read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Returns a number of up to 64 bits and the place behind it.

    Raises:
        ValueError: when it does not end.
    """
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("a number ends too early")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number does not end")


def unpacked(values: list[Value]) -> list[int]:
    """Returns the numbers of a repeated field, written one by one or packed.

    Raises:
        ValueError: when they do not end.
    """
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        if len(value) > MOST_PACKED:
            raise ValueError(f"it packs more than {MOST_PACKED:,} bytes of numbers")
        place = 0
        while place < len(value):
            number, place = read_varint(value, place)
            found.append(number)
    return found


def varint(value: int) -> bytes:
    """Returns a number as it is written: seven bits a byte, the lowest first."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """Returns a field: a number as varint, all else with its length before it."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | LENGTH) + varint(len(content)) + content


def packed(number: int, values: tuple[int, ...]) -> bytes:
    """Returns a repeated field of numbers, packed."""
    return field(number, b"".join(map(varint, values)))
