"""Decodes untrusted image files; shared by training, evaluation and prediction."""

import ctypes
import errno
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from resnetkit.data.images.containers import ORIENTATION, Container, strip_metadata
from resnetkit.data.images.formats import DECODED_FORMATS, SUFFIXES, recognized_format
from resnetkit.data.images.memory_gate import MemoryGate
from resnetkit.errors import DataError
from resnetkit.untrusted import BEGINNING_BYTES, read_bounded, recognized_mistake

__all__ = [
    "LARGEST_FILE",
    "MEMORY",
    "MOST_PIXELS",
    "Decoded",
    "Header",
    "check_range",
    "decode",
    "decoding",
    "in_8_bits",
    "in_mode",
    "load_bytes",
    "open_image",
    "read_header",
    "read_image",
    "refusals",
    "reserving_from",
    "stored_size",
    "upright",
]

MOST_PIXELS = 2**27  # 134 million: more than the largest phone cameras, far less than a bomb
MOST_SCANNED = 2**31  # pixels times scans of a progressive JPEG: some seconds
SLOW_CODECS = {"bmp_rle", "ppm", "ppm_plain"}  # Pillow decodes them in Python, value by value
MOST_SLOWLY = 2**24  # values decoded by these codecs: some seconds
LARGEST_FILE = 2**29  # bytes
LARGEST_RATIO = 100  # of the longer side to the shorter
MEMORY = 2**29  # bytes of all images that are decoded at the same time
BITS, PHOTOMETRIC = 258, 262  # tags of a TIFF
WHITE_IS_ZERO = 0  # a value of PHOTOMETRIC
JPEG_REDUCTION = 4  # how much less a pixel of a JPEG costs that is decoded at a reduced size
HARDLY_VISIBLE = 2  # of 255
FEW_LEVELS = 64  # of 256 gray levels; an image with fewer is mostly lost
SYSTEM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # errors that are not the fault of an image

GATE = MemoryGate(MEMORY)  # of the process
chosen_gate = ContextVar("chosen_gate", default=GATE)

# Larger images are refused below. Pillow also warns of smaller ones, and of metadata that are not
# used.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module="PIL")
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: of mode RGB or L, upright.
        notes: what was unusual about the file and has been converted.
        losses: what was lost of the image; empty for almost every image.
    """

    image: Image.Image
    notes: tuple[str, ...]
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """What is known of an image file before it is decoded.

    Attributes:
        width: in pixels, as stored.
        height: likewise.
        work: of decoding, in pixels of an uncompressed format or a PNG.
    """

    width: int
    height: int
    work: int

    @property
    def pixels(self) -> int:
        """Returns width times height."""
        return self.width * self.height


def read_image(path: Path, *, channels: int = 3, short_side: int = 0) -> Decoded:
    """Reads and decodes an image file.

    Args:
        path: of the file.
        channels: 3 for RGB, 1 for gray.
        short_side: the least length of the shorter side, in pixels. A large JPEG is then decoded at
            a half, a quarter or an eighth of its size, which is several times faster. 0 decodes
            every image at its full size.

    Raises:
        DataError: when the file cannot be read, is not a supported image, or is refused as unsafe.
        MemoryError: when there is not enough memory.
    """
    with open_image(path, channels=channels, short_side=short_side) as decoded:
        return decoded


def open_image(
    path: Path, *, channels: int = 3, short_side: int = 0
) -> AbstractContextManager[Decoded]:
    """Returns the context manager of `decoding` for an image file; arguments as `read_image`."""
    return decoding(load_bytes(path), str(path), channels=channels, short_side=short_side)


def load_bytes(path: Path) -> bytes:
    """Returns the content of an image file.

    Raises:
        DataError: when it cannot be read, or is too large.
        OSError: when the system is out of file descriptors or memory.
    """
    try:
        return read_bounded(path, LARGEST_FILE)
    except OSError as error:
        if error.errno in SYSTEM:
            raise
        if error.errno == errno.EFBIG:
            raise DataError(
                f"{path}: the file has more than {LARGEST_FILE / 2**20:,.0f} MiB."
            ) from error
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}.") from error


def decode(content: bytes, name: str, *, channels: int = 3, short_side: int = 0) -> Decoded:
    """Decodes the content of an image file, as `read_image` does.

    Args:
        content: of the file.
        name: of the file, for messages; its extension is compared with the format.
        channels: as for `read_image`.
        short_side: as for `read_image`.

    Raises:
        DataError: when it is not a supported image, or is refused as unsafe.
        MemoryError: when there is not enough memory.
    """
    with decoding(content, name, channels=channels, short_side=short_side) as decoded:
        return decoded


@contextmanager
def decoding(
    content: bytes, name: str, *, channels: int = 3, short_side: int = 0
) -> Iterator[Decoded]:
    """Yields what `decode` returns, and reserves the memory of the image during the block.

    With many threads, other large images wait until the block, which should reduce this one, ends.
    The block must not decode another image.

    Raises:
        DataError: as for `decode`.
        MemoryError: as for `decode`.
    """
    if not content:
        raise DataError(f"{name}: the file is empty.")
    with ExitStack() as reserved:
        with refusals(name, content):
            container = strip_metadata(content)
            with Image.open(BytesIO(container.content), formats=list(DECODED_FORMATS)) as file:
                check_size(name, file.size)
                check_range(file)
                check_work(container.scans, file)
                orientation = orientation_of(container, file)
                notes = list(peculiarities(name, file, container, orientation))
                if short_side:
                    file.draft(None, least_size(file.size, short_side))
                if file.format == "TIFF":
                    silence_libtiff()
                reserved.enter_context(memory_for(file))
                file.load()
                losses = list(losses_before(file))
                image = in_8_bits(turned(file, orientation), file)
                image = in_mode(image, "RGB" if channels == 3 else "L")
                losses += losses_after(image, file, container)
                if image is not file:
                    file.close()  # otherwise its pixels stay in memory until garbage collection
        yield Decoded(image, tuple(notes), tuple(losses))


def stored_size(path: Path) -> tuple[int, int] | None:
    """Returns width and height from the header of a file, or None when it cannot be read."""
    try:
        header = read_header(load_bytes(path), str(path))
    except DataError:
        return None
    return header.width, header.height


def read_header(content: bytes, name: str) -> Header:
    """Reads the header of an image file, which costs a fraction of decoding it.

    Raises:
        DataError: when it is not a supported image.
    """
    if not content:
        raise DataError(f"{name}: the file is empty.")
    with refusals(name, content):
        container = strip_metadata(content)
        with Image.open(BytesIO(container.content), formats=list(DECODED_FORMATS)) as file:
            # A large baseline JPEG is decoded at a fraction of its size.
            reduced = file.format == "JPEG" and container.scans == 1
            work = math.prod(file.size) * container.scans // (JPEG_REDUCTION if reduced else 1)
            return Header(*file.size, work)


@contextmanager
def refusals(name: str, content: bytes = b"") -> Iterator[None]:
    """Turns whatever Pillow raises for a malformed file into a DataError that names the file."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        reason = recognized_mistake(content[:BEGINNING_BYTES])
        if reason is None and not content.strip(b"\0"):
            reason = "it contains only zeros, as after an interrupted download"
        reason = reason or recognized_format(content)
        if reason is None:
            formats = ", ".join(DECODED_FORMATS)
            reason = f"it is not an image in a supported format: expected one of {formats}"
        raise DataError(f"{name}: {reason}.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: it has far too many pixels to decode ({error}).") from error
    except Exception as error:  # decoders raise anything, from IndexError to SyntaxError
        if isinstance(error, OSError) and error.errno in SYSTEM:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: it cannot be decoded: {reason}.") from error


def check_size(name: str, size: tuple[int, int]) -> None:
    """Raises DataError for an image that is too large or too narrow."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{name}: it has {width}x{height} pixels, more than the limit of"
            f" {MOST_PIXELS / 1e6:,.0f} million."
        )
    if max(size) > LARGEST_RATIO * min(size):
        raise DataError(
            f"{name}: it has {width}x{height} pixels: one side is more than {LARGEST_RATIO} times"
            " the other."
        )


def check_range(file: Image.Image) -> None:
    """Raises ValueError for 32-bit values, whose range, and so their brightness, is undefined."""
    is_wide = file.mode == "I" and file.format != "PPM"  # Pillow scales PPM to 16 bits
    if file.mode == "F" or is_wide:
        raise ValueError("its values have 32 bits and an unknown range; save it with 8 or 16 bits")


def check_work(scans: int, file: Image.Image) -> None:
    """Raises ValueError for a file that would take minutes to decode."""
    pixels = math.prod(file.size)
    if scans * pixels > MOST_SCANNED:
        raise ValueError("it has too many scans for its size, which would take minutes")
    codecs = {tile[0] for tile in getattr(file, "tile", ())}
    if codecs & SLOW_CODECS and pixels * len(file.getbands()) > MOST_SLOWLY:
        raise ValueError(
            f"this kind of {file.format} takes minutes to decode at {file.width}x{file.height}"
            " pixels: save it as PNG"
        )


def peculiarities(
    name: str, file: Image.Image, container: Container, orientation: int
) -> Iterator[str]:
    """Yields what is unusual about a file and will be converted."""
    suffix = Path(name).suffix.lower()
    expected = SUFFIXES.get(file.format or "", ())
    if file.format == "JPEG":
        expected = SUFFIXES["MPO"] + expected
    if suffix and expected and suffix not in expected:
        yield f"the name ends in {suffix}, but the format is {file.format}"
    if container.is_animated or getattr(file, "is_animated", False):
        yield "several frames or pages, of which the first is used"
    if file.mode.startswith("I"):
        yield f"{gray_bits(file)} bits per channel, reduced to 8"
    if file.mode == "CMYK":
        yield "CMYK, converted to RGB"
    if file.mode in ("P", "PA"):
        yield "a color palette, converted to RGB"
    if file.has_transparency_data:
        yield "transparent, blended with white"
    if orientation != 1:
        yield "rotated or mirrored, turned upright"


def losses_before(file: Image.Image) -> Iterator[str]:
    """Yields what the conversion will lose of an image that is loaded."""
    is_wide = file.mode.startswith("I")
    if file.has_transparency_data and not is_wide:
        layers = file if file.mode in ("RGBA", "LA") else file.convert("RGBA")
        _, most = layers.getchannel("A").getextrema()
        if isinstance(most, int) and most <= HARDLY_VISIBLE:
            yield "transparent everywhere: only white is left"
    if is_wide:
        values = np.unique(np.asarray(file))
        levels = len(np.unique(values >> (gray_bits(file) - 8)))
        if levels <= FEW_LEVELS and len(values) > 2 * levels:
            yield few_levels(levels)


def losses_after(image: Image.Image, file: Image.Image, container: Container) -> Iterator[str]:
    """Yields what was lost in the conversion to 8 bits, or because the file is truncated."""
    if container.bits == 16 and not file.mode.startswith("I"):  # Pillow reads 8 bits of colors
        levels = np.unique(np.asarray(image.convert("L")))
        if len(levels) <= FEW_LEVELS and levels[-1] < FEW_LEVELS:
            yield few_levels(len(levels))
    elif (
        file.format == "JPEG"
        and image.height >= 16
        and is_gray(image.getpixel((0, image.height - 1)))
    ):
        bottom = np.asarray(image.crop((0, image.height - image.height // 16, *image.size)))
        if (np.abs(bottom.astype(np.int16) - 128) <= 1).all():
            yield "the lower part is uniformly gray, as in a truncated file"


def few_levels(levels: int) -> str:
    """Describes what is lost of 16-bit values that use only a small range."""
    return (
        f"16 bits per channel, of which only a small range is used: {levels} of 256 gray levels are"
        " left; scale the values to the full range"
    )


def is_gray(pixel: float | tuple[int, ...] | None) -> bool:
    """Returns whether a pixel has the value that libjpeg uses for missing data."""
    values = pixel if isinstance(pixel, tuple) else (pixel or 0,)
    return all(abs(value - 128) <= 1 for value in values)


def least_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Returns the least size with the same aspect ratio whose shorter side is long enough."""
    scale = short_side / min(size)
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image upright, by EXIF orientation."""


def orientation_of(container: Container, file: Image.Image) -> int:
    """Returns the EXIF orientation of an opened image, from 1 to 8."""
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        value = file.tag_v2.get(ORIENTATION, 1)
        return value if value in TURNS else 1
    if file.format == "AVIF":
        return file.getexif().get(ORIENTATION, 1)  # Pillow derives it from the boxes of the file
    return container.orientation


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Returns a loaded image turned upright."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return upright(image)  # recent versions of Pillow have already turned it
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def upright(image: Image.Image) -> Image.Image:
    """Returns a decoded image turned by its EXIF orientation, or unchanged without a valid one."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises anything for corrupt metadata, which do not matter
        return image


def gray_bits(file: Image.Image) -> int:
    """Returns the bits per value of a gray image with more than 8: 16, or 12 in some TIFFs."""
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        bits = file.tag_v2.get(BITS, (16,))
        return 12 if bits == (12,) else 16
    return 16


def in_8_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """Returns an image with 8 bits per channel, where the largest value is white.

    Pillow does this except for gray images with more bits: it does not invert TIFFs in which 0 is
    white, as in medical imaging.
    """
    if not image.mode.startswith("I"):
        return image
    values = (np.asarray(image) >> (gray_bits(file) - 8)).astype(np.uint8)
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        values = ~values if file.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO else values
    return Image.fromarray(values)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image of any mode to RGB or L with 8 bits, blending transparency with white."""
    if image.has_transparency_data:
        layers = image if image.mode == "RGBA" else image.convert("RGBA")
        # Bit-identical to alpha_composite, without three more copies of all pixels.
        image = Image.new("RGB", image.size, "white")
        image.paste(layers, mask=layers)
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def memory_for(file: Image.Image) -> AbstractContextManager[None]:
    """Returns the context manager that reserves the memory to decode and convert an image."""
    decoded = 4 if len(file.getbands()) > 1 or file.mode == "I" else 2  # bytes per pixel
    per_pixel = decoded + 8  # as decoded, turned, and in its final mode
    if file.has_transparency_data:
        per_pixel += 8  # with its transparency, and the white background
    if file.format in ("WEBP", "AVIF") or file.info.get("progressive"):
        per_pixel += 12  # frames or coefficients that the decoder keeps
    return chosen_gate.get().room_for(math.prod(file.size) * per_pixel)


@contextmanager
def reserving_from(gate: MemoryGate) -> Iterator[None]:
    """Lets the block reserve memory from another gate than that of the process."""
    token = chosen_gate.set(gate)
    try:
        yield
    finally:
        chosen_gate.reset(token)


@cache
def silence_libtiff() -> None:
    """Stops libtiff from writing warnings to stderr; on Linux only.

    Pillow has no option for this, so it is set in the library that Pillow has loaded.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[5].strip() for line in maps if "libtiff" in line}
        for path in paths:
            library = ctypes.CDLL(path)
            library.TIFFSetWarningHandler(None)
            library.TIFFSetErrorHandler(None)
    except (OSError, AttributeError, IndexError):
        return
