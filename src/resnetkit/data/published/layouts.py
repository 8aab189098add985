"""The file layouts of published data sets, and their readers."""

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision import datasets as torchvision_datasets

from resnetkit.data.published.table import Arrays, Pixels, PublishedDataset
from resnetkit.download import Digest
from resnetkit.untrusted import decompressed, parse_json, read_bounded, recognized_mistake

__all__ = ["LAYOUTS", "Layout", "most_bytes"]


def most_bytes(published: PublishedDataset) -> int:
    """Returns an upper bound on the size of a file of a data set: all pixels, names and labels."""
    return sum(published.counts) * (int(np.prod(published.image_shape)) + 100) + (1 << 20)


def content_of(folder: Path, name: str, max_bytes: int) -> bytes:
    """Returns the content of a file of a data set.

    Raises:
        ValueError: when it cannot be read, is too large, or is recognized as something else.
    """
    try:
        content = read_bounded(folder / name, max_bytes)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from error
    if mistake := recognized_mistake(content):
        raise ValueError(f"{name}: {mistake}")
    return content


@dataclass(frozen=True)
class Layout:
    """A layout of the files of a data set.

    Attributes:
        landmark: name of a file that only this layout has.
        files: names of all files that are read.
        read: reads the arrays from a folder; raises ValueError.
    """

    landmark: str
    files: tuple[str, ...]
    read: Callable[[Path, PublishedDataset], Arrays]


TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TRAIN_LABELS, TEST_LABELS = "train_lables.json", "test_lables.json"  # as the package spells them


def cifar_python(dataset: type[torchvision_datasets.CIFAR10], landmark: str) -> Layout:
    """Returns the layout of the official Python batches, with the checksums of torchvision."""

    def read(folder: Path, published: PublishedDataset) -> Arrays:
        limit = most_bytes(published)
        train = [python_batch(folder, name, md5, limit) for name, md5 in dataset.train_list]
        test = [python_batch(folder, name, md5, limit) for name, md5 in dataset.test_list]
        return Arrays(
            np.concatenate([images for images, _ in train]),
            np.concatenate([labels for _, labels in train]),
            *test[0],
        )

    files = (landmark, *(name for name, _ in (*dataset.train_list, *dataset.test_list)))
    return Layout(landmark, files, read)


def python_batch(folder: Path, name: str, md5: str, max_bytes: int) -> tuple[Pixels, Pixels]:
    """Reads an official batch; it is pickled, and so its checksum is verified first."""
    content = content_of(folder, name, max_bytes)
    digest = Digest("md5", md5)
    if (actual := digest.of_bytes(content)) != md5:
        raise ValueError(
            f"{name} is not the official file: its {digest} is {actual}, expected {md5}. Fetch it"
            " again"
        )
    batch = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    labels = batch["labels"] if "labels" in batch else batch["fine_labels"]
    images = np.asarray(batch["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.asarray(labels, dtype=np.uint8)


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays, lists and strings; the official batches contain nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] != "numpy" or name not in NUMPY_NAMES:
            raise ValueError(f"it refers to {module}.{name}, which no batch needs")
        return super().find_class(module, name)


NUMPY_NAMES = ("_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar")


def read_cifar_binary(folder: Path, published: PublishedDataset) -> Arrays:
    """Reads the official binary batches: records of a label and 3,072 pixels in CHW order."""

    def batch(name: str) -> tuple[Pixels, Pixels]:
        content = content_of(folder, f"{name}.bin", most_bytes(published))
        if len(content) % 3073:
            raise ValueError(
                f"{name}.bin has {len(content):,} bytes, expected 3,073 for each image: it is"
                " corrupt or incomplete"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]

    train = [batch(name) for name in TRAIN_BATCHES]
    test_images, test_labels = batch("test_batch")
    return Arrays(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        np.ascontiguousarray(test_images),
        test_labels,
    )


def read_cifar_sheets(folder: Path, published: PublishedDataset) -> Arrays:
    """Reads PNG sheets, in which a row holds the 1,024 RGB pixels of an image; labels in JSON."""
    limit = most_bytes(published)
    train, test = published.counts

    def sheet(name: str, rows: int) -> Pixels:
        content = content_of(folder, f"{name}.png", limit)
        check_png_size(f"{name}.png", content, (1024, rows))
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)
        except Exception as error:  # Pillow raises anything for a corrupt file
            raise ValueError(f"{name}.png is corrupt") from error

    return Arrays(
        np.concatenate([sheet(name, train // len(TRAIN_BATCHES)) for name in TRAIN_BATCHES]),
        json_labels(TRAIN_LABELS, content_of(folder, TRAIN_LABELS, limit)),
        sheet("test_batch", test),
        json_labels(TEST_LABELS, content_of(folder, TEST_LABELS, limit)),
    )


def check_png_size(name: str, content: bytes, expected: tuple[int, int]) -> None:
    """Checks the width and height in the header of a PNG file, before it is decoded.

    Raises:
        ValueError: when it is not a PNG file, or has another size.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 24:
        raise ValueError(f"{name} is not a PNG file")
    size = struct.unpack(">II", content[16:24])
    if size != expected:
        raise ValueError(
            f"{name} has {size[0]:,} x {size[1]:,} pixels, expected {expected[0]:,} x"
            f" {expected[1]:,}"
        )


def json_labels(name: str, content: bytes) -> Pixels:
    """Parses labels in JSON.

    Raises:
        ValueError: when they are not a list of integers from 0 to 255.
    """
    try:
        labels = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(labels, list) or not all(
        type(label) is int and 0 <= label <= 255 for label in labels
    ):
        raise ValueError(f"{name} is not a list of labels, integers from 0 to 255")
    return np.array(labels, dtype=np.uint8)


def read_idx_files(folder: Path, published: PublishedDataset) -> Arrays:
    """Reads the four IDX files of the MNIST family, compressed or not."""
    height, width, _ = published.image_shape
    train, test = published.counts
    return Arrays(
        read_idx(folder, "train-images-idx3-ubyte", (train, height, width))[..., None],
        read_idx(folder, "train-labels-idx1-ubyte", (train,)),
        read_idx(folder, "t10k-images-idx3-ubyte", (test, height, width))[..., None],
        read_idx(folder, "t10k-labels-idx1-ubyte", (test,)),
    )


def read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> Pixels:
    """Reads an IDX file: two zeros, the type, the number of dimensions, their sizes, the values.

    Raises:
        ValueError: when it is not an IDX file of bytes, or has another shape.
    """
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    size = len(header) + int(np.prod(shape))
    if (folder / name).exists():
        content = content_of(folder, name, size)
    else:
        packed = content_of(folder, f"{name}.gz", size + (1 << 20))
        try:
            content = decompressed([packed], size)
        except ValueError as error:
            raise ValueError(f"{name}.gz: {error}") from error
    if not content.startswith(header):
        raise ValueError(f"{name} is not an IDX file of bytes of the shape {shape}")
    if len(content) < size:
        raise ValueError(f"{name} has {len(content):,} bytes, expected {size:,}: it is truncated")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_FILES = (*IDX_NAMES, *(f"{name}.gz" for name in IDX_NAMES))
IDX_LAYOUTS = [
    Layout("train-images-idx3-ubyte", IDX_FILES, read_idx_files),
    Layout("train-images-idx3-ubyte.gz", IDX_FILES, read_idx_files),
]
LAYOUTS: dict[str, list[Layout]] = {
    "cifar10": [
        cifar_python(torchvision_datasets.CIFAR10, "batches.meta"),
        Layout(
            "test_batch.bin",
            tuple(f"{name}.bin" for name in (*TRAIN_BATCHES, "test_batch")),
            read_cifar_binary,
        ),
        Layout(
            "test_batch.png",
            (
                *(f"{name}.png" for name in (*TRAIN_BATCHES, "test_batch")),
                TRAIN_LABELS,
                TEST_LABELS,
            ),
            read_cifar_sheets,
        ),
    ],
    "cifar100": [cifar_python(torchvision_datasets.CIFAR100, "meta")],
    "fashion-mnist": IDX_LAYOUTS,
    "mnist": IDX_LAYOUTS,
}
