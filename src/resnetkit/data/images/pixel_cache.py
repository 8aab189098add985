"""A cache of decoded photos: each is decoded once, reduced, and then read from a mapped file.

A folder of the cache contains `pixels`, all images concatenated, and `index.npy`, the offset, the
height and the width of each. It is written atomically.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.data.images.decode import open_image
from resnetkit.data.prefetch import prefetch
from resnetkit.errors import DataError, StorageError
from resnetkit.storage import (
    cache_folder,
    exclusive,
    remove_leftovers,
    replaced_folder,
    storage_errors,
)
from resnetkit.untrusted import open_regular

__all__ = ["PixelCache", "can_be_written", "open_cache", "reduced", "root_of_caches"]

ADVICE = "Free some space, or set data.cache=none."
DISK_FRACTION = 0.5  # of the free space, that a cache may use
AHEAD = 256  # images that are decoded ahead; the total size is estimated from the first ones


@dataclass(frozen=True, eq=False)
class PixelCache:
    """Decoded photos.

    Attributes:
        pixels: uint8, all images concatenated, memory-mapped.
        index: int64 (N, 3): offset, height and width of each image.
        channels: per pixel.
    """

    pixels: npt.NDArray[np.uint8]
    index: npt.NDArray[np.int64]
    channels: int

    @classmethod
    def of(cls, images: Sequence[npt.NDArray[np.uint8]]) -> "PixelCache":
        """Returns a cache in memory of images, each uint8 (H, W) or (H, W, 3)."""
        rows, begin = [], 0
        for image in images:
            rows.append((begin, *image.shape[:2]))
            begin += image.size
        channels = 3 if images[0].ndim == 3 else 1
        pixels = np.concatenate([image.ravel() for image in images])
        return cls(pixels, np.array(rows, dtype=np.int64), channels)

    def image(self, sample_id: int) -> Image.Image:
        """Returns a decoded image."""
        begin, height, width = self.index[sample_id].tolist()
        values = self.pixels[begin : begin + height * width * self.channels]
        shape = (height, width, self.channels) if self.channels > 1 else (height, width)
        return Image.fromarray(values.reshape(shape))


def open_cache(root: Path, paths: Sequence[Path], *, channels: int, side: int) -> PixelCache:
    """Opens the cache of some image files, and creates it first if it does not exist.

    One that is complete is only read, so that its disk may be read-only.

    Args:
        root: folder of all caches.
        paths: of the image files.
        channels: 3 for RGB, 1 for gray.
        side: the largest length of the shorter side, in pixels; larger images are reduced to it.

    Raises:
        DataError: when an image cannot be decoded, or all of them would not fit on the disk.
        StorageError: when the cache cannot be written.
    """
    folder = root / digest(paths, channels, side)[:32]
    if (cache := read_cache(folder, len(paths), channels)) is not None:
        return cache
    with storage_errors(folder, ADVICE):
        root.mkdir(parents=True, exist_ok=True)
    lock, waiting = folder.with_suffix(".lock"), "another process is decoding the same images"
    with exclusive(lock, waiting=waiting, advice=ADVICE) as held:  # only one process decodes
        cache = read_cache(folder, len(paths), channels)
        if cache is None:
            with storage_errors(folder, ADVICE):
                if held:
                    remove_leftovers(root, folder.name)  # others may be writing other caches
                fill(folder, paths, channels=channels, side=side)
            cache = read_cache(folder, len(paths), channels)
    if cache is None:
        raise DataError(f"the decoded images in {folder} cannot be read. {ADVICE}")
    return cache


def root_of_caches() -> Path:
    """Returns the folder of all caches.

    Raises:
        StorageError: when there is no cache folder.
    """
    return cache_folder() / "photos"


def can_be_written(size: float) -> bool:
    """Returns whether a cache of so many bytes can be written: the folder, and room on its disk."""
    try:
        root = root_of_caches()
        folder = next(filter(Path.exists, (root, *root.parents)), root)
        with TemporaryFile(dir=folder):
            return size <= DISK_FRACTION * shutil.disk_usage(folder).free
    except (OSError, StorageError):
        return False


def read_cache(folder: Path, count: int, channels: int) -> PixelCache | None:
    """Returns the cache in a folder; None when it is missing or corrupt."""
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
    """Returns the digest that names a cache; it changes when a file changes."""
    sha256 = hashlib.sha256(f"1 {channels} {side}\n".encode())
    for path in paths:
        try:
            facts = path.stat()
        except OSError as error:
            raise DataError(f"{path}: it cannot be read: {error.strerror or error}.") from error
        sha256.update(os.fsencode(path) + f"\0{facts.st_size} {facts.st_mtime_ns}\n".encode())
    return sha256.hexdigest()


def fill(folder: Path, paths: Sequence[Path], *, channels: int, side: int) -> None:
    """Decodes all images into a folder."""
    rows, begin = [], 0
    with replaced_folder(folder) as temporary, (temporary / "pixels").open("wb") as file:
        for index, values in enumerate(decoded(paths, channels, side)):
            height, width = values.shape[:2]
            rows.append((begin, height, width))
            begin += values.size
            if index == min(AHEAD, len(paths)) - 1:
                check_room(folder, begin / (index + 1) * len(paths))
            file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
        np.save(temporary / "index.npy", np.array(rows, dtype=np.int64))


def decoded(paths: Sequence[Path], channels: int, side: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the images in order, decoded on all processors."""
    decode_one = partial(reduced, channels=channels, side=side)
    for _, pixels in prefetch(decode_one, paths, most=AHEAD):
        yield pixels.result()


def reduced(path: Path, *, channels: int, side: int) -> npt.NDArray[np.uint8]:
    """Returns an image whose shorter side is at most `side`: uint8 (H, W) or (H, W, 3)."""
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
    if bytes_needed > DISK_FRACTION * free:
        raise DataError(
            f"the decoded images would take {bytes_needed / 2**30:.1f} GiB, and {folder.parent} has"
            f" {free / 2**30:.1f} GiB free. Set data.cache=none, or RESNETKIT_CACHE to a larger"
            " disk."
        )
