"""Image formats: which ones are decoded, and which others are recognized."""

import re
from pathlib import Path

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from resnetkit.untrusted import BEGINNING_BYTES, open_regular

__all__ = [
    "DECODED_FORMATS",
    "IMAGE_SIGNATURE",
    "IMAGE_SUFFIXES",
    "SUFFIXES",
    "is_image",
    "recognized_format",
    "unreadable_reason",
]

DECODED_FORMATS: dict[str, tuple[str, ...]] = {
    JpegImagePlugin.JpegImageFile.format: (".jpg", ".jpeg", ".jpe", ".jfif"),
    PngImagePlugin.PngImageFile.format: (".png", ".apng"),
    WebPImagePlugin.WebPImageFile.format: (".webp",),
    BmpImagePlugin.BmpImageFile.format: (".bmp", ".dib"),
    GifImagePlugin.GifImageFile.format: (".gif",),
    TiffImagePlugin.TiffImageFile.format: (".tif", ".tiff"),
    PpmImagePlugin.PpmImageFile.format: (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""The formats that are decoded, as Pillow names them, with their file name extensions."""
if features.check("avif"):  # Pillow may be built without it
    DECODED_FORMATS["AVIF"] = (".avif",)

# MPO is Pillow's name for a JPEG with several images, which many phones write.
SUFFIXES = {**DECODED_FORMATS, "MPO": (".jpg", ".jpeg", ".jpe", ".mpo")}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

UNREADABLE = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG 2000"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), "a raw photo"
    ),
    **dict.fromkeys((".psd", ".psb"), "a Photoshop document"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".pdf"), "vector graphics"),
    **dict.fromkeys((".dcm", ".nii", ".exr", ".hdr", ".fits"), "a format with more than 8 bits"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "a video"),
    **{".jxl": "JPEG XL", ".ico": "an icon", ".tga": "TGA", ".pcx": "PCX", ".npy": "an array"},
}

ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z", ".tfrecord", ".parquet"}
TEXT_BYTES = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r") | frozenset(range(0x80, 0x100))

# The first bytes of formats that are not supported, whatever the name of the file.
SIGNATURES = {
    rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)": "HEIC",
    rb"....ftypavi[fs]": "AVIF",
    rb"....ftypcrx ": "a raw photo",
    rb"....ftyp": "a video",
    rb"\x1aE\xdf\xa3|RIFF....AVI ": "a video",
    rb"II\*\0....CR|FUJIFILM|IIRO|IIU\0|MMOR": "a raw photo",
    rb"8BPS": "a Photoshop document",
    rb"%PDF|%!PS": "vector graphics",
    rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)?<svg": "vector graphics",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JPEG 2000",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf": "an archive",
    rb"\x93NUMPY": "an array",
}


def recognized_format(content: bytes) -> str | None:
    """Recognizes, by its first bytes, a file that cannot be decoded.

    Returns:
        What it is, without a full stop; None if it is not recognized.
    """
    beginning = content[:BEGINNING_BYTES]
    for pattern, name in SIGNATURES.items():
        if re.match(pattern, beginning, re.DOTALL):
            return f"its content is {name}, which is not supported"
    if all(byte in TEXT_BYTES for byte in beginning):
        return "it is text, such as an error message of a server, not an image"
    return None


# The first bytes of the formats that are decoded and that cannot be mistaken for text.
IMAGE_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|II[*+]\0|MM\0[*+]", re.DOTALL
)


def is_image(path: Path) -> bool:
    """Returns whether a file is an image by its extension, or without one by its first bytes."""
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES
    try:
        with open_regular(path) as file:
            return IMAGE_SIGNATURE.match(file.read(16)) is not None
    except OSError:
        return False


def unreadable_reason(suffix: str) -> str | None:
    """Returns why files with an extension are not read; None for other extensions.

    Args:
        suffix: such as ".heic", in any case.
    """
    if suffix.lower() in ARCHIVES:
        return "an archive, which is not read: unpack it"
    name = UNREADABLE.get(suffix.lower())
    if name is None or suffix.lower() in IMAGE_SUFFIXES:
        return None
    return f"{name}, which is not supported: convert it to JPEG or PNG"
