"""Labeled image files in a list, and what was passed over when it was made."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resnetkit.data.prefetch import prefetch
from resnetkit.data.splits import Split
from resnetkit.errors import DataError
from resnetkit.untrusted import open_regular

__all__ = [
    "ImageFile",
    "ImageList",
    "PassedOver",
    "by_reason",
    "classes_in_words",
    "content_digests",
    "passed_over_in_words",
    "relocated",
    "with_digests",
]

PIECE_BYTES = 2**16  # of the beginning, the middle and the end of a file, that identify it
DIGESTS_AHEAD = 256
NAMES_SHOWN = 8
REASONS_SHOWN = 8


@dataclass(frozen=True)
class ImageFile:
    """A labeled file.

    Attributes:
        path: of the file.
        label: name of its class.
        split: the part it was put in; empty where nobody has.
        name: its path relative to the folder or table that it comes from, where a list that was
            written before says so: it stays when the images are moved.
        digest: of its content, where a list says so; see `content_digests`.
    """

    path: Path
    label: str
    split: Split | None = None
    name: str = ""
    digest: str = ""


@dataclass(frozen=True)
class PassedOver:
    """A file or folder that is not used.

    Attributes:
        path: of it.
        reason: why, in words that many have in common.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class ImageList:
    """Labeled files, in the order of their paths.

    Attributes:
        root: the folder or table they come from.
        files: the images.
        passed_over: what lies there and is not used.
        remarks: sentences on what a person should know about the list.
    """

    root: Path
    files: tuple[ImageFile, ...]
    passed_over: tuple[PassedOver, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted({file.label for file in self.files}))

    @property
    def sha256(self) -> str:
        """Returns a digest of names, sizes, labels and parts; it does not read the images."""
        digest = hashlib.sha256()
        for file in self.files:
            name = file.name or os.path.relpath(file.path, self.root)
            digest.update(
                f"{name}\0{size_of(file.path)}\0{file.label}\0{file.split}\n".encode(
                    errors="surrogateescape"
                )
            )
        return digest.hexdigest()


def size_of(path: Path) -> int:
    """Returns the bytes of a file.

    Raises:
        DataError: when it cannot be looked at.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}.") from error


def classes_in_words(names: Sequence[str]) -> str:
    """Returns the number of classes and the first of their names."""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    noun = "class" if len(names) == 1 else "classes"
    return f"{len(names):,} {noun}: {', '.join(names[:NAMES_SHOWN])}{more}"


def by_reason(passed_over: Iterable[PassedOver]) -> dict[str, tuple[Path, ...]]:
    """Returns what was passed over for each reason, the most frequent one first."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for entry in passed_over:
        paths[entry.reason].append(entry.path)
    ordered = sorted(paths.items(), key=lambda item: -len(item[1]))
    return {reason: tuple(group) for reason, group in ordered}


def passed_over_in_words(passed_over: Sequence[PassedOver]) -> str:
    """Returns one sentence on what was passed over, without a full stop."""
    groups = by_reason(passed_over)
    listed = [
        f"{len(paths):,} ({reason}), such as {paths[0]}"
        for reason, paths in list(groups.items())[:REASONS_SHOWN]
    ]
    return f"passed over {len(passed_over):,}: {'; '.join(listed)}"


def content_digests(paths: Iterable[Path]) -> list[str]:
    """Returns for each file what identifies its content; an empty text for one that is not read.

    It is a digest of the size and of pieces at the beginning, in the middle and at the end, which
    for most photos are all of it: reading every byte of a large data set would take hours.
    """
    return [begun.result() for _, begun in prefetch(content_digest, paths, most=DIGESTS_AHEAD)]


def content_digest(path: Path) -> str:
    """Returns what identifies the content of a file, 32 hexadecimal digits."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(f"{size}\n".encode())
            starts = (0, (size - PIECE_BYTES) // 2, size - PIECE_BYTES)
            if size <= len(starts) * PIECE_BYTES:
                digest.update(file.read(size))
            else:
                for start in starts:
                    digest.update(os.pread(file.fileno(), PIECE_BYTES, start))
    except OSError:
        return ""
    return digest.hexdigest()[:32]


def with_digests(images: ImageList) -> ImageList:
    """Returns the list with the digest and the relative name of each file that lacks them."""
    lacking = [file.path for file in images.files if not file.digest]
    digests = dict(zip(lacking, content_digests(lacking), strict=True))
    files = tuple(
        replace(
            file,
            name=file.name or os.path.relpath(file.path, images.root),
            digest=file.digest or digests[file.path],
        )
        for file in images.files
    )
    return replace(images, files=files)


def relocated(images: ImageList, root: Path) -> ImageList:
    """Returns a list that was written before with the paths that its images have now.

    Args:
        images: the list; its root is where the images lay then, and may be gone.
        root: the folder or table where they are now.

    Raises:
        DataError: when not all of them are there, or one has another content.
    """
    files = [moved(file, images.root, root) for file in images.files]
    missing = [file.name for file in files if not file.path.is_file()]
    if missing:
        raise DataError(
            f"{root} does not hold the images of the run: {missing[0]} is missing ({len(missing):,}"
            f" of {len(files):,} are)."
        )
    known = [file for file in files if file.digest]
    digests = content_digests(file.path for file in known)
    other = [file.name for file, now in zip(known, digests, strict=True) if file.digest != now]
    if other:
        raise DataError(
            f"{root} does not hold the images of the run: {other[0]} is another file"
            f" ({len(other):,} of {len(files):,} are)."
        )
    return replace(images, root=root, files=tuple(files))


def moved(file: ImageFile, before: Path, root: Path) -> ImageFile:
    """Returns a file of a list with the path that it has below another root.

    What a table names outside of its own folder may have stayed where it was.
    """
    name = file.name or os.path.relpath(file.path, before)
    path = Path(os.path.normpath(root / name))
    stayed = name.startswith(os.pardir + os.sep) and not path.is_file() and file.path.is_file()
    return replace(file, path=file.path if stayed else path, name=name)
