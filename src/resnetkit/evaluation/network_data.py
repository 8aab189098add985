"""The data that a network is evaluated on, and whether the two fit together."""

import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from resnetkit.data.dataset import Dataset, Images
from resnetkit.data.datasets import DATASETS, custom_path, open_for_evaluation
from resnetkit.data.images.labels import (
    ClassOrder,
    clean_label,
    in_order,
    is_imagenet,
    match_classes,
)
from resnetkit.data.images.listing import ImageList, content_digests, relocated
from resnetkit.data.images.photos import Photos
from resnetkit.errors import DataError, UsageError, headless
from resnetkit.evaluation.classifier import Classifier
from resnetkit.resizing import ImageFormat

__all__ = [
    "check_fit",
    "check_input",
    "class_columns",
    "data_of",
    "describe_class_order",
    "images_for",
    "trained_samples",
]

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
        image_format(network),
        class_names=network.class_names,
        class_order=class_order(network),
        images=images_of_run(network, name),
    )


def image_format(network: Classifier) -> ImageFormat:
    """Returns the format that image files are converted to for a network of square images."""
    return ImageFormat(
        min(network.image_size), network.crop_pct, network.in_channels, network.resize
    )


def class_order(network: Classifier) -> ClassOrder:
    """Returns how the library of a network numbers class folders."""
    return "natural" if network.format == "timm" else "sorted"


def images_for(network: Classifier, dataset: Dataset) -> Images:
    """Returns the images of a data set as a network expects them.

    Image files are resized and cropped as the network was trained, whatever they were opened with.
    """
    if not isinstance(dataset.images, Photos):
        return dataset.images
    return Photos.of(dataset.images.paths, image_format(network))


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
    names = names_in_order(network, dataset)
    listed = ", ".join(f"{label} = {name}" for label, name in enumerate(names[:ORDER_SHOWN]))
    more = ", ..." if len(names) > ORDER_SHOWN else ""
    is_natural = class_order(network) == "natural" and is_numbered_by_name(dataset)
    rule = ", in natural order and without case as timm does" if is_natural else ""
    return (
        f"the file does not name its classes, so they are matched by order{rule}: {listed}{more}."
        " An error close to that of guessing may be due to another order"
    )


def names_in_order(network: Classifier, dataset: Dataset) -> tuple[str, ...]:
    """Returns class names in the order of the logits of a network.

    A network without names of its own has those of the data set: of image folders, as its library
    numbers them; of other data and of ImageNet, as they are numbered there.

    Raises:
        DataError: when the library does not define the order.
    """
    if network.class_names:
        return network.class_names
    names = dataset.class_names
    return in_order(names, class_order(network)) if is_numbered_by_name(dataset) else names


def is_numbered_by_name(dataset: Dataset) -> bool:
    """Returns whether the numbers of classes follow from names, as those of image folders do."""
    return dataset.custom is not None and not is_imagenet(dataset.class_names)


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


def class_columns(network: Classifier, dataset: Dataset) -> npt.NDArray[np.intp]:
    """Returns which class of a network each class of a data set is: (K,).

    Names in another order are the same classes, and so are ImageNet's under the names of any
    library.

    Raises:
        DataError: when they are other classes, or another number of them.
    """
    of_network, of_data = network.num_classes, len(dataset.class_names)
    if of_network != of_data:
        raise DataError(
            f"the network has {of_network} classes, but '{dataset.name}' has {of_data}. Choose the"
            " data it was trained on with --data."
        )
    names, own_names = dataset.class_names, names_in_order(network, dataset)
    if names == own_names or (is_imagenet(names) and is_imagenet(own_names)):
        return np.arange(of_data, dtype=np.intp)
    labels = tuple(map(clean_label, names))
    columns = match_classes(labels, own_names, dataset.name)
    if len(set(columns.values())) < of_data:
        raise DataError(
            f"'{dataset.name}' has several classes of the same name, which cannot be matched to"
            " those of another network."
        )
    return np.array([columns[label] for label in labels], dtype=np.intp)


def check_fit(network: Classifier, dataset: Dataset) -> None:
    """Checks that a network expects these images, and these classes in this order.

    Raises:
        WeightsError: as for `check_input`.
        DataError: when it expects others.
    """
    check_input(network, dataset)
    columns = class_columns(network, dataset)
    for label, column in enumerate(columns.tolist()):
        if column != label:
            names = names_in_order(network, dataset)
            raise DataError(
                f"the network numbers its classes in another order than '{dataset.name}': its class"
                f" {label} is '{names[label]}', there it is '{dataset.class_names[label]}'."
            )


def check_input(network: Classifier, dataset: Dataset) -> None:
    """Checks that a network classifies, and that it takes the images of a data set.

    Raises:
        WeightsError: when it has no head.
        DataError: when it takes other images.
    """
    if not network.has_head:
        raise headless(network.origin)
    channels, size = network.in_channels, network.image_size
    expected, of_data = ("x".join(map(str, s)) for s in (size, dataset.image_size))
    if isinstance(dataset.images, Photos):
        if channels not in (1, 3):
            raise DataError(
                f"the network takes images with {channels} channels, but image files have 3, or 1"
                " for gray."
            )
        if size[0] != size[1]:
            raise DataError(
                f"the network takes images of {expected} pixels, but image files are evaluated as"
                " squares only. 'resnet predict' answers with this network."
            )
        return
    if channels != dataset.channels:
        raise DataError(
            f"the network takes images of {channels} channel(s), those of '{dataset.name}' have"
            f" {dataset.channels}."
        )
    if size != dataset.image_size:
        raise DataError(
            f"the network was trained on images of {expected} pixels, those of '{dataset.name}'"
            f" have {of_data}."
        )
