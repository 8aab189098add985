"""Image files without their metadata: orientation, number of scans, and tags.

Pillow reads metadata when it opens a file, and fails if they are corrupt. Only the orientation is
needed, so all other metadata are removed before Pillow reads the file. Scans, segments, chunks and
tags are counted, because a small file with very many of them takes minutes to decode.
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
    "strip_metadata",
]

ORIENTATION = 0x0112  # EXIF tag
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
MAX_SCANS = 100  # of a progressive JPEG; encoders write 10 to 20
MAX_SEGMENTS = 10_000  # of a JPEG; a large color profile takes 50
MAX_CHUNKS = 100_000  # of a PNG; libpng writes one for 8 KiB
MAX_TAGS = 4096  # of a TIFF; cameras write a hundred
MAX_TEXT_BYTES = 2**17  # of a profile that may contain an orientation

# A marker in the compressed data of a JPEG: neither a stuffed byte nor a restart marker.
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
TIFF_SHORT = 3  # the type of a 16-bit number
# Size, bits, compression, colors, strips, planes, fax options, predictor, palette, tiles, inks,
# transparency, sample format, JPEG tables and tags, and YCbCr.
TIFF_KEPT = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320),
    *(322, 323, 324, 325, 332, 334, 338, 339, 347, *range(512, 522), 529, 530, 531, 532),
}
META_BYTES = 2**20  # of an AVIF, which lists its items before their contents
EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)
TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


@dataclass(frozen=True)
class Container:
    """An image file without its metadata, and the metadata that matter.

    Attributes:
        content: decodes to the same pixels as the original file.
        orientation: as in EXIF, from 1 (upright) to 8.
        bits: per channel, for a PNG; 8 for other formats.
        is_animated: whether frames or pages were removed.
        scans: of a JPEG: how often a decoder processes all pixels.
    """

    content: bytes
    orientation: int = 1
    bits: int = 8
    is_animated: bool = False
    scans: int = 1


def strip_metadata(content: bytes) -> Container:
    """Removes the metadata of an image file.

    Raises:
        ValueError: when it has so many scans, segments, chunks or tags that decoding would take
            minutes.
    """
    if content.startswith(b"\xff\xd8"):
        return strip_jpeg(content)
    if content.startswith(PNG_SIGNATURE):
        return strip_png(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return strip_webp(content)
    if content[4:8] == b"ftyp":
        return Container(without_exif_items(content))
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return strip_tiff(content)
    return Container(content)


def strip_jpeg(content: bytes) -> Container:
    """Removes the application segments of a JPEG, except the one that defines its colors."""
    kept: list[bytes | memoryview] = [content[:2]]
    orientation, scans, start = 0, 0, 2
    components = 0  # in the only scan of a file that is not progressive
    for _ in range(MAX_SEGMENTS):
        if (marker := JPEG_MARKER.search(content, start)) is None:
            break
        code, begin = content[marker.start() + 1], marker.start()
        if code in JPEG_ALONE:
            start = begin + 2
            continue
        if code == 0xD9:
            break  # the end of the image; phones append a video or another image
        end = begin + 2 + int.from_bytes(content[begin + 2 : begin + 4])
        if code == 0xDA:
            scans += 1
            if scans == 1:
                kept.append(memoryview(content)[begin:])
                if content[begin + 4 : begin + 5] == bytes([components]):
                    break  # libjpeg reads only this scan
            if scans > MAX_SCANS:
                raise ValueError(f"it has more than {MAX_SCANS} scans")
        elif not scans:
            body = content[begin + 4 : end]
            if code == 0xE1:
                orientation = orientation or orientation_of(body)
            elif code in (0xC0, 0xC1) and len(body) > 5:
                components = body[5]
                kept.append(content[begin:end])
            elif not 0xE0 < code <= 0xEF or code == 0xEE:  # 0xEE: Adobe's color transform
                kept.append(content[begin:end] if code != 0xFE else b"")
        start = max(end, begin + 2)
    else:
        raise ValueError(f"it has more than {MAX_SEGMENTS:,} segments")
    return Container(b"".join(kept), orientation or 1, scans=scans)


def strip_png(content: bytes) -> Container:
    """Removes the chunks of a PNG that do not affect its pixels."""
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
    """Yields the type, start and end of each chunk; the last one may be truncated.

    Raises:
        ValueError: when there are too many.
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


def strip_webp(content: bytes) -> Container:
    """Reads the orientation of a WebP; Pillow reads its other metadata only on request."""
    begin, orientation = 12, 0
    while begin + 8 <= len(content) and not orientation and begin < 12 + MAX_CHUNKS * 8:
        kind = content[begin : begin + 4]
        length = int.from_bytes(content[begin + 4 : begin + 8], "little")
        if kind in (b"EXIF", b"XMP "):
            orientation = orientation_of(content[begin + 8 : begin + 8 + length])
        begin += 8 + length + length % 2
    return Container(content, orientation or 1)


def without_exif_items(content: bytes) -> bytes:
    """Returns an AVIF without its EXIF, with which Pillow would fail if it is corrupt.

    The orientation of an AVIF is defined by boxes, not by its EXIF (ISO/IEC 23008-12, 6.5.10).
    """
    return EXIF_ITEM.sub(rb"\1skip", content[:META_BYTES]) + content[META_BYTES:]


def strip_tiff(content: bytes) -> Container:
    """Removes the tags of a TIFF that do not affect its pixels, and all pages but the first.

    The directory is shortened in place, so that all offsets remain valid.
    """
    directory = tags_of(content)
    if directory is None:
        return Container(content)  # truncated: Pillow reports it
    order, begin, tags = directory
    kept = [tag for tag in tags if affects_pixels(tag, order)]
    check_claims(kept, order, content)
    offset_form, count_form = tiff_forms(content)
    end = begin + struct.calcsize(order + count_form) + sum(map(len, tags))
    following = int.from_bytes(
        content[end : end + struct.calcsize(order + offset_form)],
        "little" if order == "<" else "big",
    )
    shortened = struct.pack(order + count_form, len(kept)) + b"".join(kept)
    shortened += struct.pack(order + offset_form, 0)  # there is no next page
    whole = content[:begin] + shortened + content[begin + len(shortened) :]
    return Container(whole, is_animated=0 < following < len(content))


def affects_pixels(tag: bytes, order: str) -> bool:
    """Returns whether a tag of a TIFF affects the displayed image."""
    code, kind, count = tag_facts(tag, order)
    return code in TIFF_KEPT or (code == ORIENTATION and kind == TIFF_SHORT and count == 1)


def orientation_of(body: bytes) -> int:
    """Returns the orientation in EXIF or XMP; 0 without a valid one."""
    if body.startswith((b"Exif\0\0", b"II", b"MM")):
        return exif_orientation(body)
    return xmp_orientation(body)


def exif_orientation(body: bytes) -> int:
    """Returns the orientation in EXIF; 0 without a valid one."""
    exif = Image.Exif()
    try:
        check_tags(body.removeprefix(b"Exif\0\0"))
        exif.load(body)
        value = exif.get(ORIENTATION, 0)
        return value if value in range(1, 9) else 0
    except Exception:  # Pillow raises anything for corrupt metadata, which do not matter
        return 0


def xmp_orientation(body: bytes) -> int:
    """Returns the orientation in XMP; 0 without a valid one."""
    match = XMP_ORIENTATION.search(body[: 2**20])
    return int(match[1]) if match else 0


def text_orientation(kind: bytes, body: bytes) -> int:
    """Returns the orientation in a text chunk of a PNG: XMP, or EXIF as written by ImageMagick."""
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
    """Raises ValueError for a TIFF whose first directory refers to more bytes than the file has."""
    if directory := tags_of(content):
        order, _, tags = directory
        check_claims(tags, order, content)


def tiff_forms(content: bytes) -> tuple[str, str]:
    """Returns the `struct` formats of a TIFF's offsets and of its number of tags."""
    return ("Q", "Q") if content[2:4] in (b"+\0", b"\0+") else ("I", "H")


def tags_of(content: bytes) -> tuple[str, int, list[bytes]] | None:
    """Returns the byte order, start and entries of a TIFF's first directory.

    Returns:
        None when it is truncated.

    Raises:
        ValueError: when there are too many entries.
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
    """Returns the code, the type and the number of values of a TIFF's tag."""
    code, kind, count = struct.unpack_from(order + ("HHI" if len(tag) == 12 else "HHQ"), tag)
    return code, kind, count


def check_claims(tags: list[bytes], order: str, content: bytes) -> None:
    """Raises ValueError for tags whose values are together much larger than the file.

    Pillow reads the values of every tag, and a thousand tags may refer to the same bytes.
    """
    claimed = 0
    for tag in tags:
        _, kind, count = tag_facts(tag, order)
        claimed += TIFF_TYPE_BYTES.get(kind, 8) * count
    if claimed > 4 * len(content) + 2**16:
        raise ValueError("its tags refer to more bytes than the file has")
