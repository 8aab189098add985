"""The data that a network is evaluated on, and whether the two fit together."""

import logging
import os
from pathlib import Path

from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import DATASETS, custom_path, open_for_evaluation
from resnetkit.data.images.listing import ImageList, content_digests, relocated
from resnetkit.errors import DataError, UsageError, headless
from resnetkit.evaluation.classifier import Classifier
from resnetkit.resizing import ImageFormat

__all__ = ["check_fit", "data_of", "describe_class_order", "trained_samples"]

ORDER_SHOWN = 6

logger = logging.getLogger(__name__)


def data_of(network: Classifier, name: str | None = None) -> Dataset:
    """Opens a data set in the format of a network; by default the one it was trained on.

    The run of custom images has listed them with their splits; other custom images without splits
    are all test images.

    Raises:
        UsageError: when there is no data set of that name, or the network does not name its data.
        DataError: when the data set cannot be read.
    """
    return open_for_evaluation(
        name or training_data(network),
        ImageFormat(
            min(network.image_size),
            network.crop_pct,
            network.in_channels,
            network.resize,
        ),
        class_names=network.class_names,
        class_order="natural" if network.format == "timm" else "sorted",
        images=images_of_run(network, name),
    )


def images_of_run(network: Classifier, name: str | None) -> ImageList | None:
    """Returns the images of a network's run, with their splits, at the path they were moved to.

    Returns:
        None if they were not moved, or the path holds other images.

    Raises:
        DataError: when the run's list of images cannot be read, or no path to them is given.
    """
    listed, path = network.images, custom_path(name)
    if listed is None or (name and path is None):
        return None
    images = listed.read()
    if any(file.path.is_file() for file in images.files):
        return None  # they were not moved: the path holds other images, or a copy
    if path is None:
        raise DataError(
            f"the images of the run in {listed.path.parent} were moved, such as"
            f" {images.files[0].path}: name the folder or table where they are now with --data."
        )
    try:
        return relocated(images, path)
    except DataError as error:
        logger.warning("%s %s is evaluated as other images.", error, name)
        return None


def describe_class_order(network: Classifier, dataset: Dataset) -> str | None:
    """Describes how classes are matched to a network without class names; None if it has names."""
    if network.class_names:
        return None
    names = dataset.class_names
    listed = ", ".join(f"{label} = {name}" for label, name in enumerate(names[:ORDER_SHOWN]))
    more = ", ..." if len(names) > ORDER_SHOWN else ""
    rule = ", in natural order and without case as timm does" if network.format == "timm" else ""
    return (
        f"the file does not name its classes, so they are matched by order{rule}: {listed}{more}."
        " An error close to that of guessing may be due to another order"
    )


def training_data(network: Classifier) -> str:
    """Returns the data that a network was trained on: its run's list, or the name of a data set.

    A path in a file of weights is never opened: its author would choose what is read.

    Raises:
        UsageError: when the data is unknown.
    """
    if network.images is not None:
        return str(network.images.path)
    if network.data in DATASETS:
        return network.data
    statement = (
        f"names '{network.data}', which is not opened unasked" if network.data else "does not say"
    )
    raise UsageError(
        f"the training data of the network is unknown ({network.origin}; its file {statement}):"
        " name the data, such as --data cifar10 or --data photos/."
    )


def trained_samples(network: Classifier, dataset: Dataset, sample_ids: Tensor) -> set[int]:
    """Returns the samples that a network was trained on, by the list of images of its run.

    Images are recognized by the digest of their content, under any path; a list of an older version
    has no digests, and is compared by paths.
    """
    if dataset.custom is None or network.images is None:
        return set()
    splits = network.images.learned
    listed = [file for file in network.images.read().files if file.split in splits]
    digests = {file.digest for file in listed} - {""}
    paths = {real_path(file.path) for file in listed if not file.digest}
    ids = sample_ids.tolist()
    files = [dataset.custom.files[n] for n in ids]
    contents = content_digests(file.path for file in files) if digests else [""] * len(files)
    return {
        n
        for n, file, digest in zip(ids, files, contents, strict=True)
        if digest in digests or (paths and real_path(file.path) in paths)
    }


def real_path(path: Path) -> str:
    """Returns a path with all symbolic links resolved."""
    return os.path.realpath(path)


def check_fit(network: Classifier, dataset: Dataset) -> None:
    """Raises DataError unless the network expects these images and classes."""
    if not network.has_head:
        raise headless(network.origin)
    of_network, of_data = network.num_classes, len(dataset.class_names)
    if of_network != of_data:
        raise DataError(
            f"the network has {of_network} classes, but '{dataset.name}' has {of_data}. Choose the"
            " data it was trained on with --data."
        )
    if network.class_names and network.class_names != dataset.class_names:
        pairs = zip(network.class_names, dataset.class_names, strict=True)
        label, (expected, other) = next((n, p) for n, p in enumerate(pairs) if p[0] != p[1])
        raise DataError(
            f"the network was trained on other classes than '{dataset.name}' has: its class {label}"
            f" is '{expected}', there it is '{other}'."
        )
    channels = network.in_channels
    if channels != dataset.channels:
        raise DataError(
            f"the network takes images of {channels} channel(s), those of '{dataset.name}' have"
            f" {dataset.channels}."
        )
    if network.image_size != dataset.image_size:
        expected_size, size = (
            "x".join(map(str, s)) for s in (network.image_size, dataset.image_size)
        )
        raise DataError(
            f"the network was trained on images of {expected_size} pixels, those of"
            f" '{dataset.name}' have {size}."
        )
