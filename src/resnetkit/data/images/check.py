"""Checks every custom image: which files are corrupt, unusual or duplicates."""

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
from resnetkit.data.images.listing import ImageFile, ImageList, Skipped
from resnetkit.data.prefetch import prefetch
from resnetkit.data.splits import Split
from resnetkit.errors import DataError

__all__ = ["BadImage", "Duplicates", "FolderReport", "check_images", "fingerprint", "without_bad"]

logger = logging.getLogger(__name__)

Key = TypeVar("Key", str, bytes, int)

AHEAD = 64  # images that are decoded ahead
DECODED_SIDE = 64  # pixels: enough to detect corrupt files and to compare images
BANDS = 8  # of 16 bits: fingerprints that differ in fewer than 8 bits agree in a whole band
MOST_DIFFERENT_BITS = 6  # of 128
CELLS = 9  # of a fingerprint on each side
LEAST_SIDE = 2 * CELLS  # pixels; below it, different images have the same fingerprint
LEAST_CONTRAST = 4.0  # of 255; below it, a fingerprint is noise
ALL_PAIRS = 256  # up to this many fingerprints that agree in a band, all pairs are compared
LARGEST_BUCKET = 30_000  # of fingerprints compared with each other: 450 million pairs, seconds


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be used.

    Attributes:
        path: of the file; None for an image that has none.
        reason: the message of the decoder, which names the path.
    """

    path: Path | None
    reason: str


@dataclass(frozen=True)
class Duplicates:
    """Images of different splits or classes that are identical or similar.

    Attributes:
        images: two or more, in the order of their paths.
        exact: whether the files are identical; otherwise the images are similar.
    """

    images: tuple[ImageFile, ...]
    exact: bool


@dataclass(frozen=True)
class FolderReport:
    """The result of `check_images`.

    Attributes:
        counts: number of images by class and split.
        bad: files that cannot be used.
        converted: files by harmless peculiarity, such as a palette.
        lost: files whose image is mostly lost, by reason.
        duplicates: groups across splits or classes, the exact ones first.
        skipped: files and folders that are not used.
    """

    counts: dict[str, dict[str, int]]
    bad: tuple[BadImage, ...]
    converted: dict[str, tuple[Path, ...]]
    lost: dict[str, tuple[Path, ...]]
    duplicates: tuple[Duplicates, ...]
    skipped: tuple[Skipped, ...]

    @property
    def images(self) -> int:
        """Returns the number of files that were checked."""
        return sum(chain.from_iterable(by_split.values() for by_split in self.counts.values()))

    @property
    def imbalance(self) -> float:
        """Returns the size of the largest class divided by that of the smallest."""
        totals = [sum(by_split.values()) for by_split in self.counts.values()]
        return max(totals) / min(totals)


@dataclass(frozen=True)
class CheckedFile:
    """The result of checking one file.

    Attributes:
        reason: why it cannot be used; None if it can.
        notes: harmless peculiarities.
        losses: what is lost of the image.
        sha256: of the file.
        fingerprint: uint8 (16,); None where `fingerprint` has none.
    """

    reason: str | None
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
    """Decodes every image, on all processors; no file is changed.

    Args:
        images: see `split_images`.
        duplicates: whether to look for duplicate images.
        observe: called with the completed fraction, from 0 to 1.
    """
    checked = []
    for _, pending in prefetch(check_file, (file.path for file in images.files), most=AHEAD):
        checked.append(pending.result())
        observe(len(checked) / len(images.files))
    counts: dict[str, Counter[str]] = {name: Counter() for name in images.class_names}
    for file in images.files:
        counts[file.label][file.split or "train"] += 1
    return FolderReport(
        counts={
            name: {split: by_split[split] for split in get_args(Split) if by_split[split]}
            for name, by_split in counts.items()
        },
        bad=tuple(
            BadImage(file.path, result.reason)
            for file, result in zip(images.files, checked, strict=True)
            if result.reason is not None
        ),
        converted=files_by_note(images, [result.notes for result in checked]),
        lost=files_by_note(images, [result.losses for result in checked]),
        duplicates=tuple(find_duplicates(images.files, checked)) if duplicates else (),
        skipped=images.skipped,
    )


def files_by_note(
    images: ImageList, notes: Sequence[tuple[str, ...]]
) -> dict[str, tuple[Path, ...]]:
    """Groups the files by note; a file may have several.

    Args:
        images: the files.
        notes: the notes of each file.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for file, file_notes in zip(images.files, notes, strict=True):
        for note in file_notes:
            files[note].append(file.path)
    return {note: tuple(paths) for note, paths in files.items()}


def without_bad(images: ImageList) -> ImageList:
    """Returns the images that can be decoded, and logs a warning for each of the others."""
    bad = {image.path: image.reason for image in check_images(images, duplicates=False).bad}
    for reason in bad.values():
        logger.warning("skipped: %s", reason)
    return replace(images, files=tuple(file for file in images.files if file.path not in bad))


def check_file(path: Path) -> CheckedFile:
    """Decodes one file."""
    try:
        content = load_bytes(path)
        with decoding(content, str(path), short_side=DECODED_SIDE) as decoded:
            bits = fingerprint(decoded.image)
    except DataError as error:
        return CheckedFile(str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    return CheckedFile(None, decoded.notes, decoded.losses, sha256, bits)


def fingerprint(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Returns 128 bits that hardly change when an image is resized or compressed again.

    A difference hash (Krawetz 2013): each bit says whether brightness increases between two
    neighboring cells, from left to right or from top to bottom.

    Returns:
        uint8 (16,); None for an image without contrast, or one too small to tell it from others.
    """
    if min(image.size) < LEAST_SIDE:
        return None
    gray = image.convert("L").resize((CELLS, CELLS), Image.Resampling.BOX)
    cells = np.asarray(gray, dtype=np.float32)
    if cells.std() < LEAST_CONTRAST:
        return None
    across, down = np.diff(cells, axis=1)[:8] > 0, np.diff(cells, axis=0)[:, :8] > 0
    return np.packbits(np.concatenate([across.ravel(), down.ravel()]))


def find_duplicates(
    files: Sequence[ImageFile], checked: Sequence[CheckedFile]
) -> Iterator[Duplicates]:
    """Yields groups of identical or similar images that belong to different splits or classes."""
    by_content = grouped((result.sha256, index) for index, result in enumerate(checked))
    exact = [indices for indices in by_content.values() if differ(files, indices)]
    yield from (group_of(files, indices, exact=True) for indices in exact)
    by_fingerprint = grouped(
        (b"" if result.fingerprint is None else result.fingerprint.tobytes(), index)
        for index, result in enumerate(checked)
    )
    for similar in similar_groups(list(by_fingerprint)):
        indices = sorted(chain.from_iterable(by_fingerprint[bits] for bits in similar))
        if differ(files, indices) and len({checked[index].sha256 for index in indices}) > 1:
            yield group_of(files, indices, exact=False)


def grouped(keys: Iterable[tuple[Key, int]]) -> dict[Key, list[int]]:
    """Groups indices by key; those with an empty key are left out."""
    indices: dict[Key, list[int]] = defaultdict(list)
    for key, index in keys:
        if key:
            indices[key].append(index)
    return dict(indices)


def differ(files: Sequence[ImageFile], indices: Sequence[int]) -> bool:
    """Returns whether images belong to more than one split or class."""
    return len({(files[index].split, files[index].label) for index in indices}) > 1


def group_of(files: Sequence[ImageFile], indices: Sequence[int], *, exact: bool) -> Duplicates:
    return Duplicates(tuple(files[index] for index in indices), exact)


def similar_groups(fingerprints: Sequence[bytes]) -> list[list[bytes]]:
    """Groups unique fingerprints: the connected components of those that differ in few bits.

    Two fingerprints that differ in few bits agree in at least one band, so that only those with a
    common band are compared; of very many, only those that are close in sorted order. A fingerprint
    without similar ones is a group of its own.
    """
    from scipy.sparse import coo_array  # imported here because it is slow
    from scipy.sparse.csgraph import connected_components

    fingerprints = sorted(fingerprints)
    words = np.frombuffer(b"".join(fingerprints), dtype=np.uint64).reshape(-1, 2)
    first, second = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for band in range(BANDS):
        keys = ((bits[2 * band : 2 * band + 2], index) for index, bits in enumerate(fingerprints))
        for bucket in grouped(keys).values():
            for start in range(0, len(bucket), LARGEST_BUCKET):
                indices = np.array(bucket[start : start + LARGEST_BUCKET])
                if len(indices) > 1:
                    a, b = close_pairs(words, indices)
                    first.append(a)
                    second.append(b)
    pairs = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(len(fingerprints),) * 2)
    _, labels = connected_components(graph, directed=False)
    groups = grouped((int(label) + 1, index) for index, label in enumerate(labels))
    return [[fingerprints[index] for index in indices] for indices in groups.values()]


def close_pairs(
    words: npt.NDArray[np.uint64], indices: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns pairs of fingerprints that differ in few bits, enough to connect all such pairs.

    Args:
        words: the fingerprints, uint64 (N, 2).
        indices: of those to compare.
    """
    if len(indices) > ALL_PAIRS:
        return spanning_pairs(words, indices)
    bits = np.bitwise_count(words[indices][:, None] ^ words[indices]).sum(-1)
    a, b = np.nonzero(bits <= MOST_DIFFERENT_BITS)
    return indices[a], indices[b]


def spanning_pairs(
    words: npt.NDArray[np.uint64], indices: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns what `close_pairs` does, with fewer pairs than there are fingerprints.

    All frames of a static camera are similar: all their pairs would not fit into memory.
    """
    first, second = [indices[:0]], [indices[:0]]
    frontier: list[np.int64] = []
    rest, rest_words = indices, words[indices]
    while len(rest):
        if not frontier:
            frontier, rest, rest_words = [rest[0]], rest[1:], rest_words[1:]
        index = frontier.pop()
        bits = np.bitwise_count(rest_words ^ words[index]).sum(-1, dtype=np.uint8)
        is_close = bits <= MOST_DIFFERENT_BITS
        if is_close.any():
            close = rest[is_close]
            first.append(np.full_like(close, index))
            second.append(close)
            frontier.extend(close)
            rest, rest_words = rest[~is_close], rest_words[~is_close]
    return np.concatenate(first), np.concatenate(second)
