"""Checks that a recipe, its data, its network and the ranks that train it fit together."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from resnetkit.data.dataset import Dataset
from resnetkit.data.images.check import check_images
from resnetkit.data.images.listing import ImageList
from resnetkit.errors import DataError, RecipeError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import Architecture
from resnetkit.runtime.process_group import World
from resnetkit.training.recipe import Recipe

__all__ = [
    "MOST_CHECKED",
    "check_batch_fit",
    "check_custom_images",
    "check_data_fit",
    "check_network_fit",
    "check_same_data",
    "check_size_fit",
    "explained_bad_images",
]

logger = logging.getLogger(__name__)

MOST_CHECKED = 20_000  # custom images that are all decoded before the first step


def check_data_fit(recipe: Recipe, dataset: Dataset) -> None:
    """Raises RecipeError when the images cannot be augmented or split as the recipe asks."""
    augment = recipe.data.augment
    if augment.flip != "none" and not dataset.mirrored:
        raise RecipeError(
            f"data.augment.flip is '{augment.flip}', but a mirrored image of '{dataset.name}' is"
            " not an image of its class. Set data.augment.flip=none."
        )
    if recipe.evaluation.final_flip and not dataset.mirrored:
        raise RecipeError(
            f"evaluation.final_flip is true, but a mirrored image of '{dataset.name}' is not an"
            " image of its class. Set evaluation.final_flip=false."
        )
    is_shared = torch.equal(dataset.splits["test"], dataset.splits["validation"])
    if is_shared and recipe.data.train_on == "train+validation":
        raise RecipeError(
            f"data.train_on is 'train+validation', but '{dataset.title}' has no test split: the"
            " validation split is used as one and must not be trained on. Set data.train_on=train."
        )
    side = min(dataset.image_size)
    if augment.crop_padding >= side:
        raise RecipeError(
            f"data.augment.crop_padding is {augment.crop_padding}, but the images are {side} pixels"
            f" wide: a crop could miss them. Use at most {side // 2}."
        )
    if recipe.data.early_size >= side:
        raise RecipeError(
            f"data.early_size is {recipe.data.early_size}, but the images are only {side} pixels"
            " wide. Use less, or 0 for whole images."
        )


def check_network_fit(recipe: Recipe, architecture: Architecture) -> None:
    """Raises RecipeError when the network cannot be trained as the recipe asks."""
    unfit = architecture.norm == "none" or architecture.preactivation
    if recipe.optimizer.muon_lr and unfit:
        raise RecipeError(
            "optimizer.muon_lr needs batch normalization after each convolution, because it keeps"
            " the norm of each weight fixed: this network has none there. Set it to 0."
        )
    if recipe.optimizer.muon_lr and recipe.finetune.frozen_norm:
        raise RecipeError(
            "finetune.frozen_norm keeps the statistics of batch normalization, but"
            " optimizer.muon_lr changes the norm of the weights that they belong to. Set"
            " optimizer.muon_lr=0 or finetune.frozen_norm=false."
        )


def check_batch_fit(recipe: Recipe, samples: int, world: World) -> None:
    """Raises RecipeError when a batch cannot be divided or is too small for batch normalization."""
    if recipe.batch_size % world.size:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, which {world.size} ranks cannot divide equally."
            f" Use a multiple of {world.size}."
        )
    per_rank = min(recipe.batch_size, samples) // world.size
    if recipe.micro_batch and 1 in (recipe.micro_batch, per_rank % recipe.micro_batch):
        raise RecipeError(
            f"micro_batch is {recipe.micro_batch}, which leaves one image of {per_rank} for the"
            " last micro-batch: batch normalization needs at least 2. Use another number."
        )
    if per_rank < 2:
        least = 2 * world.size
        batch = f"batch_size is {recipe.batch_size}"
        cause = f"there are {samples} training images" if samples < least else batch
        raise RecipeError(
            f"{cause}: batch normalization needs at least 2 images on each of {world.size} ranks."
            f" Use {least} or more."
        )


def check_size_fit(recipe: Recipe, dataset: Dataset, model: ResNet) -> None:
    """Raises RecipeError when the last feature map would be smaller than one pixel."""
    stride = list(model.feature_maps.values())[-1].stride
    height, width = dataset.image_size
    if 0 < recipe.data.early_size < stride:
        raise RecipeError(
            f"'{recipe.model.name}' reduces images by a factor of {stride}, but data.early_size is"
            f" {recipe.data.early_size} pixels. Use {stride} or more."
        )
    if min(height, width) < stride:
        raise RecipeError(
            f"'{recipe.model.name}' reduces images by a factor of {stride}, but those of"
            f" '{dataset.name}' are only {height}x{width} pixels. Use a network with the 3x3 stem,"
            " such as resnet20 or resnet18_3x3."
        )


def check_same_data(dataset: Dataset, world: World) -> None:
    """Raises DataError, on all ranks, when they do not all read the same data.

    A disk that fails for one rank would otherwise give it other samples under the same ids.
    """
    prefix = int(dataset.sha256[:12] or "0", 16)  # exact as a float64
    prefixes = world.gather(torch.tensor([prefix], dtype=torch.float64, device=world.device))
    if len(prefixes.unique()) > 1:
        raise DataError(
            f"the {world.size} processes do not read the same images of '{dataset.name}'. Check the"
            " disk that they share, and start again."
        )


def check_custom_images(images: ImageList) -> None:
    """Decodes custom images before training starts: all, or if there are very many, the held-out.

    Raises:
        DataError: when an image cannot be used.
    """
    if len(images.files) > MOST_CHECKED:
        held_out = tuple(file for file in images.files if file.split != "train")
        images = replace(images, files=held_out)
    report = check_images(images, duplicates=False)
    for note, paths in report.lost.items():
        logger.warning(
            "%d image(s) are nearly empty as decoded, such as %s: %s", len(paths), paths[0], note
        )
    bad = report.bad
    if bad:
        raise DataError(
            f"{bad[0].reason} {len(bad):,} image(s) cannot be used, and nothing was trained."
            f" 'resnet data check {images.root}' lists them all; data.on_bad_image=skip leaves"
            " them out."
        )


@contextmanager
def explained_bad_images(dataset: Dataset) -> Iterator[None]:
    """Says what can be done when a custom image cannot be read.

    Not all images are checked before training starts, and files can become corrupt later.
    """
    try:
        yield
    except DataError as error:
        images, reason = dataset.custom, str(error)
        if images is None or not any(reason.startswith(f"{file.path}: ") for file in images.files):
            raise
        raise DataError(
            f"{reason} 'resnet data check {images.root}' lists all images that cannot be used; a"
            " new run with data.on_bad_image=skip leaves them out."
        ) from error
