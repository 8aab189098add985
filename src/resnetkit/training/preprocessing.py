"""Statistics of the training images: normalization, color axes and class weights."""

import torch
from torch import Tensor

from resnetkit.data.augment.crop_and_flip import measure_color_axes
from resnetkit.data.batches import epoch_order
from resnetkit.data.dataset import Dataset
from resnetkit.data.draws import Draws
from resnetkit.data.loader import NO_AXES
from resnetkit.data.normalization import Normalization, measure_normalization
from resnetkit.errors import RecipeError
from resnetkit.training.recipe import Recipe
from resnetkit.weights.network import TrainedNetwork

__all__ = ["NORMALIZED_ON", "find_class_weights", "find_color_axes", "find_normalization"]

NORMALIZED_ON = 1_000  # custom images: decoding all of them would take long


def measured_samples(dataset: Dataset, trained_on: Tensor) -> Tensor:
    """Returns the samples that the normalization is measured on: all, or some of custom images."""
    if dataset.custom is None:
        return trained_on
    return epoch_order(Draws(trained_on, seed=0))[:NORMALIZED_ON]


def find_normalization(
    recipe: Recipe, dataset: Dataset, trained_on: Tensor, pretrained: TrainedNetwork | None
) -> Normalization:
    """Returns the normalization of the weights that training starts from, or measures one."""
    if recipe.data.normalize != "weights":
        images = dataset.images[measured_samples(dataset, trained_on)]
        return measure_normalization(images, recipe.data.normalize)
    assert pretrained is not None  # the recipe was checked
    normalization = pretrained.normalization
    size = normalization.mean.shape[1:]
    if normalization.is_per_pixel and size != dataset.image_size:
        raise RecipeError(
            "data.normalize is 'weights', but theirs is a mean of each pixel of"
            f" {'x'.join(map(str, size))}: set data.normalize=channel."
        )
    if recipe.data.early_size and normalization.is_per_pixel:
        raise RecipeError(
            "data.normalize is 'weights', but theirs is a mean of each pixel, which does not fit"
            " smaller crops: set data.early_size=0."
        )
    return normalization


def find_color_axes(recipe: Recipe, dataset: Dataset, trained_on: Tensor) -> Tensor:
    """Returns the principal axes of the colors where the recipe shifts them, else zeros: (3, 3)."""
    if recipe.data.augment.color == "none":
        return NO_AXES
    if dataset.channels != 3:
        raise RecipeError(
            f"data.augment.color is 'pca', but the images of '{dataset.name}' have"
            f" {dataset.channels} channel(s). Set data.augment.color=none."
        )
    return measure_color_axes(dataset.images[measured_samples(dataset, trained_on)])


def find_class_weights(
    recipe: Recipe, dataset: Dataset, trained_on: Tensor, device: torch.device
) -> Tensor | None:
    """Returns N / (K n) for a class of n of N images, so that all classes weigh the same: (K,)."""
    if recipe.class_weights == "none":
        return None
    counts = torch.bincount(dataset.labels[trained_on], minlength=len(dataset.class_names))
    return (len(trained_on) / (len(counts) * counts.clamp_min(1))).float().to(device)
