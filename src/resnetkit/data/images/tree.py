"""Scans folders: the image files and folders below a folder, and the reasons to skip others."""

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnetkit.data.images.formats import IMAGE_SUFFIXES, is_image, unreadable_reason
from resnetkit.data.images.listing import Skipped
from resnetkit.errors import DataError
from resnetkit.untrusted import name_as_text

__all__ = ["READ_ALREADY", "Folder", "files_in", "folders_in", "identity", "is_system", "scan"]

NO_IMAGE = "not an image by its name"
HIDDEN = "hidden, or created by the system"
NOT_REGULAR = "neither a file nor a folder"
DEAD_LINK = "a broken link"
READ_ALREADY = "a folder that is already read under another name"

# Files and folders that operating systems, network drives and archives create.
SYSTEM = frozenset(
    {
        "__macosx",
        "__pycache__",
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "@sharebin",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "network trash folder",
        "temporary items",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
    }
)

Identity = tuple[int, int]
"""Device and inode number of a file or folder, which are the same for all its names."""


@dataclass
class Folder:
    """A scanned folder.

    Attributes:
        path: of the folder; links are not resolved.
        images: files in the folder that are images by their names, sorted.
        folders: in the folder, sorted by name.
        skipped: files in the folder that are not used.
        same_as: path under which the same folder was scanned before, if it was; this one has no
            content then.
        has_links: whether some of the images are links.
        total: number of images in the folder and below.
    """

    path: Path
    images: list[Path] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    same_as: Path | None = None
    has_links: bool = False
    total: int = 0

    @property
    def name(self) -> str:
        return name_as_text(self.path.name)

    def all(self) -> Iterator["Folder"]:
        """Yields the folder and all folders below it."""
        pending = [self]
        while pending:
            folder = pending.pop()
            yield folder
            pending.extend(reversed(folder.folders))


def scan(root: Path) -> Folder:
    """Scans a folder recursively; each folder once, even if links lead to it again.

    A folder is scanned before the links to it, so that its images belong to the folder itself.

    Raises:
        DataError: when a folder cannot be read.
    """
    top = Folder(root)
    scanned = {identity(root): root}
    order, pending = [], deque([top])
    links: deque[Folder] = deque()
    while pending or links:
        folder = pending.popleft() if pending else links.popleft()
        if folder is not top:
            key = identity(folder.path)
            folder.same_as = scanned.get(key)
            scanned.setdefault(key, folder.path)
        if folder.same_as is not None:
            continue
        order.append(folder)
        for entry in entries(folder.path):
            add(entry, folder, pending, links)
    for folder in reversed(order):
        folder.folders.sort(key=lambda inner: inner.name)
        folder.total = len(folder.images) + sum(inner.total for inner in folder.folders)
    return top


def add(
    entry: "os.DirEntry[str]", folder: Folder, pending: deque[Folder], links: deque[Folder]
) -> None:
    """Adds an entry to its folder; a folder is also appended to `pending`, or a link to `links`."""
    path = folder.path / entry.name
    if is_system(entry.name):
        folder.skipped.extend(Skipped(hidden, HIDDEN) for hidden in hidden_images(path))
        return
    kind = mode_of(entry)
    if kind == stat.S_IFDIR:
        inner = Folder(path)
        folder.folders.append(inner)
        (links if entry.is_symlink() else pending).append(inner)
    elif kind != stat.S_IFREG:
        folder.skipped.append(Skipped(path, NOT_REGULAR if kind else DEAD_LINK))
    elif is_image(path):
        folder.images.append(path)
        folder.has_links |= entry.is_symlink()
    else:
        folder.skipped.append(Skipped(path, unreadable_reason(path.suffix) or NO_IMAGE))


def is_system(name: str) -> bool:
    """Returns whether a file or folder is hidden, or created by the system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def identity(path: Path) -> Identity:
    """Returns the identity of a file or folder, which is the same for all its names.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return facts.st_dev, facts.st_ino


def mode_of(entry: "os.DirEntry[str]") -> int:
    """Returns the file type of an entry, following links; 0 for a broken link."""
    try:
        if not entry.is_symlink():  # scandir already knows, without reading the disk again
            if entry.is_file():
                return stat.S_IFREG
            if entry.is_dir():
                return stat.S_IFDIR
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0


def hidden_images(path: Path) -> list[Path]:
    """Returns the images below a hidden folder, or the path itself if there are none."""
    images = [
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    ]
    return sorted(images) or [path]


def entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Returns the entries of a folder, sorted by name.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        with os.scandir(folder) as iterator:
            return sorted(iterator, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted by name, without those of the system."""
    return [path for path, kind in visible_entries(folder) if kind == stat.S_IFDIR]


def files_in(folder: Path) -> list[Path]:
    """Returns everything else in a folder, sorted by name, without the files of the system."""
    return [path for path, kind in visible_entries(folder) if kind != stat.S_IFDIR]


def visible_entries(folder: Path) -> list[tuple[Path, int]]:
    """Returns the paths in a folder with their file types, without those of the system."""
    return [
        (folder / entry.name, mode_of(entry))
        for entry in entries(folder)
        if not is_system(entry.name)
    ]
