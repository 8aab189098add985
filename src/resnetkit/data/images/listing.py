"""Lists of labeled image files, with the files and folders that were skipped."""

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
    "Skipped",
    "by_reason",
    "content_digests",
    "describe_classes",
    "describe_skipped",
    "relocated",
    "with_digests",
]

PIECE_BYTES = 2**16  # hashed at the beginning, in the middle and at the end of a file
DIGESTS_AHEAD = 256
NAMES_SHOWN = 8
REASONS_SHOWN = 8


@dataclass(frozen=True)
class ImageFile:
    """A labeled image file.

    Attributes:
        path: of the file.
        label: name of its class.
        split: None if it has not been assigned to one.
        name: path relative to the folder or table that the file comes from, which stays the same
            when the images are moved; empty if the list does not have it.
        digest: of the content, see `content_digests`; empty if the list does not have it.
    """

    path: Path
    label: str
    split: Split | None = None
    name: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that is not used.

    Attributes:
        path: of the file or folder.
        reason: why it is not used; the same text for all files with the same reason.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class ImageList:
    """Labeled image files, in an order that does not change when they are moved.

    Attributes:
        root: the folder or table that they come from.
        files: the images.
        skipped: files and folders that are not used.
        remarks: sentences on what is unusual about the list.
    """

    root: Path
    files: tuple[ImageFile, ...]
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted({file.label for file in self.files}))

    @property
    def sha256(self) -> str:
        """Returns a digest of the names, sizes, labels and splits, without reading the images."""
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
    """Returns the size of a file in bytes.

    Raises:
        DataError: when it cannot be determined.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}.") from error


def describe_classes(names: Sequence[str]) -> str:
    """Returns the number of classes and the first of their names, for messages."""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    noun = "class" if len(names) == 1 else "classes"
    return f"{len(names):,} {noun}: {', '.join(names[:NAMES_SHOWN])}{more}"


def by_reason(skipped: Iterable[Skipped]) -> dict[str, tuple[Path, ...]]:
    """Groups skipped paths by reason, the most frequent reason first."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for entry in skipped:
        paths[entry.reason].append(entry.path)
    ordered = sorted(paths.items(), key=lambda item: -len(item[1]))
    return {reason: tuple(group) for reason, group in ordered}


def describe_skipped(skipped: Sequence[Skipped]) -> str:
    """Returns one sentence on what was skipped and why, without a full stop."""
    groups = by_reason(skipped)
    if len(groups) == 1:
        ((reason, paths),) = groups.items()
        return f"skipped: {len(paths):,} ({reason}), such as {paths[0]}"
    listed = [
        f"{len(paths):,} ({reason}), such as {paths[0]}"
        for reason, paths in list(groups.items())[:REASONS_SHOWN]
    ]
    return f"skipped {len(skipped):,}: {'; '.join(listed)}"


def content_digests(paths: Iterable[Path]) -> list[str]:
    """Returns a digest of the content of each file; empty for a file that cannot be read.

    It covers the size and pieces at the beginning, in the middle and at the end, which together are
    all of most photos: reading every byte of a large data set would take hours.
    """
    return [pending.result() for _, pending in prefetch(content_digest, paths, most=DIGESTS_AHEAD)]


def content_digest(path: Path) -> str:
    """Returns the digest of one file, 32 hexadecimal digits; see `content_digests`."""
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
    """Returns the list with the digest and the relative name of every file filled in."""
    missing = [file.path for file in images.files if not file.digest]
    digests = dict(zip(missing, content_digests(missing), strict=True))
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
    """Returns an earlier list with the current paths of images that were moved.

    Args:
        images: the list; its root is where the images were when it was written.
        root: the folder or table where they are now.

    Raises:
        DataError: when an image is missing or its content has changed.
    """
    files = [moved(file, images.root, root) for file in images.files]
    missing = [file.name for file in files if not file.path.is_file()]
    if missing:
        raise DataError(
            f"{root} does not contain the images of the run: {len(missing):,} of"
            f" {len(files):,} are missing, such as {missing[0]}."
        )
    with_digest = [file for file in files if file.digest]
    digests = content_digests(file.path for file in with_digest)
    changed = [
        file.name
        for file, digest in zip(with_digest, digests, strict=True)
        if file.digest != digest
    ]
    if changed:
        raise DataError(
            f"{root} does not contain the images of the run: the content of {len(changed):,} of"
            f" {len(files):,} differs, such as {changed[0]}."
        )
    return replace(images, root=root, files=tuple(files))


def moved(file: ImageFile, before: Path, root: Path) -> ImageFile:
    """Returns a file of a list with its path below another root.

    A file outside the folder of its table may have stayed where it was.
    """
    name = file.name or os.path.relpath(file.path, before)
    path = Path(os.path.normpath(root / name))
    stayed = name.startswith(os.pardir + os.sep) and not path.is_file() and file.path.is_file()
    return replace(file, path=file.path if stayed else path, name=name)
