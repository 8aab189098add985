"""One image file -> pixels, safely: the same decoder for training, evaluation and prediction."""

import ctypes
import errno
import math
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
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
    features,
)

from resnetkit.data.images.containers import ORIENTATION, Container, opened
from resnetkit.errors import DataError
from resnetkit.untrusted import BEGINNING_BYTES, read_bounded, recognized_mistake

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGEST_FILE",
    "MOST_PIXELS",
    "Decoded",
    "check_range",
    "decode",
    "decoding",
    "in_mode",
    "load_bytes",
    "open_image",
    "read_image",
    "refusals",
    "stored_size",
    "unreadable_reason",
    "upright",
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
if features.check("avif"):  # Pillow may be built without
    OPENED["AVIF"] = (".avif",)

# Pillow calls a JPEG that holds several images, as many telephones write them, MPO.
SUFFIXES = {**OPENED, "MPO": (".jpg", ".jpeg", ".jpe", ".mpo")}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

UNREADABLE = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG 2000"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), "a raw photo"
    ),
    **dict.fromkeys((".psd", ".psb"), "a Photoshop document"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".pdf"), "a drawing, not pixels"),
    **dict.fromkeys((".dcm", ".nii", ".exr", ".hdr", ".fits"), "values without a range of 8 bits"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "a video"),
    **{".jxl": "JPEG XL", ".ico": "an icon", ".tga": "TGA", ".pcx": "PCX", ".npy": "an array"},
}

ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z", ".tfrecord", ".parquet"}
PRINTED = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r") | frozenset(range(0x80, 0x100))

MOST_PIXELS = 2**27  # 134 million: above the largest telephone cameras, far below a bomb
MOST_SCANNED = 2**31  # pixels times scans of a progressive JPEG: some seconds
SLOW_CODECS = {"bmp_rle", "ppm", "ppm_plain"}  # which Pillow decodes in Python, value by value
MOST_SLOWLY = 2**24  # values that they decode: some seconds
LARGEST_FILE = 2**29  # bytes
LONGEST_RATIO = 100  # of the sides
MEMORY = 2**29  # bytes that all images together take that are being decoded
BITS, PHOTOMETRIC = 258, 262  # tags of a TIFF
WHITE_IS_ZERO = 0  # by the latter
HARDLY_VISIBLE = 2  # of 255
FEW_LEVELS = 64  # of 256; fewer left of 16 bits are hardly a picture
SYSTEM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # refusals that no image is to blame for

# Larger images are refused below; Pillow would warn of those that are still allowed, and of
# metadata that nobody reads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module="PIL")
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


# What begins a file of a format that is not read, whatever its name is.
SIGNATURES = {
    rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)": "HEIC",
    rb"....ftypavi[fs]": "AVIF",
    rb"....ftypcrx ": "a raw photo",
    rb"....ftyp": "a video",
    rb"\x1aE\xdf\xa3|RIFF....AVI ": "a video",
    rb"II\*\0....CR|FUJIFILM|IIRO|IIU\0|MMOR": "a raw photo",
    rb"8BPS": "a Photoshop document",
    rb"%PDF|%!PS": "a drawing, not pixels",
    rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)?<svg": "a drawing, not pixels",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JPEG 2000",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf": "an archive",
    rb"\x93NUMPY": "an array",
}


def recognized_format(content: bytes) -> str | None:
    """Returns in words what a file is that is no image of a known format, by how it begins."""
    beginning = content[:BEGINNING_BYTES]
    for pattern, name in SIGNATURES.items():
        if re.match(pattern, beginning, re.DOTALL):
            return f"its content is {name}, which is not read here"
    if all(byte in PRINTED for byte in beginning):
        return "it is a text, such as a server's message, not an image"
    return None


def unreadable_reason(suffix: str) -> str | None:
    """Returns why images with such an ending are not read; None for other endings.

    Args:
        suffix: such as ".heic", in any case.
    """
    if suffix.lower() in ARCHIVES:
        return "an archive, which is not read here: unpack it"
    known = UNREADABLE.get(suffix.lower())
    if known is None or suffix.lower() in IMAGE_SUFFIXES:
        return None
    return f"{known}, which is not read here: convert it to JPEG or PNG"


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: of mode RGB or L, upright.
        notes: what was unusual in the file and has been converted, in words.
        losses: what little is left of the picture, in words; nothing for almost every image.
    """

    image: Image.Image
    notes: tuple[str, ...]
    losses: tuple[str, ...] = ()


def read_image(path: Path, *, channels: int = 3, short_side: int = 0) -> Decoded:
    """Reads and decodes an image file.

    Args:
        path: of the file.
        channels: 3 for RGB, 1 for gray.
        short_side: pixels that the shorter side must have at least; a large JPEG is then decoded
            at a half, a quarter or an eighth of its size, which is several times faster. 0 decodes
            all of it.

    Raises:
        DataError: when the file cannot be read or is no image that can be trusted.
        MemoryError: when memory is short, which is no fault of the image.
    """
    with open_image(path, channels=channels, short_side=short_side) as decoded:
        return decoded


def open_image(
    path: Path, *, channels: int = 3, short_side: int = 0
) -> AbstractContextManager[Decoded]:
    """Returns the context in which an image file is decoded, as `decoding` and `read_image` do."""
    return decoding(load_bytes(path), str(path), channels=channels, short_side=short_side)


def load_bytes(path: Path) -> bytes:
    """Returns the content of an image file.

    Raises:
        DataError: when it cannot be read, or is larger than an image can be.
        OSError: when the system has no more files or memory to give.
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
        name: of the file, for messages; its ending is compared with the format.
        channels: as for `read_image`.
        short_side: likewise.

    Raises:
        DataError: when it is no image that can be trusted.
        MemoryError: when memory is short.
    """
    with decoding(content, name, channels=channels, short_side=short_side) as decoded:
        return decoded


@contextmanager
def decoding(
    content: bytes, name: str, *, channels: int = 3, short_side: int = 0
) -> Iterator[Decoded]:
    """Yields what `decode` returns, which counts as memory in use as long as the block runs.

    For work on many threads: other large images wait until the block has made this one smaller. A
    block must not decode another image.

    Raises:
        DataError: as for `decode`.
        MemoryError: likewise.
    """
    if not content:
        raise DataError(f"{name}: the file is empty.")
    with ExitStack() as held:
        with refusals(name, content):
            container = opened(content)
            with Image.open(BytesIO(container.content), formats=list(OPENED)) as file:
                check_size(name, file.size)
                check_range(file)
                check_work(container.scans, file)
                turn = turning(container, file)
                notes = list(oddities(name, file, container, turn))
                if short_side:
                    file.draft(None, enough(file.size, short_side))
                if file.format == "TIFF":
                    silence_libtiff()
                held.enter_context(memory_for(file))
                file.load()
                losses = list(losses_before(file))
                image = in_8_bits(turned(file, turn), file)
                image = in_mode(image, "RGB" if channels == 3 else "L")
                losses += losses_after(image, file, container)
                if image is not file:
                    file.close()  # its pixels, which would be kept until garbage is collected
        yield Decoded(image, tuple(notes), tuple(losses))


def stored_size(path: Path) -> tuple[int, int] | None:
    """Returns width and height as a file says, without decoding it; none when it cannot be read."""
    try:
        content = load_bytes(path)
        with (
            refusals(str(path), content),
            Image.open(BytesIO(opened(content).content), formats=list(OPENED)) as file,
        ):
            return file.size
    except DataError:
        return None


@contextmanager
def refusals(name: str, content: bytes = b"") -> Iterator[None]:
    """Turns whatever Pillow raises for a malformed file into a DataError that names it."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        words = recognized_mistake(content[:BEGINNING_BYTES])
        if words is None and not content.strip(b"\0"):
            words = "it holds nothing but zeros, as after a download that was cut off"
        words = words or recognized_format(content)
        raise DataError(
            f"{name}: {words}."
            if words
            else f"{name}: it is no image that can be read: expected one of {', '.join(OPENED)}."
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: it has far more pixels than are decoded ({error}).") from error
    except Exception as error:  # its decoders raise everything, from IndexError to SyntaxError
        if isinstance(error, OSError) and error.errno in SYSTEM:
            raise
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


def check_work(scans: int, file: Image.Image) -> None:
    """Raises ValueError for a file that would take minutes to decode."""
    pixels = math.prod(file.size)
    if scans * pixels > MOST_SCANNED:
        raise ValueError("it has too many scans for its size, which would take minutes")
    codecs = {tile[0] for tile in getattr(file, "tile", ())}
    if codecs & SLOW_CODECS and pixels * len(file.getbands()) > MOST_SLOWLY:
        raise ValueError(
            f"{file.format} of this kind takes minutes at {file.width}x{file.height} pixels: save"
            " it as PNG"
        )


def oddities(name: str, file: Image.Image, container: Container, turn: int) -> Iterator[str]:
    """Yields what is unusual in a file and will be converted."""
    suffix = Path(name).suffix.lower()
    known = SUFFIXES.get(file.format or "", ())
    if file.format == "JPEG":
        known = SUFFIXES["MPO"] + known
    if suffix and known and suffix not in known:
        yield f"the name ends in {suffix}, but it is {file.format}"
    if container.is_animated or getattr(file, "is_animated", False):
        yield "animated or of several pages: the first one is used"
    if file.mode.startswith("I"):
        yield f"{gray_bits(file)} bits a channel, reduced to 8"
    if file.mode == "CMYK":
        yield "CMYK, converted to RGB"
    if file.mode in ("P", "PA"):
        yield "colors of a palette, looked up"
    if file.has_transparency_data:
        yield "transparent, laid on white"
    if turn != 1:
        yield "stored on its side or mirrored, turned upright"


def losses_before(file: Image.Image) -> Iterator[str]:
    """Yields what will be lost of an image that is loaded and not converted yet."""
    is_wide = file.mode.startswith("I")
    if file.has_transparency_data and not is_wide:
        layers = file if file.mode in ("RGBA", "LA") else file.convert("RGBA")
        _, most = layers.getchannel("A").getextrema()
        if isinstance(most, int) and most <= HARDLY_VISIBLE:
            yield "transparent everywhere: nothing but white is left"
    if is_wide:
        values = np.unique(np.asarray(file))
        levels = len(np.unique(values >> (gray_bits(file) - 8)))
        if levels <= FEW_LEVELS and len(values) > 2 * levels:
            yield few_levels(levels)


def losses_after(image: Image.Image, file: Image.Image, container: Container) -> Iterator[str]:
    """Yields what was lost of an image that was converted to 8 bits, or when its file was cut."""
    if container.bits == 16 and not file.mode.startswith("I"):  # colors, of which 8 bits are read
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
            yield "the lower part is uniform gray, as when the end of a file was lost"


def few_levels(levels: int) -> str:
    """Returns what is lost of values that use a small range of those of 16 bits."""
    return (
        f"16 bits a channel, of which a small range is used: {levels} of 256 gray levels are left;"
        " scale the values to the full range"
    )


def is_gray(pixel: float | tuple[int, ...] | None) -> bool:
    """Returns whether a pixel has the value that libjpeg fills in for what is missing."""
    values = pixel if isinstance(pixel, tuple) else (pixel or 0,)
    return all(abs(value - 128) <= 1 for value in values)


def enough(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Returns the least size, of the same shape, whose shorter side is long enough."""
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
"""What turns an image upright, by its EXIF orientation."""


def turning(container: Container, file: Image.Image) -> int:
    """Returns the orientation of an image that was opened from a file, 1 to 8."""
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        value = file.tag_v2.get(ORIENTATION, 1)
        return value if value in TURNS else 1
    if file.format == "AVIF":
        return file.getexif().get(ORIENTATION, 1)  # Pillow's, of the boxes that turn it
    return container.orientation


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Returns a loaded image turned upright."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return upright(image)  # newer versions of Pillow have turned it already
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def upright(image: Image.Image) -> Image.Image:
    """Returns a decoded image turned as its EXIF says; as it is where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever Pillow makes of damaged metadata: they do not matter
        return image


def gray_bits(file: Image.Image) -> int:
    """Returns how many bits the values of a gray image with more than 8 have; TIFFs may have 12."""
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        bits = file.tag_v2.get(BITS, (16,))
        return 12 if bits == (12,) else 16
    return 16


def in_8_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """Returns the image of a file with 8 bits a channel, in which the largest value is white.

    Pillow does so, but for gray images of more bits: it does not turn the values of TIFFs around
    in which 0 is white, as medical ones are stored.
    """
    if not image.mode.startswith("I"):
        return image
    values = (np.asarray(image) >> (gray_bits(file) - 8)).astype(np.uint8)
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        values = ~values if file.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO else values
    return Image.fromarray(values)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Returns an image of any mode as RGB or L of 8 bits; what is transparent becomes white."""
    if image.has_transparency_data:
        layers = image if image.mode == "RGBA" else image.convert("RGBA")
        # To the bit what alpha_composite makes of it, without three more copies of all pixels.
        image = Image.new("RGB", image.size, "white")
        image.paste(layers, mask=layers)
    return image if image.mode == mode else image.convert("RGB").convert(mode)


class MemoryGate:
    """Lets threads decode at the same time as long as their images fit into memory together.

    Args:
        limit: bytes of all that are in; one that is larger waits until it is alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.changed = threading.Condition()

    @contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Waits until so many bytes are free, and holds them as long as the block runs."""
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + count <= self.limit)
            self.taken += count
        try:
            yield
        finally:
            with self.changed:
                self.taken -= count
                self.changed.notify_all()


GATE = MemoryGate(MEMORY)  # one for the process, as its memory is


def memory_for(file: Image.Image) -> AbstractContextManager[None]:
    """Returns the context in which an image is decoded and converted."""
    decoded = 4 if len(file.getbands()) > 1 or file.mode == "I" else 2  # bytes a pixel
    a_pixel = decoded + 8  # as decoded, turned, and in its final mode
    if file.has_transparency_data:
        a_pixel += 8  # with its transparency, and the white that it is laid on
    if file.format in ("WEBP", "AVIF") or file.info.get("progressive"):
        a_pixel += 12  # frames or coefficients that the decoder keeps
    return GATE.room_for(math.prod(file.size) * a_pixel)


@cache
def silence_libtiff() -> None:
    """Keeps libtiff from writing to stderr, where it knows no other place for its warnings.

    Pillow offers no way; the library that it has loaded does. Elsewhere than on Linux it is left.
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
