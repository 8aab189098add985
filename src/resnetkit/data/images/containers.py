"""What surrounds the pixels of an image file: orientation, scans, tags, and what nobody needs.

Pillow reads metadata when it opens a file, and calls the image damaged when they are. Of metadata
only the orientation is wanted here, so the rest is left out before Pillow sees the file. What a
file claims to hold is counted, because some files take minutes for a few bytes.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

__all__ = [
    "ORIENTATION",
    "Container",
    "opened",
]

ORIENTATION = 0x0112  # EXIF tag
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
MAX_SCANS = 100  # of a progressive JPEG; encoders write 10 to 20
MAX_SEGMENTS = 10_000  # of a JPEG; a large color profile takes 50
MAX_CHUNKS = 100_000  # of a PNG; libpng writes one for 8 KiB
MAX_TAGS = 4096  # of a TIFF; cameras write a hundred
MAX_TEXT_BYTES = 2**17  # of a profile that may hold an orientation

# A marker within the compressed data of a JPEG: neither a stuffed byte nor a restart.
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
TIFF_SHORT = 3  # the type of a 16-bit number
# Size, bits, compression, colors, strips, planes, fax options, predictor, palette, tiles, inks,
# transparency, format of samples, tables and tags of JPEG, and YCbCr.
TIFF_KEPT = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320),
    *(322, 323, 324, 325, 332, 334, 338, 339, 347, *range(512, 522), 529, 530, 531, 532),
}
META_BYTES = 2**20  # of an AVIF: its items are listed before their contents
EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)
TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


@dataclass(frozen=True)
class Container:
    """A file without its metadata, and what matters of them.

    Attributes:
        content: that decodes to the same pixels as the file.
        orientation: by EXIF, 1 (upright) to 8.
        bits: of a channel, as a PNG says; 8 where it is not known.
        is_animated: whether frames were left out.
        scans: of a JPEG: how often its decoder goes over the pixels.
    """

    content: bytes
    orientation: int = 1
    bits: int = 8
    is_animated: bool = False
    scans: int = 1


def opened(content: bytes) -> Container:
    """Returns a file without its metadata.

    Raises:
        ValueError: when it claims more than such files hold, which would take minutes to decode.
    """
    if content.startswith(b"\xff\xd8"):
        return opened_jpeg(content)
    if content.startswith(PNG_SIGNATURE):
        return opened_png(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return opened_webp(content)
    if content[4:8] == b"ftyp":
        return Container(without_exif_items(content))
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return opened_tiff(content)
    return Container(content)


def opened_jpeg(content: bytes) -> Container:
    """Returns a JPEG without the segments of applications, but for the one that says its colors."""
    kept: list[bytes | memoryview] = [content[:2]]
    orientation, scans, start = 0, 0, 2
    components = 0  # that one scan holds, where the file is not progressive
    for _ in range(MAX_SEGMENTS):
        if (marker := JPEG_MARKER.search(content, start)) is None:
            break
        code, begin = content[marker.start() + 1], marker.start()
        if code in JPEG_ALONE:
            start = begin + 2
            continue
        if code == 0xD9:
            break  # the end; telephones put a video or another image behind it
        end = begin + 2 + int.from_bytes(content[begin + 2 : begin + 4])
        if code == 0xDA:
            scans += 1
            if scans == 1:
                kept.append(memoryview(content)[begin:])
                if content[begin + 4 : begin + 5] == bytes([components]):
                    break  # libjpeg reads this scan alone
            if scans > MAX_SCANS:
                raise ValueError(f"it has more than {MAX_SCANS} scans")
        elif not scans:
            body = content[begin + 4 : end]
            if code == 0xE1:
                orientation = orientation or orientation_of(body)
            elif code in (0xC0, 0xC1) and len(body) > 5:
                components = body[5]
                kept.append(content[begin:end])
            elif not 0xE0 < code <= 0xEF or code == 0xEE:  # 0xEE: Adobe's, which says the colors
                kept.append(content[begin:end] if code != 0xFE else b"")
        start = max(end, begin + 2)
    else:
        raise ValueError(f"it has more than {MAX_SEGMENTS:,} segments")
    return Container(b"".join(kept), orientation or 1, scans=scans)


def opened_png(content: bytes) -> Container:
    """Returns a PNG with those of its chunks that pixels are made of."""
    kept, orientation, is_animated, bits = [PNG_SIGNATURE], 0, False, 8
    for kind, begin, end in png_chunks(content):
        body = content[begin + 8 : end - 4]
        if kind in PNG_KEPT:
            kept.append(content[begin:end])
        if kind == b"IHDR" and len(body) > 8:
            bits = body[8]
        elif kind == b"acTL":
            is_animated = True
        elif kind == b"eXIf":
            orientation = orientation or exif_orientation(body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            orientation = orientation or text_orientation(kind, body)
    return Container(b"".join(kept), orientation or 1, bits, is_animated)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, beginning and end of each chunk; the last one may be cut off.

    Raises:
        ValueError: when there are far too many.
    """
    begin = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if begin + 8 > len(content):
            return
        length = int.from_bytes(content[begin : begin + 4])
        kind, end = content[begin + 4 : begin + 8], begin + 12 + length
        yield kind, begin, end
        if kind == b"IEND":
            return
        begin = end
    raise ValueError(f"it has more than {MAX_CHUNKS:,} chunks")


def opened_webp(content: bytes) -> Container:
    """Returns a WebP as it is, whose metadata Pillow reads only when they are asked for."""
    begin, orientation = 12, 0
    while begin + 8 <= len(content) and not orientation and begin < 12 + MAX_CHUNKS * 8:
        kind = content[begin : begin + 4]
        length = int.from_bytes(content[begin + 4 : begin + 8], "little")
        if kind in (b"EXIF", b"XMP "):
            orientation = orientation_of(content[begin + 8 : begin + 8 + length])
        begin += 8 + length + length % 2
    return Container(content, orientation or 1)


def without_exif_items(content: bytes) -> bytes:
    """Returns an AVIF without its EXIF, as which Pillow refuses damaged bytes.

    An AVIF is turned by boxes of its own, whatever its EXIF says (ISO/IEC 23008-12, 6.5.10).
    """
    return EXIF_ITEM.sub(rb"\1skip", content[:META_BYTES]) + content[META_BYTES:]


def opened_tiff(content: bytes) -> Container:
    """Returns a TIFF whose first directory has only those of its tags that pixels are made of.

    The directory is shortened where it is, so that every offset stays right. Further pages are left
    out.
    """
    directory = tags_of(content)
    if directory is None:
        return Container(content)  # cut off: Pillow says so
    order, begin, tags = directory
    kept = [tag for tag in tags if makes_pixels(tag, order)]
    check_claims(kept, order, content)
    offset_form, count_form = tiff_forms(content)
    end = begin + struct.calcsize(order + count_form) + sum(map(len, tags))
    following = int.from_bytes(
        content[end : end + struct.calcsize(order + offset_form)],
        "little" if order == "<" else "big",
    )
    shortened = struct.pack(order + count_form, len(kept)) + b"".join(kept)
    shortened += struct.pack(order + offset_form, 0)  # no page follows
    whole = content[:begin] + shortened + content[begin + len(shortened) :]
    return Container(whole, is_animated=0 < following < len(content))


def makes_pixels(tag: bytes, order: str) -> bool:
    """Returns whether a tag of a TIFF matters for what is shown."""
    code, kind, count = tag_facts(tag, order)
    return code in TIFF_KEPT or (code == ORIENTATION and kind == TIFF_SHORT and count == 1)


def orientation_of(body: bytes) -> int:
    """Returns the orientation in EXIF or XMP; 0 where there is none that can be read."""
    if body.startswith((b"Exif\0\0", b"II", b"MM")):
        return exif_orientation(body)
    return xmp_orientation(body)


def exif_orientation(body: bytes) -> int:
    """Returns the orientation in EXIF; 0 where there is none, or the metadata are damaged."""
    exif = Image.Exif()
    try:
        check_tags(body.removeprefix(b"Exif\0\0"))
        exif.load(body)
        value = exif.get(ORIENTATION, 0)
        return value if value in range(1, 9) else 0
    except Exception:  # whatever Pillow makes of damaged metadata: they do not matter
        return 0


def xmp_orientation(body: bytes) -> int:
    """Returns the orientation in XMP, likewise."""
    match = XMP_ORIENTATION.search(body[: 2**20])
    return int(match[1]) if match else 0


def text_orientation(kind: bytes, body: bytes) -> int:
    """Returns the orientation that a text of a PNG holds: XMP, or EXIF as ImageMagick writes it."""
    key, _, text = body.partition(b"\0")
    if key == b"XML:com.adobe.xmp":
        return xmp_orientation(text)
    if key not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return 0
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], MAX_TEXT_BYTES)
        digits = b"".join(text[:MAX_TEXT_BYTES].split(b"\n")[3:])
        return exif_orientation(bytes.fromhex(digits.decode("ascii")))
    except (ValueError, zlib.error):
        return 0


def check_tags(content: bytes) -> None:
    """Raises ValueError for a TIFF whose first directory claims more than the file holds."""
    if directory := tags_of(content):
        order, _, tags = directory
        check_claims(tags, order, content)


def tiff_forms(content: bytes) -> tuple[str, str]:
    """Returns how a TIFF writes offsets and the number of tags, as `struct` calls it."""
    return ("Q", "Q") if content[2:4] in (b"+\0", b"\0+") else ("I", "H")


def tags_of(content: bytes) -> tuple[str, int, list[bytes]] | None:
    """Returns byte order, beginning and entries of a TIFF's first directory.

    Returns:
        None when it is cut off.

    Raises:
        ValueError: when there are far too many entries.
    """
    order = "<" if content[:2] == b"II" else ">"
    offset_form, count_form = tiff_forms(content)
    try:
        (begin,) = struct.unpack_from(order + offset_form, content, 8 if offset_form == "Q" else 4)
        (count,) = struct.unpack_from(order + count_form, content, begin)
    except (struct.error, OverflowError):
        return None
    if count > MAX_TAGS:
        raise ValueError(f"it has {count:,} tags, more than {MAX_TAGS:,}")
    start, size = begin + struct.calcsize(order + count_form), 20 if offset_form == "Q" else 12
    if start + count * size > len(content):
        return None
    return order, begin, [content[start + n * size : start + (n + 1) * size] for n in range(count)]


def tag_facts(tag: bytes, order: str) -> tuple[int, int, int]:
    """Returns code, type and number of values of a TIFF's tag."""
    code, kind, count = struct.unpack_from(order + ("HHI" if len(tag) == 12 else "HHQ"), tag)
    return code, kind, count


def check_claims(tags: list[bytes], order: str, content: bytes) -> None:
    """Raises ValueError for tags that claim more bytes than the file holds.

    Pillow reads what each tag claims, and a thousand tags may claim the same bytes.
    """
    claimed = 0
    for tag in tags:
        _, kind, count = tag_facts(tag, order)
        claimed += TIFF_TYPE_BYTES.get(kind, 8) * count
    if claimed > 4 * len(content) + 2**16:
        raise ValueError("its tags claim more bytes than the file has")
