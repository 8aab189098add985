"""What surrounds pixels decides nothing but the orientation, and cannot take minutes."""

import errno
import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from helpers.tiff import GRAY, SIZE, WHITE_IS_ZERO, in_12_bits, in_16_bits, tiff
from resnetkit.data.images.containers import strip_metadata
from resnetkit.data.images.decode import GATE, decode, open_image
from resnetkit.data.images.formats import unreadable_reason
from resnetkit.data.images.memory_gate import MemoryGate
from resnetkit.errors import DataError


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """Returns a picture that no turn leaves as it is."""
    width, height = size
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    values = np.stack([across * 6, down * 9, across + down], -1).astype(np.uint8)
    return Image.fromarray(values)


def encoded(form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture().save(stream, form, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_png_chunks(*chunks: bytes) -> bytes:
    plain = encoded("PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def with_jpeg_segments(*segments: tuple[int, bytes]) -> bytes:
    plain = encoded("JPEG", quality=95)
    added = b"".join(
        bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body for code, body in segments
    )
    return plain[:2] + added + plain[2:]


def tiff_header(orientation: int, *entries: bytes) -> bytes:
    """Returns EXIF with an orientation and other entries, each of 12 bytes."""
    entry = struct.pack("<HHII", 0x0112, 3, 1, orientation)
    return (
        b"II*\0" + struct.pack("<IH", 8, 1 + len(entries)) + b"".join([entry, *entries]) + b"\0" * 4
    )


def pixels(content: bytes, name: str) -> np.ndarray:
    return np.asarray(decode(content, name).image)


RATIONAL_AS_TEXT = struct.pack("<HHII", 0x011A, 2, 4, 0x00333231)  # the resolution, as text
BROKEN_EXIF = {
    "no EXIF": b"garbage!",
    "cut off": b"II*\0\x08",
    "far away": b"II*\0" + struct.pack("<I", 2**31),
    "many tags": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(100),
    "one that is none": tiff_header(77),
}


@pytest.mark.parametrize("exif", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_corrupt_metadata_do_not_matter(exif: bytes) -> None:
    as_jpeg = with_jpeg_segments((0xE1, b"Exif\0\0" + exif))
    np.testing.assert_array_equal(pixels(as_jpeg, "a.jpg"), pixels(encoded("JPEG", quality=95), ""))
    as_png = with_png_chunks(png_chunk(b"eXIf", exif))
    np.testing.assert_array_equal(pixels(as_png, "a.png"), np.asarray(picture()))
    as_webp = encoded("WEBP", lossless=True, exif=exif)
    np.testing.assert_array_equal(pixels(as_webp, "a.webp"), np.asarray(picture()))


def test_a_tag_of_another_type_leaves_the_orientation() -> None:
    content = with_jpeg_segments((0xE1, b"Exif\0\0" + tiff_header(6, RATIONAL_AS_TEXT)))
    decoded = decode(content, "a.jpg")
    assert decoded.image.size == SIZE[::-1]
    assert decoded.notes == ("rotated or mirrored, turned upright",)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def raw_profile(exif: bytes) -> bytes:
    digits = (b"Exif\0\0" + exif).hex()
    return f"\nexif\n{len(digits) // 2:8}\n{digits}\n".encode()


TURNED = {
    "EXIF in a JPEG": with_jpeg_segments((0xE1, b"Exif\0\0" + tiff_header(6))),
    "XMP in a JPEG": with_jpeg_segments((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "EXIF in a PNG": with_png_chunks(png_chunk(b"eXIf", tiff_header(6))),
    "XMP in a PNG": with_png_chunks(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "a raw profile": with_png_chunks(
        png_chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(tiff_header(6)))
    ),
    "a packed profile": with_png_chunks(
        png_chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(tiff_header(6)))
        )
    ),
    "EXIF in a WebP": encoded("WEBP", lossless=True, exif=tiff_header(6)),
    "a tag of a TIFF": encoded("TIFF", tiffinfo={0x0112: 6}),
}


@pytest.mark.parametrize("content", TURNED.values(), ids=TURNED)
def test_an_orientation_is_found_wherever_pillow_finds_one(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif().get(0x0112) == 6
    decoded = decode(content, "a")
    expected = np.rot90(np.asarray(picture()), -1).astype(int)
    assert (
        np.abs(np.asarray(decoded.image).astype(int) - expected).mean() < 3
    )  # JPEG loses a little


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_pixels_are_those_of_the_whole_file(form: str) -> None:
    profile = {"icc_profile": bytes(3000)} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    content = encoded(form, **profile)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(pixels(content, "a"), np.asarray(image.convert("RGB")))


def test_cmyk_of_adobe_keeps_its_colors() -> None:
    stream = io.BytesIO()
    picture().convert("CMYK").save(stream, "JPEG", quality=95)
    content = stream.getvalue()
    adobe = b"Adobe\0\x64\0\0\0\0\0"
    content = content[:2] + b"\xff\xee\x00\x0e" + adobe + content[2:]
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(pixels(content, "a.jpg"), np.asarray(image.convert("RGB")))


def test_large_texts_and_profiles_do_not_matter() -> None:
    bomb = zlib.compress(b"0" * 80_000_000)
    content = with_png_chunks(
        png_chunk(b"tEXt", b"Comment\0" + b"x" * 5_000_000),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
        png_chunk(b"iCCP", b"name\0\0" + bomb),
    )
    np.testing.assert_array_equal(pixels(content, "a.png"), np.asarray(picture()))


def many_scans(count: int, side: int = 4000) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + last * count + b"\xff\xd9"


def tags_that_claim(count: int, values: int) -> bytes:
    """Returns a TIFF each of whose tags claims the same values."""
    entries = b"".join(struct.pack("<HHII", 273, 1, values, 8) for _ in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4 + values)


SLOW = {
    "scans": (lambda: many_scans(3000), "more than 100 scans"),
    "scans of a smaller one": (lambda: many_scans(85, 1000), ""),
    "segments": (
        lambda: b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000,
        "more than 10,000 segments",
    ),
    "markers": (lambda: b"\xff\xd8" + b"\xff\x01" * 2_000_000, "more than 10,000 segments"),
    "chunks": (
        lambda: with_png_chunks(png_chunk(b"tEXt", b"a\0b") * 200_000),
        "more than 100,000 chunks",
    ),
    "tags": (lambda: tags_that_claim(3000, 1_000_000), "refer to more bytes than the file has"),
    "a tag too many": (lambda: tags_that_claim(5000, 4), "5,000 tags, more than 4,096"),
}


@pytest.mark.parametrize(("make", "reason"), SLOW.values(), ids=SLOW)
def test_what_would_take_minutes_is_refused_in_seconds(
    make: Callable[[], bytes], reason: str
) -> None:
    content = make()
    if reason:
        with pytest.raises(DataError, match=reason):
            decode(content, "a")
    else:
        decode(content, "a", short_side=64)


@pytest.mark.slow
def test_the_most_scans_of_a_large_image_take_seconds() -> None:
    decode(many_scans(85), "a", short_side=64)


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages_are_not_counted(form: str) -> None:
    """Counting 20,000 pages of a TIFF takes 20 seconds; the second one is enough to know."""
    pages = [Image.new("L", (8, 8), number % 256) for number in range(300)]
    stream = io.BytesIO()
    pages[0].save(stream, form, save_all=True, append_images=pages[1:])
    assert (
        "several frames or pages, of which the first is used"
        in decode(stream.getvalue(), "a").notes
    )
    assert decode(encoded(form), "a").notes == (
        ("a color palette, converted to RGB",) if form == "GIF" else ()
    )


def test_a_large_image_waits_until_it_is_alone() -> None:
    gate = MemoryGate(10)
    with gate.room_for(4), gate.room_for(6):
        assert gate.reserved == 10
    with gate.room_for(1000):
        assert gate.reserved == 1000
    assert gate.reserved == 0


def test_images_wait_for_each_other_when_they_are_too_large_together() -> None:
    from concurrent.futures import ThreadPoolExecutor

    gate, most, inside = MemoryGate(10), [0], [0]

    def hold(count: int) -> None:
        with gate.room_for(count):
            inside[0] += count
            most[0] = max(most[0], inside[0] if inside[0] != count else 0)
            time.sleep(0.001)
            inside[0] -= count

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, [3, 5, 7, 20, 1, 9, 4, 2] * 10))
    assert 0 < most[0] <= 10
    assert gate.reserved == 0


def test_small_images_never_wait_for_a_large_one() -> None:
    gate = MemoryGate(640)
    with gate.room_for(100_000), gate.room_for(10):  # a thread that waits here waits forever
        assert gate.reserved == 100_000


def test_memory_that_is_short_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: object) -> None:
        raise MemoryError

    content = encoded("BMP")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    with pytest.raises(MemoryError):
        decode(content, "a.bmp")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_system_without_files_or_memory_is_no_fault_of_the_image(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def load(image: object) -> None:
        raise OSError(number, os.strerror(number))

    content = encoded("BMP")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    with pytest.raises(OSError, match=os.strerror(number)):
        decode(content, "a.bmp")


FAR = struct.pack("<I", 10**8)
TAGS = {
    "a resolution that is a text": (282, 2, 2, b"ab\0\0"),
    "a resolution beyond the end": (282, 5, 1, FAR),
    "XMP that is longer than the file": (700, 7, 10**9, b"\x08\0\0\0"),
    "XMP beyond the end": (700, 7, 100, FAR),
    "a color profile beyond the end": (34675, 7, 100, FAR),
    "EXIF beyond the end": (34665, 4, 1, FAR),
    "keywords beyond the end": (33723, 4, 25, FAR),
    "an orientation beyond the end": (274, 3, 20, FAR),
    "a type that is not known": (50000, 99, 1, bytes(4)),
}


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_tags_of_a_tiff_that_make_no_pixels_do_not_matter(tag: tuple[int, int, int, bytes]) -> None:
    values = GRAY.astype(np.uint8)
    decoded = decode(tiff(values, tag), "a.tif", channels=1)
    np.testing.assert_array_equal(np.asarray(decoded.image), values)


MODES = ["RGB", "L", "1", "P", "CMYK", "LAB", "YCbCr", "RGBA", "LA", "I;16"]
COMPRESSIONS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"]
NOT_WRITTEN = {("1", "jpeg"), ("P", "jpeg"), ("I;16", "jpeg")}  # Pillow 12.3 corrupts its memory


@pytest.mark.parametrize(
    ("mode", "compression"), sorted({*product(MODES, COMPRESSIONS)} - NOT_WRITTEN)
)
def test_tiffs_are_read_as_pillow_reads_them_whole(mode: str, compression: str) -> None:
    source = picture().convert("RGB" if mode == "LAB" else mode.removesuffix(";16"))
    stream = io.BytesIO()
    if mode == "I;16":
        source = Image.fromarray(np.asarray(source).astype(np.uint16) * 257)
    try:
        source.save(stream, "TIFF", compression=compression, description="a text" * 99)
    except (OSError, RuntimeError):
        pytest.skip("libtiff cannot write this")
    with Image.open(io.BytesIO(strip_metadata(stream.getvalue()).content)) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(stream)))


def test_gray_tiffs_of_more_bits_are_read_by_their_own_scale() -> None:
    content = tiff(in_16_bits(GRAY), WHITE_IS_ZERO, bits=16)
    inverted = decode(content, "a.tif", channels=1).image
    np.testing.assert_array_equal(np.asarray(inverted), 255 - GRAY)
    decoded = decode(tiff(in_12_bits(GRAY), bits=12), "a.tif", channels=1)
    np.testing.assert_array_equal(np.asarray(decoded.image), GRAY)
    assert decoded.notes == ("12 bits per channel, reduced to 8",)
    assert not decoded.losses


def with_transparency(image: Image.Image, value: bytes | int) -> Image.Image:
    image.info["transparency"] = value
    return image


LOST = {
    "values of 12 bits": (
        lambda: Image.fromarray(np.linspace(0, 4095, 1024).reshape(32, 32).astype(np.uint16)),
        "16 of 256 gray levels are left",
    ),
    "transparent": (lambda: Image.new("RGBA", SIZE, (9, 9, 9, 0)), "only white is left"),
    "gray and transparent": (lambda: Image.new("LA", SIZE, (9, 0)), "only white is left"),
    "values of 14 bits": (
        lambda: Image.fromarray(np.linspace(0, 16383, 1024).reshape(32, 32).astype(np.uint16)),
        "64 of 256 gray levels are left",
    ),
    "temperatures of a thermal camera": (
        lambda: Image.fromarray(np.linspace(29000, 31000, 1024).reshape(32, 32).astype(np.uint16)),
        "9 of 256 gray levels are left",
    ),
    "a mask of 16 bits": (lambda: Image.fromarray(np.eye(32, dtype=np.uint16) * 65535), ""),
    "a transparent palette": (
        lambda: with_transparency(picture().quantize(8), bytes(8)),
        "only white is left",
    ),
    "a transparent gray": (
        lambda: with_transparency(Image.new("L", SIZE, 7), 7),
        "only white is left",
    ),
    "16 bits": (
        lambda: Image.fromarray(np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)),
        "",
    ),
    "partly transparent": (lambda: Image.new("RGBA", SIZE, (9, 9, 9, 9)), ""),
    "black": (lambda: Image.new("L", SIZE), ""),
}


@pytest.mark.parametrize(("make", "words"), LOST.values(), ids=LOST)
def test_an_image_that_is_mostly_lost_is_reported(
    make: Callable[[], Image.Image], words: str
) -> None:
    stream = io.BytesIO()
    make().save(stream, "PNG")
    losses = decode(stream.getvalue(), "a.png").losses
    assert len(losses) == bool(words)
    assert not words or words in losses[0]


def test_a_lower_part_that_is_gray_is_reported() -> None:
    stream = io.BytesIO()
    whole = picture((200, 160))
    whole.save(stream, "JPEG")
    assert not decode(stream.getvalue(), "a.jpg").losses
    whole.paste((128, 128, 128), (0, 96, 200, 160))
    stream = io.BytesIO()
    whole.save(stream, "JPEG")
    assert decode(stream.getvalue(), "a.jpg").losses == (
        "the lower part is uniformly gray, as in a truncated file",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(1000), "only zeros"),
        (b"<!DOCTYPE html><html><body>Sign in", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
    ],
    ids=["zeros", "page", "pointer"],
)
def test_what_lies_in_place_of_an_image_is_recognized(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decode(content, "a.jpg")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_has_it() -> None:
    decoded = pixels(encoded("AVIF", quality=95), "a.avif").astype(int)
    assert np.abs(decoded - np.asarray(picture()).astype(int)).mean() < 4


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_by_its_own_boxes(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded("AVIF", quality=95, exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(pixels(content, "a.avif"), np.asarray(turned))
    assert (turned.size == SIZE) == (orientation < 5)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_exif_of_an_avif_may_be_corrupt() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    whole = encoded("AVIF", quality=95, exif=exif)
    begin = max(whole.find(b"II*\0"), whole.find(b"MM\0*"))
    assert begin > 0
    content = whole[: begin + 4] + b"\0\xff\xff\0" + whole[begin + 8 :]
    assert content != whole
    plain = pixels(encoded("AVIF", quality=95), "a.avif")
    np.testing.assert_array_equal(pixels(content, "a.avif"), plain)


def test_known_formats_that_are_not_read_have_a_reason() -> None:
    for suffix in (".heic", ".HEIF", ".cr2", ".svg"):
        assert "convert it to JPEG or PNG" in (unreadable_reason(suffix) or "")
    for suffix in (".jpg", ".txt", "", ".PNG"):
        assert unreadable_reason(suffix) is None


def test_the_content_is_not_copied_where_nothing_is_left_out(tmp_path: Path) -> None:
    content = encoded("BMP")
    assert strip_metadata(content).content is content


def rle_bitmap(side: int) -> bytes:
    palette, data = bytes(1024), b"\x01\x02\0\0" * side  # a pixel, then the end of the line
    offset = 54 + len(palette)
    heading = struct.pack("<IHHI", offset + len(data), 0, 0, offset)
    facts = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + heading + facts + palette + data


DECODED_IN_PYTHON = {
    "RLE bitmap": rle_bitmap(5000),
    "text": b"P2 5000 5000 255 " + b"7 " * 5000,
    "odd range": b"P5 5000 5000 200 " + bytes(5000),
    "12 bits": b"P5 5000 5000 4095 " + bytes(5000),
}


@pytest.mark.parametrize("content", DECODED_IN_PYTHON.values(), ids=DECODED_IN_PYTHON)
def test_what_pillow_decodes_value_by_value_is_refused_when_it_is_large(content: bytes) -> None:
    with pytest.raises(DataError, match="takes minutes to decode at 5000x5000 pixels: save"):
        decode(content, "a")
    small = content.replace(b"5000 5000", b"50 50")
    assert decode(rle_bitmap(50) if content[:2] == b"BM" else small, "a").image.size == (50, 50)


def test_what_follows_the_end_of_a_jpeg_does_not_count() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, "JPEG", progressive=True)
    content = stream.getvalue() + b"\xff\xda\0\2" * 1000  # as in the video of a moving photo
    assert decode(content, "a.jpg").image.size == (40, 30)


def test_an_image_takes_memory_until_it_was_made_smaller(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (1500, 1000)).save(path)
    with open_image(path):
        assert GATE.reserved >= 1500 * 1000 * 4
    assert GATE.reserved == 0
    with pytest.raises(ValueError, match="of the block"), open_image(path):
        raise ValueError("of the block")
    assert GATE.reserved == 0


def test_every_transparent_color_is_laid_on_white_as_compositing_does() -> None:
    """All values with all transparencies, against Pillow's own alpha_composite."""
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    layers = Image.fromarray(np.stack([value, value, value, alpha], -1).astype(np.uint8))
    stream = io.BytesIO()
    layers.save(stream, "PNG")
    expected = Image.new("RGBA", layers.size, "white")
    expected.alpha_composite(layers)
    decoded = decode(stream.getvalue(), "a.png").image
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(expected.convert("RGB")))


OTHERS = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a Photoshop document": b"8BPS\0\1" + bytes(50),
    "vector graphics": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a raw photo": b"II*\0\x10\0\0\0CR\2\0" + bytes(50),
    "an archive": b"PK\3\4" + bytes(40),
    "a video": b"\0\0\0\x18ftypmp42" + bytes(50),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(10),
    "it is text": b'{"error": "not found"}',
}


@pytest.mark.parametrize("words", OTHERS)
def test_another_format_under_the_name_of_a_jpeg_is_named(words: str) -> None:
    with pytest.raises(DataError, match=words):
        decode(OTHERS[words], "a.jpg")
