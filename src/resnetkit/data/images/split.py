"""Assigns custom images to splits, where their folders or table do not."""

from dataclasses import replace

import torch

from resnetkit.data.draws import Stream
from resnetkit.data.images.listing import ImageList
from resnetkit.data.stratified import stratified_split
from resnetkit.errors import DataError

__all__ = ["split_images"]

HELD_OUT_FRACTION = 0.1  # of each class, for the validation split, and likewise for the test split


def split_images(images: ImageList, *, seed: int) -> ImageList:
    """Assigns every image to a split; splits given by folders or a table do not change.

    Without any splits, a tenth of each class is held out for validation and a tenth for the test.
    If only training images are given, or training and test images, the validation images are drawn
    from the training images. If validation images are given and no test images, the test split
    stays empty.

    Args:
        images: see `read_images`.
        seed: of the random splits.

    Raises:
        DataError: when only some of the images have a split, or a split would be empty.
    """
    given_splits = {file.split for file in images.files}
    if None in given_splits and len(given_splits) > 1:
        stray = next(file for file in images.files if file.split is None)
        raise DataError(
            f"{images.root}: {stray.path} has no split, but other images do. Give it one too."
        )
    files = list(images.files)
    undecided = [index for index, file in enumerate(files) if file.split in (None, "train")]
    classes = {name: label for label, name in enumerate(images.class_names)}
    labels = torch.tensor([classes[files[index].label] for index in undecided], dtype=torch.int64)
    drawn = stratified_split(
        labels,
        test_fraction=HELD_OUT_FRACTION if None in given_splits else 0.0,
        validation_fraction=0.0 if "validation" in given_splits else HELD_OUT_FRACTION,
        seed=seed,
        stream=Stream.SPLIT,
        at_least_one=True,
    )
    for split, members in drawn.items():
        for member in members.tolist():
            files[undecided[member]] = replace(files[undecided[member]], split=split)
    result = replace(images, files=tuple(files))
    check_splits(result)
    return result


def check_splits(images: ImageList) -> None:
    """Raises DataError when a class has no training images, or there are no validation images."""
    if all(file.split != "train" for file in images.files):
        raise DataError(
            f"{images.root} has no training images, only those of other splits. 'resnet evaluate'"
            " measures on them; for training, add a split named train."
        )
    if all(file.split != "validation" for file in images.files):
        raise DataError(
            f"{images.root} has too few images to hold out one of a class for validation. Add"
            " images, or a split named val."
        )
    trained = {file.label for file in images.files if file.split == "train"}
    missing = [name for name in images.class_names if name not in trained]
    if missing:
        raise DataError(
            f"{images.root}: the class '{missing[0]}' has no training images ({len(missing)} such"
            " class(es)). Add some, or remove the class."
        )
