"""Looks at every image of a folder: what is damaged, what is unusual, what is there twice."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.data.ahead import ahead
from resnetkit.data.decode import decode, load_bytes
from resnetkit.data.folder import ImageFile, ImageList
from resnetkit.data.splits import Split
from resnetkit.errors import DataError

__all__ = ["BadImage", "Duplicate", "FolderReport", "check_images", "fingerprint", "without_bad"]

logger = logging.getLogger(__name__)

AHEAD = 64  # images that are decoded before they are looked at
DECODED_SIDE = 64  # pixels: enough to see whether a file is whole and what it shows
BANDS = 8  # of 16 bits: fingerprints that differ in fewer bits agree in one of them
MOST_BITS_APART = 6  # of 128
LEAST_CONTRAST = 4.0  # of 255; below, a fingerprint is noise
LARGEST_BUCKET = 2_000  # images with one band in common, beyond which pairs are not looked for


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be used.

    Attributes:
        path: of the file.
        reason: why, with the path, as decoding says it.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Duplicate:
    """Two images of different parts, or of different classes, that show the same.

    Attributes:
        first: of the two files.
        second: likewise.
        exact: whether their bytes are equal; else they look alike.
    """

    first: ImageFile
    second: ImageFile
    exact: bool


@dataclass(frozen=True)
class FolderReport:
    """What was found.

    Attributes:
        counts: images of each class in each part.
        bad: files that cannot be used.
        converted: what is unusual and harmless, with the files it was met in.
        duplicates: pairs across parts or classes, the exact ones first.
        passed_over: files that are no images by their names.
    """

    counts: dict[str, dict[str, int]]
    bad: tuple[BadImage, ...]
    converted: dict[str, tuple[Path, ...]]
    duplicates: tuple[Duplicate, ...]
    passed_over: tuple[Path, ...]

    @property
    def images(self) -> int:
        """Returns how many files were looked at."""
        return sum(chain.from_iterable(each.values() for each in self.counts.values()))

    @property
    def imbalance(self) -> float:
        """Returns how many times as many images the largest class has as the smallest."""
        totals = [sum(each.values()) for each in self.counts.values()]
        return max(totals) / min(totals)


@dataclass(frozen=True)
class Look:
    """What one file turned out to be.

    Attributes:
        reason: why it cannot be used; empty when it can.
        notes: what is unusual.
        sha256: of its bytes.
        fingerprint: 16 bytes that similar images share, as uint8 (16,); None where there is none.
    """

    reason: str
    notes: tuple[str, ...] = ()
    sha256: str = ""
    fingerprint: npt.NDArray[np.uint8] | None = None


def check_images(
    images: ImageList,
    *,
    duplicates: bool = True,
    observe: Callable[[float], None] = lambda share: None,
) -> FolderReport:
    """Decodes every image, on all cores, and changes none.

    Args:
        images: see `split_images`.
        duplicates: whether to look for images that are there twice.
        observe: is told now and then which share is done, from 0 to 1.
    """
    looks = []
    for _, begun in ahead(look_at, (file.path for file in images.files), most=AHEAD):
        looks.append(begun.result())
        observe(len(looks) / len(images.files))
    counts: dict[str, Counter[str]] = {name: Counter() for name in images.class_names}
    converted: dict[str, list[Path]] = defaultdict(list)
    for file, look in zip(images.files, looks, strict=True):
        counts[file.label][file.split or "train"] += 1
        for note in look.notes:
            converted[note].append(file.path)
    return FolderReport(
        counts={
            name: {part: found[part] for part in get_args(Split) if found[part]}
            for name, found in counts.items()
        },
        bad=tuple(
            BadImage(file.path, look.reason)
            for file, look in zip(images.files, looks, strict=True)
            if look.reason
        ),
        converted={note: tuple(paths) for note, paths in converted.items()},
        duplicates=tuple(find_duplicates(images.files, looks)) if duplicates else (),
        passed_over=images.passed_over,
    )


def without_bad(images: ImageList) -> ImageList:
    """Returns the images that can be used; the others are named in a warning of the log."""
    bad = {each.path: each.reason for each in check_images(images, duplicates=False).bad}
    for reason in bad.values():
        logger.warning("skipped: %s", reason)
    return replace(images, files=tuple(file for file in images.files if file.path not in bad))


def look_at(path: Path) -> Look:
    """Decodes one file."""
    try:
        content = load_bytes(path)
        decoded = decode(content, str(path), short_side=DECODED_SIDE)
    except DataError as error:
        return Look(str(error))
    return Look("", decoded.notes, hashlib.sha256(content).hexdigest(), fingerprint(decoded.image))


def fingerprint(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Returns 128 bits that hardly change when an image is resized or compressed again.

    They say where brightness rises from left to right and from top to bottom (difference hash:
    Krawetz 2013). An image without contrast has none.

    Returns:
        uint8 (16,), or None.
    """
    cells = np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BOX), dtype=np.float32)
    if cells.std() < LEAST_CONTRAST:
        return None
    across, down = np.diff(cells, axis=1)[:8] > 0, np.diff(cells, axis=0)[:, :8] > 0
    return np.packbits(np.concatenate([across.ravel(), down.ravel()]))


def find_duplicates(files: Sequence[ImageFile], looks: Sequence[Look]) -> Iterator[Duplicate]:
    """Yields pairs that show the same but belong to different parts or classes."""
    exact = [
        pair
        for group in grouped(enumerate(look.sha256 for look in looks))
        for pair in pairs_apart(group, files)
    ]
    yield from (Duplicate(files[a], files[b], exact=True) for a, b in exact)
    known = set(exact)
    prints = {
        place: each for place, look in enumerate(looks) if (each := look.fingerprint) is not None
    }
    alike = set()
    for band in range(BANDS):
        keys = ((place, each[2 * band : 2 * band + 2].tobytes()) for place, each in prints.items())
        for group in grouped(keys):
            alike |= {
                (a, b)
                for a, b in pairs_apart(group, files)
                if bits_apart(prints[a], prints[b]) <= MOST_BITS_APART
            }
    yield from (Duplicate(files[a], files[b], exact=False) for a, b in sorted(alike - known))


def grouped(keys: "Iterator[tuple[int, str]] | Iterator[tuple[int, bytes]]") -> list[list[int]]:
    """Returns the places that have a key in common; an empty key is none."""
    found: dict[str | bytes, list[int]] = defaultdict(list)
    for place, key in keys:
        if key:
            found[key].append(place)
    return [group for group in found.values() if 1 < len(group) <= LARGEST_BUCKET]


def pairs_apart(group: Sequence[int], files: Sequence[ImageFile]) -> Iterator[tuple[int, int]]:
    """Yields the pairs of a group that differ in part or class, the first place first."""
    for position, a in enumerate(group):
        for b in group[position + 1 :]:
            if (files[a].split, files[a].label) != (files[b].split, files[b].label):
                yield a, b


def bits_apart(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> int:
    """Returns in how many bits two fingerprints differ."""
    return int(np.bitwise_count(first ^ second).sum())
