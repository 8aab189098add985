"""What does not fit together: a recipe, its data, its network and the ranks that train it."""

from resnetkit.data.dataset import Dataset
from resnetkit.errors import RecipeError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import Architecture
from resnetkit.training.recipe import Recipe
from resnetkit.training.world import World

__all__ = ["check_batch_fit", "check_data_fit", "check_network_fit", "check_size_fit"]


def check_data_fit(recipe: Recipe, dataset: Dataset) -> None:
    """Raises RecipeError when the images cannot be augmented as asked."""
    if recipe.data.flip != "none" and not dataset.mirrored:
        raise RecipeError(
            f"data.flip is '{recipe.data.flip}', but a mirrored image of '{dataset.name}' is not an"
            " image of its class. Set data.flip=none."
        )
    side = min(dataset.image_size)
    if recipe.data.crop_padding >= side:
        raise RecipeError(
            f"data.crop_padding is {recipe.data.crop_padding}, but the images are {side} pixels"
            f" wide: a crop could miss them. Use at most {side // 2}."
        )
    if recipe.data.early_size >= side:
        raise RecipeError(
            f"data.early_size is {recipe.data.early_size}, but the images are only {side} pixels"
            " wide. Use less, or 0 for whole images."
        )


def check_network_fit(recipe: Recipe, architecture: Architecture) -> None:
    """Raises RecipeError when the network cannot be learned as asked."""
    unfit = architecture.norm == "none" or architecture.preactivation
    if recipe.optimizer.muon_lr and unfit:
        raise RecipeError(
            "optimizer.muon_lr needs batch normalisation after each convolution, whose weights it"
            " keeps at a fixed norm: this network has none there. Set it to 0."
        )


def check_batch_fit(recipe: Recipe, samples: int, world: World) -> None:
    """Raises RecipeError when a batch cannot be shared or is too small for batch normalisation."""
    if recipe.batch_size % world.size:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, which {world.size} ranks cannot share equally."
            f" Use a multiple of {world.size}."
        )
    if min(recipe.batch_size, samples) // world.size < 2:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}: batch normalisation needs at least 2 images on"
            f" each of {world.size} ranks. Use {2 * world.size} or more."
        )


def check_size_fit(recipe: Recipe, dataset: Dataset, model: ResNet) -> None:
    """Raises RecipeError when the last stage would see less than one pixel of the image."""
    stride = list(model.feature_maps.values())[-1].stride
    height, width = dataset.image_size
    if 0 < recipe.data.early_size < stride:
        raise RecipeError(
            f"'{recipe.model.name}' shrinks images by {stride}, but data.early_size is"
            f" {recipe.data.early_size} pixels. Use {stride} or more."
        )
    if min(height, width) < stride:
        raise RecipeError(
            f"'{recipe.model.name}' shrinks images by {stride}, but those of '{dataset.name}' are"
            f" only {height}x{width} pixels. Use a network with the 3x3 stem, such as resnet20 or"
            " resnet18_3x3."
        )
