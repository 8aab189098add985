"""Published data sets: their expected content, and the cache that stores them."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from resnetkit.data.dataset import Dataset
from resnetkit.data.stratified import stratified_split
from resnetkit.errors import DataError, StorageError
from resnetkit.storage import (
    cache_folder,
    exclusive,
    replaced_folder,
    storage_errors,
    write_synced,
)
from resnetkit.untrusted import open_regular, parse_json, read_bounded

__all__ = [
    "PUBLISHED",
    "Arrays",
    "CachedFacts",
    "Pixels",
    "PublishedDataset",
    "cache_lock",
    "check_cached",
    "check_content",
    "dataset_folder",
    "is_cached",
    "is_intact",
    "open_published",
    "store",
]

Pixels = npt.NDArray[np.uint8]
IMAGES, LABELS, FACTS = CACHED_FILES = ("images.npy", "labels.npy", "facts.json")
MAX_FACTS_BYTES = 1 << 20
ADVICE = "Free some space, or set RESNETKIT_CACHE to another folder."
VALIDATION_FRACTION = 0.1  # of each class: 45k/5k on CIFAR-10, as in the paper


@dataclass(frozen=True)
class Arrays:
    """The raw content of a data set.

    Attributes:
        train_images: uint8 (N, H, W, C).
        train_labels: uint8 (N,).
        test_images: uint8 (M, H, W, C).
        test_labels: uint8 (M,).
    """

    train_images: Pixels
    train_labels: Pixels
    test_images: Pixels
    test_labels: Pixels

    def digests(self) -> dict[str, str]:
        """Returns the SHA-256 of each array, in C order."""
        return {name: array_sha256(array) for name, array in vars(self).items()}


@dataclass(frozen=True)
class PublishedDataset:
    """The expected content of a published data set, whatever files it is read from.

    Attributes:
        title: a short description.
        source: the publication.
        class_names: in the order of the labels.
        image_shape: height, width, channels.
        counts: number of training images and of test images.
        mirrored: whether the horizontal flip of an image belongs to the same class.
        digests: SHA-256 of each array of `Arrays`; empty where only the checksum of the official
            archive is known.
        megabytes: size of the official files.
    """

    title: str
    source: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    counts: tuple[int, int]
    mirrored: bool
    digests: dict[str, str]
    megabytes: int


PUBLISHED: dict[str, PublishedDataset] = {
    "cifar10": PublishedDataset(
        title="60,000 color photographs in 10 classes",
        source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        image_shape=(32, 32, 3),
        counts=(50_000, 10_000),
        mirrored=True,
        digests={
            "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        },
        megabytes=170,
    ),
    "cifar100": PublishedDataset(
        title="60,000 color photographs in 100 classes",
        source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        class_names=tuple(f"class {number}" for number in range(100)),
        image_shape=(32, 32, 3),
        counts=(50_000, 10_000),
        mirrored=True,
        digests={},
        megabytes=169,
    ),
    "fashion-mnist": PublishedDataset(
        title="70,000 gray photographs of clothes in 10 classes",
        source="Xiao, Rasul and Vollgraf 2017, Fashion-MNIST",
        class_names=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        image_shape=(28, 28, 1),
        counts=(60_000, 10_000),
        mirrored=True,
        digests={
            "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        },
        megabytes=31,
    ),
    "mnist": PublishedDataset(
        title="70,000 scanned digits in 10 classes",
        source="LeCun, Cortes and Burges 1998, The MNIST Database",
        class_names=tuple("0123456789"),
        image_shape=(28, 28, 1),
        counts=(60_000, 10_000),
        mirrored=False,
        digests={
            "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        },
        megabytes=12,
    ),
}


def dataset_folder(name: str) -> Path:
    """Returns the folder of a data set in the cache."""
    return cache_folder() / "datasets" / name


def is_cached(name: str) -> bool:
    """Returns whether the files of a data set exist in the cache; their content is not checked."""
    try:
        folder = dataset_folder(name)
    except StorageError:
        return False
    return all((folder / file).is_file() for file in CACHED_FILES)


def is_intact(name: str) -> bool:
    """Returns whether a data set is in the cache with the expected content."""
    if not is_cached(name):
        return False
    try:
        check_cached(name)
    except DataError:
        return False
    return True


@contextmanager
def cache_lock(name: str) -> Iterator[Path]:
    """Yields the folder of a data set, which no other process writes during the block.

    Raises:
        StorageError: when the cache cannot be written.
    """
    folder = dataset_folder(name)
    with storage_errors(folder, ADVICE):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{name}.lock")
    waiting = f"another process is fetching '{name}': waiting for it"
    with exclusive(lock, waiting=waiting, advice=ADVICE):
        yield folder


def array_sha256(array: Pixels) -> str:
    """Returns the SHA-256 of an array in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def check_content(name: str, arrays: Arrays) -> None:
    """Checks that arrays are the content of a data set.

    Raises:
        DataError: when they are not; the message names the first array that differs.
    """
    published = PUBLISHED[name]
    train, test = published.counts
    shapes = {
        "train_images": (train, *published.image_shape),
        "train_labels": (train,),
        "test_images": (test, *published.image_shape),
        "test_labels": (test,),
    }
    for key, array in vars(arrays).items():
        if array.shape != shapes[key] or array.dtype != np.uint8:
            raise DataError(
                f"these files are not the data set '{name}': {key} is {array.dtype} of shape"
                f" {array.shape}, expected uint8 of shape {shapes[key]}."
            )
    for key, digest in arrays.digests().items():
        if published.digests.get(key, digest) != digest:
            raise DataError(
                f"these files are not the data set '{name}': the SHA-256 of {key} is"
                f" {digest[:16]}..., expected {published.digests[key][:16]}.... They are corrupt or"
                " another version; fetch them again."
            )


def store(name: str, arrays: Arrays, source: str) -> Path:
    """Checks arrays, writes them atomically to the cache, and returns their folder.

    Args:
        name: of the data set.
        arrays: its content.
        source: where it came from.

    Raises:
        DataError: when the arrays are not the data set.
        StorageError: when the cache cannot be written.
    """
    check_content(name, arrays)
    folder = dataset_folder(name)
    images = np.concatenate([arrays.train_images, arrays.test_images])
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    facts = {"name": name, "source": source, "sha256": arrays.digests()}
    with storage_errors(folder, ADVICE):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(folder) as temporary:
            write_synced(temporary / IMAGES, npy_bytes(images))
            write_synced(temporary / LABELS, npy_bytes(labels))
            write_synced(temporary / FACTS, json.dumps(facts, indent=1).encode())
    return folder


def npy_bytes(array: Pixels) -> bytes:
    """Returns the content of a .npy file with an array."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@dataclass(frozen=True)
class CachedFacts:
    """What the cache records about a data set.

    Attributes:
        source: where it came from.
        sha256: of each array of `Arrays`.
    """

    source: str
    sha256: dict[str, str]


def read_cached(name: str) -> tuple[Pixels, Pixels, CachedFacts]:
    """Returns all images and all labels, memory-mapped, and the facts that `store` wrote.

    Raises:
        DataError: when they are missing, cannot be read, or have another shape.
    """
    published = PUBLISHED[name]
    try:
        folder = dataset_folder(name)
    except StorageError as error:
        raise DataError(f"the data set '{name}' is not on this machine: {error}") from error
    if not folder.is_dir():
        raise DataError(
            f"the data set '{name}' is not on this machine (looked in {folder})."
            f" 'resnet data fetch {name}' downloads {published.megabytes} MB, or reads files that"
            " you already have with --from."
        )
    count = sum(published.counts)
    try:
        facts = read_facts(folder / FACTS)
        images = mapped(folder / IMAGES, (count, *published.image_shape))
        labels = mapped(folder / LABELS, (count,))
        if labels.max() >= len(published.class_names):
            raise ValueError(
                f"{LABELS} has labels of more than {len(published.class_names)} classes"
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"the cached data set in {folder} is corrupt ({reason}): remove that folder and run"
            f" 'resnet data fetch {name}' again."
        ) from error
    return images, labels, facts


def mapped(path: Path, shape: tuple[int, ...]) -> Pixels:
    """Returns a memory-mapped uint8 array of a .npy file.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it is corrupt, or the array has another shape.
    """
    with open_regular(path):  # numpy would block on a pipe
        pass
    try:
        # Copy-on-write: the file does not change, and torch may treat the array as writable.
        array: Pixels = np.lib.format.open_memmap(path, mode="c")
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(
            f"{path.name} is {array.dtype} of shape {array.shape}, expected uint8 of shape {shape}"
        )
    return array


def read_facts(path: Path) -> CachedFacts:
    """Reads the facts about a data set that `store` has written.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it is corrupt.
    """
    try:
        facts = parse_json(read_bounded(path, MAX_FACTS_BYTES))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    names = {field.name for field in fields(Arrays)}
    digests = facts.get("sha256") if isinstance(facts, dict) else None
    if (
        not isinstance(digests, dict)
        or digests.keys() != names
        or not all(isinstance(value, str) for value in (facts.get("source"), *digests.values()))
    ):
        raise ValueError(f"{path.name} lacks the source or a digest")
    return CachedFacts(facts["source"], digests)


def check_cached(name: str) -> CachedFacts:
    """Verifies the whole content of a cached data set and returns its facts.

    Raises:
        DataError: when it is missing or corrupt.
    """
    images, labels, facts = read_cached(name)
    train = PUBLISHED[name].counts[0]
    arrays = Arrays(images[:train], labels[:train], images[train:], labels[train:])
    check_content(name, arrays)
    if arrays.digests() != facts.sha256:
        raise DataError(
            f"the cached data set '{name}' has changed since it was fetched: remove"
            f" {dataset_folder(name)} and fetch it again."
        )
    return facts


def open_published(name: str) -> Dataset:
    """Opens a data set from the cache, memory-mapped.

    Raises:
        DataError: when it is missing, cannot be read, or has another shape.
    """
    published = PUBLISHED[name]
    images, labels, facts = read_cached(name)
    train, test = published.counts
    targets = torch.from_numpy(labels).to(torch.int64)
    splits = stratified_split(
        targets[:train], validation_fraction=VALIDATION_FRACTION, test_fraction=0
    )
    splits["test"] = torch.arange(train, train + test)
    return Dataset(
        name=name,
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        labels=targets,
        class_names=published.class_names,
        splits=splits,
        mirrored=published.mirrored,
        sha256=hashlib.sha256("".join(facts.sha256.values()).encode()).hexdigest(),
    )
