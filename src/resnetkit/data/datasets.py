"""Opens data sets by name, and custom images by path."""

import gzip
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.data.images.check import without_bad
from resnetkit.data.images.folder import read_images
from resnetkit.data.images.labels import (
    ClassOrder,
    imagenet_wnids,
    imagenet_words,
    in_order,
    match_classes,
    wnid_of,
)
from resnetkit.data.images.listing import ImageList, describe_skipped
from resnetkit.data.images.photos import Photos
from resnetkit.data.images.split import split_images
from resnetkit.data.published.table import PUBLISHED, open_published
from resnetkit.data.splits import Split
from resnetkit.data.stratified import stratified_split
from resnetkit.errors import DataError, UsageError, did_you_mean
from resnetkit.resizing import ImageFormat

__all__ = [
    "CROP_PCT",
    "DATASETS",
    "check_name",
    "custom_format",
    "custom_path",
    "is_custom",
    "open_dataset",
    "open_for_evaluation",
    "open_listed",
    "other_meaning",
]

DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def open_digits() -> Dataset:
    """Opens the 1,797 scanned digits of 8x8 pixels that come with scikit-learn.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    table = torch.from_numpy(digits_table())
    labels = table[:, -1].to(torch.int64)
    sixteenths = table[:, :-1].reshape(-1, 1, 8, 8)  # integers from 0 to 16
    dataset = Dataset(
        name="digits",
        images=(sixteenths * 255 / 16).round().to(torch.uint8),
        labels=labels,
        class_names=tuple(map(str, range(10))),
        splits=stratified_split(labels, test_fraction=0.2, validation_fraction=0.1),
        mirrored=False,
        sha256=DIGITS_SHA256,
    )
    check_digest(dataset)
    return dataset


def digits_table() -> npt.NDArray[np.float64]:
    """Returns 64 pixels and the label of each digit: float64 (N, 65).

    scikit-learn takes two seconds to import, half the start of a training; its file is read without
    it where it lies as in version 1.
    """
    package = find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels])


def check_digest(dataset: Dataset) -> None:
    """Checks the content of a data set in memory against its digest.

    Raises:
        DataError: when they differ.
    """
    assert isinstance(dataset.images, Tensor)
    content = hashlib.sha256(dataset.images.contiguous().numpy().tobytes())
    content.update(dataset.labels.numpy().tobytes())
    if content.hexdigest() != dataset.sha256:
        raise DataError(
            f"the data set '{dataset.name}' is corrupt: the SHA-256 of its content is"
            f" {content.hexdigest()[:16]}..., expected {dataset.sha256[:16]}.... Reinstall"
            " scikit-learn, which contains it."
        )


logger = logging.getLogger(__name__)

CROP_PCT = 0.875  # of the shorter side: 224 of 256 pixels (He et al. 2015, sec. 3.4)

DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": open_digits,
    **{name: partial(open_published, name) for name in PUBLISHED},
}


def custom_path(name: str | None) -> Path | None:
    """Returns the path of the custom images that a name means; None for a data set of the table.

    A name with a separator, or one that begins with a dot or ~, is a path. Any other name is looked
    up in the table first, then in the current folder.
    """
    if not name:
        return None
    is_path = os.sep in name or name.startswith((".", "~"))
    if not is_path and (name in DATASETS or not os.path.lexists(name)):
        return None
    path = Path(name if os.path.lexists(name) else os.path.expanduser(name))
    return path.absolute() if str(path) in DATASETS else path  # as a Path, "./digits" is "digits"


def is_custom(name: str) -> bool:
    """Returns whether a name means custom images: a path, not an entry of the table."""
    return custom_path(name) is not None


def other_meaning(name: str) -> str | None:
    """Returns a remark when both a data set and a file or folder here have the name."""
    if name not in DATASETS or not os.path.lexists(name):
        return None
    return f"'{name}' means the data set of that name: write './{name}' for the file or folder here"


def check_name(name: str) -> None:
    """Raises UsageError for a name that is neither in the table nor a path."""
    if name not in DATASETS and not is_custom(name):
        raise UsageError(
            f"unknown data set '{name}': expected one of {', '.join(DATASETS)}, or the path of a"
            " folder of images." + did_you_mean(name, DATASETS)
        )


def open_dataset(
    name: str | Path,
    *,
    image_size: int | None = None,
    crop_pct: float = CROP_PCT,
    channels: int = 3,
    seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """Opens a data set by name, or custom images by path.

    Args:
        name: a key of `DATASETS`, or a path that `read_images` takes.
        image_size: side of custom images after the crop, in pixels.
        crop_pct: fraction of their shorter side that the center crop keeps.
        channels: of custom images: 3 for color, 1 for gray.
        seed: of the random splits, where custom images are not divided into splits.
        skip_bad: whether to decode all custom images first and leave out those that fail.

    Raises:
        UsageError: when there is no such data set, or custom images are given no size.
        DataError: when the images are missing, corrupt or not what was expected.
    """
    if isinstance(name, Path):
        name = os.path.join(os.curdir, name)  # never a key
    check_name(name)
    path = custom_path(name)
    if path is None:
        return DATASETS[name]()
    image_format = custom_format(name, image_size, crop_pct, channels)
    images = read_images(path)
    log_remarks(images)
    images = split_images(usable(images) if skip_bad else images, seed=seed)
    return photo_dataset(images, image_format)


def open_listed(
    name: str, images: Path, *, image_size: int | None, crop_pct: float, channels: int
) -> Dataset:
    """Opens the custom images of a list that `write_images` wrote for an earlier start of a run.

    Args:
        name: path of the folder or table that the images come from.
        images: the list, with its splits.
        image_size: as for `open_dataset`.
        crop_pct: as for `open_dataset`.
        channels: as for `open_dataset`.

    Raises:
        UsageError: as for `open_dataset`.
        DataError: when the list cannot be read, or an image is missing.
    """
    image_format = custom_format(name, image_size, crop_pct, channels)
    root = custom_path(name) or Path(name)
    return photo_dataset(replace(read_images(images), root=root), image_format)


def custom_format(name: str, image_size: int | None, crop_pct: float, channels: int) -> ImageFormat:
    """Returns the format that custom images are converted to.

    Raises:
        UsageError: when there is no size, or another number of channels than 1 or 3.
    """
    if image_size is None or image_size < 1:
        raise UsageError(f"{name}: custom images need an image size, such as 224 pixels.")
    if channels not in (1, 3):
        raise UsageError(f"{name}: custom images have 3 channels, or 1 for gray, not {channels}.")
    return ImageFormat(image_size, crop_pct, channels)


def usable(images: ImageList) -> ImageList:
    """Returns the images that can be decoded.

    Raises:
        DataError: when a class has none.
    """
    remaining = without_bad(images)
    lost = sorted(set(images.class_names) - set(remaining.class_names))
    if lost:
        raise DataError(
            f"{images.root}: no image of the class '{lost[0]}' can be used ({len(lost)} such"
            " class(es)), and it would be left out. Replace its images, or move its folder away."
        )
    return remaining


def log_remarks(images: ImageList) -> None:
    """Logs which files and folders are not used, and what is unusual about the others."""
    for remark in images.remarks:
        logger.warning("%s: %s", images.root, remark)
    if images.skipped:
        logger.warning("%s: %s", images.root, describe_skipped(images.skipped))


def open_for_evaluation(
    name: str,
    image_format: ImageFormat,
    *,
    class_names: tuple[str, ...],
    class_order: ClassOrder = "sorted",
    images: ImageList | None = None,
) -> Dataset:
    """Opens a data set to evaluate a trained network.

    No splits are drawn: custom images without a split are all test images. They may belong to only
    some of the classes.

    Args:
        name: as for `open_dataset`.
        image_format: the images that the network takes.
        class_names: of the network, in its order; empty if it has none.
        class_order: how the library that the network comes from numbers class folders, if the
            network has no class names.
        images: custom images with their splits; by default they are read from the path `name`.

    Raises:
        UsageError: when there is no such data set.
        DataError: when the images are missing, corrupt or not what was expected, or belong to
            classes that the network does not have.
    """
    check_name(name)
    path = custom_path(name)
    if path is None:
        return DATASETS[name]()
    if images is None:
        images = read_images(path, fewest_classes=1, class_names=class_names, empty_classes="skip")
        log_remarks(images)
    tests = tuple(replace(file, split=file.split or "test") for file in images.files)
    return photo_dataset(
        replace(images, files=tests),
        image_format,
        class_names=class_names,
        class_order=class_order,
    )


def photo_dataset(
    images: ImageList,
    image_format: ImageFormat,
    *,
    class_names: tuple[str, ...] = (),
    class_order: ClassOrder = "sorted",
) -> Dataset:
    """Returns listed images as a data set; without a test split, validation serves as both.

    Args:
        images: each with its split.
        image_format: the format that they are converted to.
        class_names: in order; by default those of the images.
        class_order: how the classes of the images are numbered by default.

    Raises:
        DataError: when a label means none of the classes, or several.
    """
    own_labels = in_order(images.class_names, "sorted" if class_names else class_order)
    names = names_of_classes(own_labels)
    if class_names and class_names != names:
        labels, names = match_classes(own_labels, class_names, str(images.root)), class_names
    else:
        labels = {label: index for index, label in enumerate(own_labels)}
    splits: dict[Split, Tensor] = {
        split: torch.tensor(
            [index for index, file in enumerate(images.files) if file.split == split],
            dtype=torch.int64,
        )
        for split in get_args(Split)
    }
    if not len(splits["test"]):
        splits["test"] = splits["validation"]
    return Dataset(
        name=str(images.root),
        images=Photos.of(tuple(file.path for file in images.files), image_format),
        labels=torch.tensor([labels[file.label] for file in images.files], dtype=torch.int64),
        class_names=names,
        splits=splits,
        mirrored=True,
        sha256=images.sha256,
        custom=images,
    )


def names_of_classes(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the class names of labels; ImageNet's 1000 WordNet ids become words."""
    return imagenet_words() if tuple(map(wnid_of, labels)) == imagenet_wnids() else labels
