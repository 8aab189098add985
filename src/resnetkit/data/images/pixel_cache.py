"""Decoded photos on disk: each is decoded once, made smaller, and read from memory-mapped pixels.

A folder of the cache holds `pixels`, the images one after the other, and `index.npy`, for each its
place, height and width. It is there whole or not at all.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.data.images.decode import open_image
from resnetkit.data.prefetch import prefetch
from resnetkit.errors import DataError
from resnetkit.storage import exclusive, remove_leftovers, replaced_folder, storage_errors
from resnetkit.untrusted import open_regular

__all__ = ["PixelCache", "open_cache"]

ADVICE = "Make room, or set data.cache=none."
SHARE_OF_DISK = 0.5  # of what is free, that a cache may take
AT_A_TIME = 256  # images that are decoded before they are written, and then measured


@dataclass(frozen=True, eq=False)
class PixelCache:
    """Photos that were decoded before.

    Attributes:
        pixels: uint8, all images one after the other, mapped into memory.
        index: int64 (N, 3): where each begins, its height and its width.
        channels: of each pixel.
    """

    pixels: npt.NDArray[np.uint8]
    index: npt.NDArray[np.int64]
    channels: int

    def image(self, sample_id: int) -> Image.Image:
        """Returns an image as it was decoded, its shorter side no longer than was asked for."""
        begin, height, width = self.index[sample_id].tolist()
        values = self.pixels[begin : begin + height * width * self.channels]
        shape = (height, width, self.channels) if self.channels > 1 else (height, width)
        return Image.fromarray(values.reshape(shape))


def open_cache(root: Path, paths: Sequence[Path], *, channels: int, side: int) -> PixelCache:
    """Opens the decoded images of some files, and decodes them first where that was not done yet.

    Args:
        root: folder of all such caches.
        paths: of the image files.
        channels: 3 for RGB, 1 for gray.
        side: what the shorter side is resized to, in pixels; smaller images keep theirs.

    Raises:
        DataError: when an image cannot be decoded, or all of them would not fit on the disk.
        StorageError: when the cache cannot be written.
    """
    folder = root / digest(paths, channels, side)[:32]
    with storage_errors(folder, ADVICE):
        root.mkdir(parents=True, exist_ok=True)
    lock, waiting = folder.with_suffix(".lock"), "another process decodes the same images"
    with exclusive(lock, waiting=waiting, advice=ADVICE):  # of several processes one decodes
        cache = read_cache(folder, len(paths), channels)
        if cache is None:
            with storage_errors(folder, ADVICE):
                remove_leftovers(root)
                fill(folder, paths, channels=channels, side=side)
            cache = read_cache(folder, len(paths), channels)
    if cache is None:
        raise DataError(f"the decoded images in {folder} cannot be read. {ADVICE}")
    return cache


def read_cache(folder: Path, count: int, channels: int) -> PixelCache | None:
    """Returns a cache whose index fits its pixels; none where it is missing or damaged."""
    try:
        with open_regular(folder / "index.npy") as file:
            index = np.load(file, allow_pickle=False)
        with open_regular(folder / "pixels") as file:
            pixels = np.memmap(file, dtype=np.uint8, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError):
        return None
    if index.dtype != np.int64 or index.shape != (count, 3) or (index[:, 1:] < 1).any():
        return None
    ends = (index[:, 1] * index[:, 2] * channels).cumsum()
    begins = np.concatenate([[0], ends[:-1]])
    if not np.array_equal(index[:, 0], begins) or ends[-1] != len(pixels):
        return None
    return PixelCache(pixels, index, channels)


def digest(paths: Sequence[Path], channels: int, side: int) -> str:
    """Returns what names a cache: another one when a file has changed."""
    found = hashlib.sha256(f"1 {channels} {side}\n".encode())
    for path in paths:
        try:
            facts = path.stat()
        except OSError as error:
            raise DataError(f"{path}: it cannot be read: {error.strerror or error}.") from error
        found.update(os.fsencode(path) + f"\0{facts.st_size} {facts.st_mtime_ns}\n".encode())
    return found.hexdigest()


def fill(folder: Path, paths: Sequence[Path], *, channels: int, side: int) -> None:
    """Decodes all images into a folder."""
    rows, begin = [], 0
    with replaced_folder(folder) as temporary, (temporary / "pixels").open("wb") as file:
        for place, values in enumerate(decoded(paths, channels, side)):
            height, width = values.shape[:2]
            rows.append((begin, height, width))
            begin += values.size
            if place == min(AT_A_TIME, len(paths)) - 1:
                check_room(folder, begin / (place + 1) * len(paths))
            file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
        np.save(temporary / "index.npy", np.array(rows, dtype=np.int64))


def decoded(paths: Sequence[Path], channels: int, side: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the images in order, decoded by all cores."""
    one = partial(reduced, channels=channels, side=side)
    for _, pixels in prefetch(one, paths, most=AT_A_TIME):
        yield pixels.result()


def reduced(path: Path, *, channels: int, side: int) -> npt.NDArray[np.uint8]:
    """Returns an image with a shorter side of this length at most: uint8 (H, W) or (H, W, 3)."""
    with open_image(path, channels=channels, short_side=side) as decoded:
        image = decoded.image
        scale = side / min(image.size)
        if scale < 1:
            size = (round(image.width * scale), round(image.height * scale))
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image)


def check_room(folder: Path, bytes_needed: float) -> None:
    """Raises DataError when the cache would fill the disk."""
    free = shutil.disk_usage(folder.parent).free
    if bytes_needed > SHARE_OF_DISK * free:
        raise DataError(
            f"the decoded images would take {bytes_needed / 2**30:.1f} GiB, and {folder.parent} has"
            f" {free / 2**30:.1f} GiB free. Set data.cache=none, or RESNETKIT_CACHE to a larger"
            " disk."
        )
