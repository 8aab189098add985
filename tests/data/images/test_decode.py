"""Decoding: every form of image that cameras write, and every way it can be spoilt."""

import math
import struct
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetkit.data.images import decode as module
from resnetkit.data.images.decode import decode, read_image
from resnetkit.errors import DataError

Draw = Callable[..., Image.Image]


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(content: bytes, name: str = "image", **options: int) -> np.ndarray:
    return np.asarray(decode(content, name, **options).image)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_to_the_bit(form: str, draw: Draw) -> None:
    image = draw(1)
    content = encoded(image, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(pixels(content), np.asarray(image))
    assert decode(content, f"a.{form.lower()}").notes == ()


def test_grey_is_made_of_color_and_color_of_grey(draw: Draw) -> None:
    image = draw(1)
    gray = image.convert("L")
    np.testing.assert_array_equal(pixels(encoded(image, "PNG"), channels=1), np.asarray(gray))
    three = pixels(encoded(gray, "PNG"))
    assert three.shape == (30, 40, 3)
    np.testing.assert_array_equal(three[..., 1], np.asarray(gray))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(orientation: int, draw: Draw) -> None:
    """The eight orientations of EXIF, each undone by hand."""
    upright = np.asarray(draw(3))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(content), upright)
    turned = any("turned upright" in note for note in decode(content, "a.png").notes)
    assert turned == (orientation != 1)


def test_sixteen_bits_become_eight() -> None:
    values = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    content = encoded(Image.fromarray(values), "PNG")
    np.testing.assert_array_equal(pixels(content)[..., 0], values >> 8)
    assert decode(content, "a.png").notes == ("16 bits per channel, reduced to 8",)


def test_what_is_transparent_is_laid_on_white(draw: Draw) -> None:
    image = draw(2).convert("RGBA")
    alpha = np.zeros((30, 40), dtype=np.uint8)
    alpha[:, 20:] = 255
    image.putalpha(Image.fromarray(alpha))
    result = pixels(encoded(image, "PNG"))
    assert (result[:, :20] == 255).all()
    np.testing.assert_array_equal(result[:, 20:], np.asarray(draw(2))[:, 20:])


def test_a_palette_is_looked_up_with_its_transparent_color() -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (2, 0, 4, 2))
    result = pixels(encoded(image, "GIF", transparency=0))
    assert (result[:, :2] == 255).all()
    assert (result[:, 2:] == (0, 0, 255)).all()


def test_cmyk_is_converted(draw: Draw) -> None:
    content = encoded(draw(4).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(pixels(content).astype(int) - np.asarray(draw(4))).mean() < 4
    assert decode(content, "a.jpg").notes == ("CMYK, converted to RGB",)


def test_the_first_picture_of_an_animation_is_used(draw: Draw) -> None:
    frames = [draw(number) for number in range(3)]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(pixels(content), np.asarray(frames[0]))
    assert decode(content, "a.webp").notes == (
        "several frames or pages, of which the first is used",
    )


def test_a_wrong_extension_is_reported_and_the_content_decides(draw: Draw) -> None:
    result = decode(encoded(draw(5), "PNG"), "photo.JPG")
    assert result.notes == ("the name ends in .jpg, but the format is PNG",)
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(draw(5)))


def test_a_large_photo_is_decoded_smaller_but_never_too_small(draw: Draw) -> None:
    content = encoded(draw(6, (1600, 1200)), "JPEG", quality=95)
    assert decode(content, "a.jpg").image.size == (1600, 1200)
    for short_side, expected in ((100, (200, 150)), (151, (400, 300)), (1000, (1600, 1200))):
        result = decode(content, "a.jpg", short_side=short_side).image
        assert result.size == expected
    small = np.asarray(decode(content, "a.jpg", short_side=300).image, dtype=float)
    whole = decode(content, "a.jpg").image.resize((400, 300), Image.Resampling.BOX)
    assert np.abs(small - np.asarray(whole, dtype=float)).mean() < 1


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


REFUSED = {
    "empty": (b"", "the file is empty"),
    "a text": (b"hello, I am a photo", "it is text"),
    "an unknown format": (b"\x01\x02\x03 hello", "not an image in a supported format"),
    "a bomb": (png_of_size(30_000, 30_000), "pixels"),
    "a large one": (png_of_size(12_000, 12_000), "limit of 134 million"),
    "a thread": (png_of_size(5_000, 2), "100 times the other"),
    "pixels missing": (png_of_size(300, 300), "cannot be decoded"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_name_and_the_reason(case: str) -> None:
    content, reason = REFUSED[case]
    with pytest.raises(DataError) as caught:
        decode(content, "holiday.png")
    assert str(caught.value).startswith("holiday.png: ")
    assert reason in str(caught.value)


def test_values_without_a_range_are_refused() -> None:
    for values in (np.ones((8, 8), dtype=np.float32), np.ones((8, 8), dtype=np.int32)):
        with pytest.raises(DataError, match="an unknown range"):
            decode(encoded(Image.fromarray(values), "TIFF"), "a.tif")


def test_a_format_outside_of_the_list_is_refused(draw: Draw) -> None:
    for form in ("ICO", "PCX", "TGA"):
        with pytest.raises(DataError, match="expected one of JPEG"):
            decode(encoded(draw(1), form), "a")


def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Draw
) -> None:
    with pytest.raises(DataError, match=r"none\.png: it cannot be read: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="it cannot be read: Is a directory"):
        read_image(tmp_path)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(draw(1), "PNG"))
    assert read_image(path).image.size == (40, 30)
    monkeypatch.setattr(module, "LARGEST_FILE", 100)
    with pytest.raises(DataError, match="the file has more than"):
        read_image(path)


# Malformed files: each mutator makes another kind of damage of a good file.

Mutator = Callable[[bytes, np.random.Generator], bytes]


def some(content: bytes, rng: np.random.Generator, fraction: float = 1.0) -> int:
    return int(rng.integers(0, max(1, math.floor(len(content) * fraction))))


def with_bytes(content: bytes, positions: np.ndarray, values: np.ndarray) -> bytes:
    changed = np.frombuffer(content, dtype=np.uint8).copy()
    changed[positions] = values
    return changed.tobytes()


def flipped_bits(content: bytes, rng: np.random.Generator) -> bytes:
    positions = rng.integers(0, len(content), 8)
    bits = np.uint8(1) << rng.integers(0, 8, 8).astype(np.uint8)
    return with_bytes(content, positions, np.frombuffer(content, dtype=np.uint8)[positions] ^ bits)


def swapped_parts(content: bytes, rng: np.random.Generator) -> bytes:
    a, b, c = sorted(some(content, rng) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def huge_numbers(content: bytes, rng: np.random.Generator) -> bytes:
    position = some(content, rng, 0.3)
    return content[:position] + b"\xff\xff\xff\x7f" + content[position + 4 :]


MUTATORS: dict[str, Mutator] = {
    "cut off": lambda c, r: c[: some(c, r)],
    "beginning lost": lambda c, r: c[some(c, r) :],
    "a hole": lambda c, r: c[: (p := some(c, r))] + c[p + 1 + some(c, r, 0.3) :],
    "zeros": lambda c, r: c[: (p := some(c, r))] + bytes(200) + c[p + 200 :],
    "noise": lambda c, r: c[: (p := some(c, r))] + r.bytes(200) + c[p + 200 :],
    "noise at the start": lambda c, r: c[:12] + r.bytes(60) + c[72:],
    "bits flipped": flipped_bits,
    "a byte of the header": lambda c, r: with_bytes(
        c, r.integers(0, 64, 1), r.integers(0, 256, 1, dtype=np.uint8)
    ),
    "huge numbers": huge_numbers,
    "parts exchanged": swapped_parts,
    "repeated": lambda c, r: c[: (p := some(c, r))] + c[: some(c, r)] * 3 + c[p:],
    "two files in one": lambda c, r: c[: some(c, r)] + c,
}


def test_a_thousand_malformed_files_are_decoded_or_refused_in_time(draw: Draw) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    good = {
        "JPEG": encoded(draw(7), "JPEG", exif=exif),
        "progressive": encoded(draw(7), "JPEG", progressive=True),
        "PNG": encoded(draw(7), "PNG"),
        "palette": encoded(draw(7).convert("P"), "PNG"),
        "WEBP": encoded(draw(7), "WEBP"),
        "BMP": encoded(draw(7), "BMP"),
        "GIF": encoded(draw(7), "GIF", save_all=True, append_images=[draw(8)]),
        "TIFF": encoded(draw(7), "TIFF", compression="tiff_lzw"),
        "PPM": encoded(draw(7), "PPM"),
    }
    rng = np.random.default_rng(0)
    refused = 0
    for name, mutate in MUTATORS.items():
        for _ in range(math.ceil(1_000 / len(MUTATORS) / len(good))):
            for form, content in good.items():
                malformed = mutate(content, rng)
                began = time.process_time()
                try:
                    image = decode(malformed, f"{name}.{form}", short_side=16).image
                    assert image.mode == "RGB"
                    np.asarray(image)
                    reason = ""
                except DataError as error:
                    reason = str(error)
                refused += bool(reason)
                assert not reason or reason.startswith(f"{name}.{form}: ")
                assert time.process_time() - began < 20
    assert refused > 300
