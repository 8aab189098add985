"""What lies below a folder: image files, folders, and everything else with the reason."""

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnetkit.data.images.decode import IMAGE_SUFFIXES, unreadable_reason
from resnetkit.data.images.listing import PassedOver
from resnetkit.errors import DataError
from resnetkit.untrusted import name_as_text

__all__ = ["READ_ALREADY", "Folder", "files_in", "folders_in", "identity", "is_system", "scan"]

NO_IMAGE = "not an image by its name"
HIDDEN = "hidden, or of the system"
NOT_REGULAR = "neither a file nor a folder"
DEAD_LINK = "a link that leads nowhere"
READ_ALREADY = "a folder that is read already under another name"

# What operating systems, network disks and archives put among a user's files.
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
"""Device and number of a file or folder, which all its names have in common."""


@dataclass
class Folder:
    """A folder below the one that was scanned.

    Attributes:
        path: of it, through the links that lead there.
        images: files in it that are images by their names, in the order of their names.
        folders: in it, in the order of their names.
        passed_over: of its files, what is not used.
        same_as: path under which the same folder was scanned, when it was before; it is empty then.
        holds_links: whether some of its images are links.
        total: images in it and below.
    """

    path: Path
    images: list[Path] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    same_as: Path | None = None
    holds_links: bool = False
    total: int = 0

    @property
    def name(self) -> str:
        return name_as_text(self.path.name)

    def all(self) -> Iterator["Folder"]:
        """Yields the folder and all folders below it."""
        waiting = [self]
        while waiting:
            here = waiting.pop()
            yield here
            waiting.extend(reversed(here.folders))


def scan(root: Path) -> Folder:
    """Reads a folder and all below it; each real folder once, whatever links there are.

    Folders are entered before links to them, so that a link adds nothing to the class it lies in.

    Raises:
        DataError: when a folder cannot be read.
    """
    top = Folder(root)
    scanned = {identity(root): root}
    order, waiting = [], deque([top])
    links: deque[Folder] = deque()
    while waiting or links:
        folder = waiting.popleft() if waiting else links.popleft()
        if folder is not top:
            key = identity(folder.path)
            folder.same_as = scanned.get(key)
            scanned.setdefault(key, folder.path)
        if folder.same_as is not None:
            continue
        order.append(folder)
        for entry in entries(folder.path):
            place(entry, folder, waiting, links)
    for folder in reversed(order):
        folder.folders.sort(key=lambda inner: inner.name)
        folder.total = len(folder.images) + sum(inner.total for inner in folder.folders)
    return top


def place(
    entry: "os.DirEntry[str]", folder: Folder, waiting: deque[Folder], links: deque[Folder]
) -> None:
    """Puts an entry of a folder where it belongs; folders wait until they are scanned."""
    path = folder.path / entry.name
    if is_system(entry.name):
        folder.passed_over.extend(PassedOver(each, HIDDEN) for each in hidden_images(path))
        return
    kind = mode_of(entry)
    if kind == stat.S_IFDIR:
        inner = Folder(path)
        folder.folders.append(inner)
        (links if entry.is_symlink() else waiting).append(inner)
    elif kind != stat.S_IFREG:
        folder.passed_over.append(PassedOver(path, NOT_REGULAR if kind else DEAD_LINK))
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        folder.images.append(path)
        folder.holds_links |= entry.is_symlink()
    else:
        folder.passed_over.append(PassedOver(path, unreadable_reason(path.suffix) or NO_IMAGE))


def is_system(name: str) -> bool:
    """Returns whether a name is hidden, or one that systems give and people do not."""
    return name.startswith(".") or name.casefold() in SYSTEM


def identity(path: Path) -> Identity:
    """Returns what all names of a file or folder have in common.

    Raises:
        DataError: when it cannot be looked at.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return facts.st_dev, facts.st_ino


def mode_of(entry: "os.DirEntry[str]") -> int:
    """Returns the kind of an entry, of a link that of what it leads to; 0 when that is nothing."""
    try:
        if not entry.is_symlink():  # known without asking the disk again
            if entry.is_file():
                return stat.S_IFREG
            if entry.is_dir():
                return stat.S_IFDIR
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0


def hidden_images(path: Path) -> list[Path]:
    """Returns the images below a folder of the system, or what it is itself if it holds none."""
    images = [
        Path(here, name)
        for here, _, names in os.walk(path)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    ]
    return sorted(images) or [path]


def entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Returns what lies in a folder, by name.

    Raises:
        DataError: when it may not be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder that a person has put there, by name."""
    return [path for path, kind in listed(folder) if kind == stat.S_IFDIR]


def files_in(folder: Path) -> list[Path]:
    """Returns what else lies in a folder, likewise: files, and what cannot be read as one."""
    return [path for path, kind in listed(folder) if kind != stat.S_IFDIR]


def listed(folder: Path) -> list[tuple[Path, int]]:
    """Returns what lies in a folder, with its kind, without hidden entries and those of systems."""
    return [
        (folder / entry.name, mode_of(entry))
        for entry in entries(folder)
        if not is_system(entry.name)
    ]
