"""The table of data sets: open one by name, with its content verified and its split fixed."""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.data.images.check import without_bad
from resnetkit.data.images.folder import read_images, split_images
from resnetkit.data.images.labels import (
    ClassOrder,
    imagenet_wnids,
    imagenet_words,
    in_order,
    match_classes,
    wnid_of,
)
from resnetkit.data.images.listing import ImageList, passed_over_in_words
from resnetkit.data.images.photos import Photos
from resnetkit.data.published.table import PUBLISHED, open_published
from resnetkit.data.splits import Split, stratified_split
from resnetkit.errors import DataError, UsageError, did_you_mean
from resnetkit.resizing import BILINEAR, Resize

__all__ = [
    "CROP_PCT",
    "DATASETS",
    "check_name",
    "custom_path",
    "is_custom",
    "open_dataset",
    "open_to_measure",
    "other_meaning",
]

DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def open_digits() -> Dataset:
    """Opens scikit-learn's 1,797 scanned digits of 8x8 pixels, which come with the library.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target).to(torch.int64)
    sixteenths = torch.from_numpy(digits.images)  # float64 (N, 8, 8), whole numbers from 0 to 16
    dataset = Dataset(
        name="digits",
        images=(sixteenths * 255 / 16).round().to(torch.uint8)[:, None],
        labels=labels,
        class_names=tuple(map(str, digits.target_names)),
        splits=stratified_split(labels, test_share=0.2, validation_share=0.1),
        mirrored=False,
        sha256=DIGITS_SHA256,
    )
    check_digest(dataset)
    return dataset


def check_digest(dataset: Dataset) -> None:
    """Checks that a data set that is in memory is what its digest says.

    Raises:
        DataError: when it is not.
    """
    assert isinstance(dataset.images, Tensor)
    content = hashlib.sha256(dataset.images.contiguous().numpy().tobytes())
    content.update(dataset.labels.numpy().tobytes())
    if content.hexdigest() != dataset.sha256:
        raise DataError(
            f"the data set '{dataset.name}' is not what it should be: its content has the SHA-256"
            f" {content.hexdigest()[:16]}..., expected {dataset.sha256[:16]}.... Reinstall"
            " scikit-learn, which it comes with."
        )


logger = logging.getLogger(__name__)

CROP_PCT = 0.875  # of the shorter side: 224 of 256 pixels (He et al. 2015, sec. 3.4)

DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": open_digits,
    **{name: partial(open_published, name) for name in PUBLISHED},
}


def custom_path(name: str | None) -> Path | None:
    """Returns the path of the images that a name means; None for a data set of the table.

    What is typed as a path is one: it has a separator, or begins with a point or ~. Any other name
    means the data set of the table, and only where there is none what lies here under that name.
    """
    if not name:
        return None
    is_path = os.sep in name or name.startswith((".", "~"))
    if not is_path and (name in DATASETS or not os.path.lexists(name)):
        return None
    path = Path(name if os.path.lexists(name) else os.path.expanduser(name))
    return path.absolute() if str(path) in DATASETS else path  # as a Path, "./digits" is "digits"


def is_custom(name: str) -> bool:
    """Returns whether a name means a user's images: a path, not an entry of the table."""
    return custom_path(name) is not None


def other_meaning(name: str) -> str | None:
    """Returns a remark on a name that means a data set, when a file or folder here has it too."""
    if name not in DATASETS or not os.path.lexists(name):
        return None
    return f"'{name}' is taken as the data set of that name: for what lies here write './{name}'"


def check_name(name: str) -> None:
    """Raises UsageError for a name that is neither in the table nor a path."""
    if name not in DATASETS and not is_custom(name):
        raise UsageError(
            f"unknown data set '{name}': expected one of {', '.join(DATASETS)}, or the path of a"
            " folder of images." + did_you_mean(name, DATASETS)
        )


def open_dataset(
    name: str,
    *,
    image_size: int = 0,
    crop_pct: float = CROP_PCT,
    channels: int = 3,
    seed: int = 0,
    skip_bad: bool = False,
    listed: Path | None = None,
) -> Dataset:
    """Opens a data set by name, or a user's images by their path.

    Args:
        name: a key of `DATASETS`, or a path that `read_images` takes.
        image_size: side in pixels that custom images are shown at.
        crop_pct: share of their shorter side that the middle view shows.
        channels: 3 for custom images in color, 1 for gray.
        seed: of the drawing of parts, where custom images are not divided.
        skip_bad: whether custom images are all looked at first, and damaged ones left out.
        listed: a list of custom images with their parts that was written before; where it is there,
            nothing is looked for.

    Raises:
        UsageError: when there is none of that name, or custom images are given no size.
        DataError: when its content is not what it should be.
    """
    check_name(name)
    path = custom_path(name)
    if path is None:
        return DATASETS[name]()
    if image_size < 1:
        raise UsageError(f"{name}: custom images need a size to be shown at, such as 224 pixels.")
    if channels not in (1, 3):
        raise UsageError(f"{name}: custom images have 3 channels, or 1 for gray, not {channels}.")
    if listed is not None and listed.is_file():
        images = replace(read_images(listed), root=path)
    else:
        images = read_images(path)
        log_what_was_met(images)
        images = split_images(usable(images) if skip_bad else images, seed=seed)
    return photo_dataset(images, image_size=image_size, crop_pct=crop_pct, channels=channels)


def usable(images: ImageList) -> ImageList:
    """Returns the images that can be used.

    Raises:
        DataError: when none of a class can.
    """
    kept = without_bad(images)
    lost = sorted(set(images.class_names) - set(kept.class_names))
    if lost:
        raise DataError(
            f"{images.root}: no image of the class '{lost[0]}' can be used ({len(lost)} such"
            " class(es)), and it would be left out. Replace its images, or move its folder away."
        )
    return kept


def log_what_was_met(images: ImageList) -> None:
    """Says what lies among a user's images and is not used, and what is odd about them."""
    for remark in images.remarks:
        logger.warning("%s: %s", images.root, remark)
    if images.passed_over:
        logger.warning("%s: %s", images.root, passed_over_in_words(images.passed_over))


def open_to_measure(
    name: str,
    *,
    class_names: tuple[str, ...],
    image_size: int,
    crop_pct: float = CROP_PCT,
    resize: Resize = BILINEAR,
    channels: int = 3,
    class_order: ClassOrder = "sorted",
    listed: ImageList | None = None,
) -> Dataset:
    """Opens a data set for a network that has learned before.

    Nothing is drawn: custom images that are in no part are all test images. A folder may hold some
    of the classes only.

    Args:
        name: as for `open_dataset`.
        class_names: that the network knows, in its order; empty where it does not say.
        image_size: as for `open_dataset`.
        crop_pct: likewise.
        resize: how custom images are resized before their middle is shown.
        channels: likewise.
        class_order: in which the library numbers folders that the network comes from, where it
            does not say the names of its classes.
        listed: custom images with their parts, when they are known already; nothing is looked for.

    Raises:
        UsageError: when there is no data set of that name.
        DataError: when its content is not what it should be, or of classes that are not known.
    """
    check_name(name)
    path = custom_path(name)
    if path is None:
        return DATASETS[name]()
    images = listed
    if images is None:
        images = read_images(path, fewest_classes=1, known=class_names, empty="passed over")
        log_what_was_met(images)
    tests = tuple(replace(file, split=file.split or "test") for file in images.files)
    return photo_dataset(
        replace(images, files=tests),
        image_size=image_size,
        crop_pct=crop_pct,
        resize=resize,
        channels=channels,
        known=class_names,
        class_order=class_order,
    )


def photo_dataset(
    images: ImageList,
    *,
    image_size: int,
    crop_pct: float,
    channels: int,
    resize: Resize = BILINEAR,
    known: tuple[str, ...] = (),
    class_order: ClassOrder = "sorted",
) -> Dataset:
    """Returns listed images as a data set; where no test part is given, validation serves as one.

    Args:
        images: each in a part.
        image_size: side of the square that is shown of each, pixels.
        crop_pct: share of the shorter side that the middle view shows.
        resize: how it is resized before.
        channels: 3 for color, 1 for gray.
        known: names of the classes, in order; by default those that are there.
        class_order: of those that are there.

    Raises:
        DataError: when a class is not among the known ones, or is two of them.
    """
    own = in_order(images.class_names, "sorted" if known else class_order)
    names = class_names(own)
    if known and known != names:
        labels, names = match_classes(own, known, str(images.root)), known
    else:
        labels = {label: place for place, label in enumerate(own)}
    parts: dict[Split, Tensor] = {
        part: torch.tensor(
            [place for place, file in enumerate(images.files) if file.split == part],
            dtype=torch.int64,
        )
        for part in get_args(Split)
    }
    if not len(parts["test"]):
        parts["test"] = parts["validation"]
    return Dataset(
        name=str(images.root),
        images=Photos(
            tuple(f.path for f in images.files), channels, image_size, crop_pct, resize=resize
        ),
        labels=torch.tensor([labels[file.label] for file in images.files], dtype=torch.int64),
        class_names=names,
        splits=parts,
        mirrored=True,
        sha256=images.sha256,
        custom=images,
    )


def class_names(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the classes; the numbers of ImageNet's 1000 folders get their words."""
    return imagenet_words() if tuple(map(wnid_of, labels)) == imagenet_wnids() else labels
