"""One image file -> pixels, safely: the same decoder for training, evaluation and prediction."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from resnetkit.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "MOST_PIXELS",
    "Decoded",
    "decode",
    "load_bytes",
    "read_image",
    "stored_size",
]

OPENED: dict[str, tuple[str, ...]] = {
    JpegImagePlugin.JpegImageFile.format: (".jpg", ".jpeg", ".jpe", ".jfif"),
    PngImagePlugin.PngImageFile.format: (".png", ".apng"),
    WebPImagePlugin.WebPImageFile.format: (".webp",),
    BmpImagePlugin.BmpImageFile.format: (".bmp", ".dib"),
    GifImagePlugin.GifImageFile.format: (".gif",),
    TiffImagePlugin.TiffImageFile.format: (".tif", ".tiff"),
    PpmImagePlugin.PpmImageFile.format: (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""What is decoded at all, with the endings of its names."""

# Pillow calls a JPEG that holds several images, as many telephones write them, MPO.
SUFFIXES = {**OPENED, "MPO": (".jpg", ".jpeg", ".jpe", ".mpo")}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

MOST_PIXELS = 2**27  # 134 million: above the largest telephone cameras, far below a bomb
LARGEST_FILE = 2**29  # bytes
LONGEST_RATIO = 100  # of the sides

# Larger images are refused below; Pillow would warn of those that are still allowed.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module="PIL")


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: of mode RGB or L, upright.
        notes: what was unusual in the file and has been converted, in words.
    """

    image: Image.Image
    notes: tuple[str, ...]


def read_image(path: Path, *, channels: int = 3, short_side: int = 0) -> Decoded:
    """Reads and decodes an image file.

    Args:
        path: of the file.
        channels: 3 for RGB, 1 for grey.
        short_side: pixels that the shorter side must have at least; a large JPEG is then decoded
            at a half, a quarter or an eighth of its size, which is several times faster. 0 decodes
            all of it.

    Raises:
        DataError: when the file cannot be read or is no image that can be trusted.
    """
    return decode(load_bytes(path), str(path), channels=channels, short_side=short_side)


def load_bytes(path: Path) -> bytes:
    """Returns the content of an image file.

    Raises:
        DataError: when it cannot be read, or is larger than an image can be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}.") from error
    if len(content) > LARGEST_FILE:
        raise DataError(f"{path}: the file has more than {LARGEST_FILE / 2**20:,.0f} MiB.")
    return content


def decode(content: bytes, name: str, *, channels: int = 3, short_side: int = 0) -> Decoded:
    """Decodes the content of an image file, as `read_image` does.

    Args:
        content: of the file.
        name: of the file, for messages; its ending is compared with the format.
        channels: as for `read_image`.
        short_side: likewise.

    Raises:
        DataError: when it is no image that can be trusted.
    """
    if not content:
        raise DataError(f"{name}: the file is empty.")
    with refusals(name), Image.open(BytesIO(content), formats=list(OPENED)) as file:
        check_size(name, file.size)
        check_range(file)
        notes = list(oddities(name, file))
        if short_side:
            file.draft(None, enough(file.size, short_side))
        file.load()
        return Decoded(in_mode(upright(file), "RGB" if channels == 3 else "L"), tuple(notes))


def stored_size(path: Path) -> tuple[int, int] | None:
    """Returns width and height as a file says, without decoding it; none when it cannot be read."""
    try:
        with refusals(str(path)), Image.open(path, formats=list(OPENED)) as file:
            return file.size
    except DataError:
        return None


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises for a malformed file into a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: it is no image that can be read: expected one of {', '.join(OPENED)}."
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: it has far more pixels than are decoded ({error}).") from error
    except Exception as error:  # its decoders raise everything, from IndexError to SyntaxError
        words = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: it is damaged: {words}.") from error


def check_size(name: str, size: tuple[int, int]) -> None:
    """Raises DataError for an image too large or too narrow to decode."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{name}: it has {width}x{height} pixels, more than the"
            f" {MOST_PIXELS / 1e6:,.0f} million that are decoded."
        )
    if max(size) > LONGEST_RATIO * min(size):
        raise DataError(
            f"{name}: it has {width}x{height} pixels: one side is more than {LONGEST_RATIO} times"
            " the other."
        )


def check_range(file: Image.Image) -> None:
    """Raises ValueError for values whose range is not known: they mean nothing as brightness."""
    is_wide = file.mode == "I" and file.format != "PPM"  # whose range Pillow makes 16 bits
    if file.mode == "F" or is_wide:
        raise ValueError("its values have 32 bits and no known range; save it with 8 or 16")


def oddities(name: str, file: Image.Image) -> Iterator[str]:
    """Yields what is unusual in a file and will be converted."""
    suffix = Path(name).suffix.lower()
    known = SUFFIXES.get(file.format or "", ())
    if suffix and known and suffix not in known:
        yield f"the name ends in {suffix}, but it is {file.format}"
    if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
        yield "animated or of several pages: the first one is used"
    if file.mode.startswith("I"):
        yield "16 bits a channel, reduced to 8"
    if file.mode == "CMYK":
        yield "CMYK, converted to RGB"
    if file.mode in ("P", "PA"):
        yield "colours of a palette, looked up"
    if file.has_transparency_data:
        yield "transparent, laid on white"
    if is_turned(file):
        yield "stored on its side or mirrored, turned upright"


ORIENTATION = 0x0112  # EXIF tag


def enough(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Returns the least size, of the same shape, whose shorter side is long enough."""
    share = short_side / min(size)
    return math.ceil(size[0] * share), math.ceil(size[1] * share)


def upright(image: Image.Image) -> Image.Image:
    """Returns the image turned as its EXIF orientation says."""
    return ImageOps.exif_transpose(image) if is_turned(image) else image


def is_turned(image: Image.Image) -> bool:
    """Returns whether the image is stored on its side, upside down or mirrored."""
    return image.getexif().get(ORIENTATION, 1) not in (0, 1)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Returns an image of any mode as RGB or L of 8 bits; what is transparent becomes white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(layers)
    return image if image.mode == mode else image.convert("RGB").convert(mode)
