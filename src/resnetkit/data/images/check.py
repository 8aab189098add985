"""Looks at every image of a folder: what is corrupt, unusual or a duplicate."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.data.images.decode import decoding, load_bytes
from resnetkit.data.images.listing import ImageFile, ImageList, PassedOver
from resnetkit.data.prefetch import prefetch
from resnetkit.data.splits import Split
from resnetkit.errors import DataError

__all__ = ["BadImage", "Duplicates", "FolderReport", "check_images", "fingerprint", "without_bad"]

logger = logging.getLogger(__name__)

Key = TypeVar("Key", str, bytes, int)

AHEAD = 64  # images that are decoded before they are looked at
DECODED_SIDE = 64  # pixels: enough to see whether a file is whole and what it shows
BANDS = 8  # of 16 bits: fingerprints that differ in fewer bits agree in one of them
MOST_BITS_APART = 6  # of 128
LEAST_CONTRAST = 4.0  # of 255; below, a fingerprint is noise
ALL_PAIRS = 256  # fingerprints with a band in common, up to which all pairs are listed
LARGEST_BUCKET = 30_000  # compared with each other: 450 million pairs, a few seconds


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be used.

    Attributes:
        path: of the file; None for an image that was given without one.
        reason: why not, with the path, as the decoder reports it.
    """

    path: Path | None
    reason: str


@dataclass(frozen=True)
class Duplicates:
    """Images of different splits, or of different classes, that show the same.

    Attributes:
        images: two or more, in the order of their paths.
        exact: whether their bytes are equal; else they look alike.
    """

    images: tuple[ImageFile, ...]
    exact: bool


@dataclass(frozen=True)
class FolderReport:
    """What was found.

    Attributes:
        counts: images of each class in each part.
        bad: files that cannot be used.
        converted: what is unusual and harmless, with the files it was met in.
        lost: of which images little of the picture is left, and why, with their files.
        duplicates: groups across splits or classes, the exact ones first.
        passed_over: what lies there and is not used, with reasons.
    """

    counts: dict[str, dict[str, int]]
    bad: tuple[BadImage, ...]
    converted: dict[str, tuple[Path, ...]]
    lost: dict[str, tuple[Path, ...]]
    duplicates: tuple[Duplicates, ...]
    passed_over: tuple[PassedOver, ...]

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
        losses: what little is left of the picture.
        sha256: of its bytes.
        fingerprint: 16 bytes that similar images share, as uint8 (16,); None where there is none.
    """

    reason: str
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    sha256: str = ""
    fingerprint: npt.NDArray[np.uint8] | None = None


def check_images(
    images: ImageList,
    *,
    duplicates: bool = True,
    observe: Callable[[float], None] = lambda fraction: None,
) -> FolderReport:
    """Decodes every image, on all cores, and changes none.

    Args:
        images: see `split_images`.
        duplicates: whether to look for duplicate images.
        observe: is called now and then with the fraction done, from 0 to 1.
    """
    looks = []
    for _, begun in prefetch(look_at, (file.path for file in images.files), most=AHEAD):
        looks.append(begun.result())
        observe(len(looks) / len(images.files))
    counts: dict[str, Counter[str]] = {name: Counter() for name in images.class_names}
    for file in images.files:
        counts[file.label][file.split or "train"] += 1
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
        converted=files_by_note(images, [look.notes for look in looks]),
        lost=files_by_note(images, [look.losses for look in looks]),
        duplicates=tuple(find_duplicates(images.files, looks)) if duplicates else (),
        passed_over=images.passed_over,
    )


def files_by_note(
    images: ImageList, notes: Sequence[tuple[str, ...]]
) -> dict[str, tuple[Path, ...]]:
    """Returns for each note the files that have it."""
    files: dict[str, list[Path]] = defaultdict(list)
    for file, its_notes in zip(images.files, notes, strict=True):
        for note in its_notes:
            files[note].append(file.path)
    return {note: tuple(paths) for note, paths in files.items()}


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
        with decoding(content, str(path), short_side=DECODED_SIDE) as decoded:
            its_fingerprint = fingerprint(decoded.image)
    except DataError as error:
        return Look(str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    return Look("", decoded.notes, decoded.losses, sha256, its_fingerprint)


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


def find_duplicates(files: Sequence[ImageFile], looks: Sequence[Look]) -> Iterator[Duplicates]:
    """Yields groups of images that show the same but belong to different splits or classes."""
    by_content = grouped((look.sha256, place) for place, look in enumerate(looks))
    exact = [places for places in by_content.values() if are_apart(files, places)]
    yield from (group_of(files, places, exact=True) for places in exact)
    by_print = grouped(
        (b"" if look.fingerprint is None else look.fingerprint.tobytes(), place)
        for place, look in enumerate(looks)
    )
    for prints in alike(list(by_print)):
        places = sorted(chain.from_iterable(by_print[each] for each in prints))
        if are_apart(files, places) and len({looks[place].sha256 for place in places}) > 1:
            yield group_of(files, places, exact=False)


def grouped(keys: Iterable[tuple[Key, int]]) -> dict[Key, list[int]]:
    """Returns the places of each key; an empty key is none."""
    places: dict[Key, list[int]] = defaultdict(list)
    for key, place in keys:
        if key:
            places[key].append(place)
    return dict(places)


def are_apart(files: Sequence[ImageFile], places: Sequence[int]) -> bool:
    """Returns whether some images belong to more than one split or class."""
    return len({(files[place].split, files[place].label) for place in places}) > 1


def group_of(files: Sequence[ImageFile], places: Sequence[int], *, exact: bool) -> Duplicates:
    return Duplicates(tuple(files[place] for place in places), exact)


def alike(prints: Sequence[bytes]) -> list[list[bytes]]:
    """Returns groups of different fingerprints, each of which differs from another in few bits.

    Fingerprints with few different bits agree in at least one of their bands, so that only those
    with a band in common are compared, and of very many only those that follow each other when they
    are sorted. A fingerprint that is like no other is a group of its own.
    """
    from scipy.sparse import coo_array  # imported where it is used: it takes a while
    from scipy.sparse.csgraph import connected_components

    prints = sorted(prints)
    words = np.frombuffer(b"".join(prints), dtype=np.uint64).reshape(-1, 2)
    first, second = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for band in range(BANDS):
        keys = ((each[2 * band : 2 * band + 2], place) for place, each in enumerate(prints))
        for bucket in grouped(keys).values():
            for start in range(0, len(bucket), LARGEST_BUCKET):
                places = np.array(bucket[start : start + LARGEST_BUCKET])
                if len(places) > 1:
                    a, b = close_pairs(words, places)
                    first.append(a)
                    second.append(b)
    pairs = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(len(prints),) * 2)
    _, labels = connected_components(graph, directed=False)
    groups = grouped((int(label) + 1, place) for place, label in enumerate(labels))
    return [[prints[place] for place in places] for places in groups.values()]


def close_pairs(
    words: npt.NDArray[np.uint64], places: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns pairs of fingerprints with few different bits, enough to connect all such pairs."""
    if len(places) > ALL_PAIRS:
        return spanning_pairs(words, places)
    bits = np.bitwise_count(words[places][:, None] ^ words[places]).sum(-1)
    a, b = np.nonzero(bits <= MOST_BITS_APART)
    return places[a], places[b]


def spanning_pairs(
    words: npt.NDArray[np.uint64], places: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns as `close_pairs` fewer pairs than there are places.

    Every frame of a still camera is like every other: their pairs would fill the memory.
    """
    first, second = [places[:0]], [places[:0]]
    frontier: list[np.int64] = []
    rest, rest_words = places, words[places]
    while len(rest):
        if not frontier:
            frontier, rest, rest_words = [rest[0]], rest[1:], rest_words[1:]
        place = frontier.pop()
        bits = np.bitwise_count(rest_words ^ words[place]).sum(-1, dtype=np.uint8)
        is_close = bits <= MOST_BITS_APART
        if is_close.any():
            close = rest[is_close]
            first.append(np.full_like(close, place))
            second.append(close)
            frontier.extend(close)
            rest, rest_words = rest[~is_close], rest_words[~is_close]
    return np.concatenate(first), np.concatenate(second)
