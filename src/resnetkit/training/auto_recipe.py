"""The recipe for custom images when the user asks for nothing in particular."""

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit.data.images.decode import stored_size
from resnetkit.data.images.folder import read_images
from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.split import split_images
from resnetkit.errors import DataError
from resnetkit.training.finetune import spelled
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network

__all__ = ["AutoRecipe", "auto_recipe"]

SIZES_READ = 200  # files whose size in pixels is read
SMALL_SIDE = 64  # pixels; smaller images keep their size
PHOTO_SIDE = 128  # pixels at which photos are shown: a third of the cost of 224
LARGE_SIDE = 600  # pixels; larger photos are not decoded again and again
SHOWN_SMALL, SHOWN_PHOTOS = 120_000, 18_000  # images in all epochs together: minutes of work
MANY_PHOTOS = 10_000
FEW_PHOTOS = (
    " A network trained from scratch learns little from so few photos: start from weights trained"
    " on a million images with --weights resnet18.IMAGENET1K_V1, after 'resnet weights fetch"
    " resnet18.IMAGENET1K_V1'."
)
FEWEST_EPOCHS, MOST_EPOCHS = 10, 60
UNBALANCED = 3.0  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class AutoRecipe:
    """The values chosen for a recipe, and the facts they were chosen by.

    Attributes:
        changes: values of the recipe `finetune`, by dotted key.
        count: of training images.
        side: median of their shorter sides, in pixels.
        imbalance: images of the largest class divided by those of the smallest.
    """

    changes: dict[str, Any]
    count: int
    side: int
    imbalance: float

    def in_words(self, recipe: Recipe) -> str:
        """Describes a recipe that was made from these values."""
        size = recipe.data.image_size
        start = f" from {recipe.model.weights}" if recipe.model.weights else ""
        kept = (
            " Decoded images are cached on the disk (data.cache)."
            if recipe.data.cache != "none"
            else ""
        )
        balance = (
            f" The largest class has {self.imbalance:.1f} times as many images as the smallest, so"
            " the loss is weighted by class (class_weights=balanced)."
            if recipe.class_weights == "balanced"
            else ""
        )
        is_poor = self.count < MANY_PHOTOS and self.side >= SMALL_SIDE
        advice = FEW_PHOTOS if is_poor and not recipe.model.weights else ""
        return (
            f"{self.count:,} training images, about {self.side} pixels on the shorter side:"
            f" {recipe.model.name}{start} at {size}x{size} pixels, {recipe.length} in batches of"
            f" {recipe.batch_size}, random resized crops and horizontal flips"
            f" (data.augment.flip=none where left and right matter).{kept}{balance} --set changes"
            f" any of it.{advice}"
        )


def auto_recipe(
    data: Path, *, weights: str | None = None, variant: str | None = None, seed: int = 0
) -> AutoRecipe:
    """Chooses the values of a recipe by the number, sizes and classes of custom images.

    Args:
        data: a folder or table of images; see `read_images`.
        weights: a run folder or file to start from; None to train from scratch.
        variant: v1 or v1.5, where the file of weights does not say.
        seed: of the random split.

    Raises:
        DataError: when there are no images to learn from.
        WeightsError: when the weights cannot be read.
    """
    images = split_images(read_images(data), seed=seed)
    count = sum(file.split == "train" for file in images.files)
    side = typical_side(images)
    is_small = side < SMALL_SIDE
    shown = SHOWN_SMALL if is_small and not weights else SHOWN_PHOTOS
    epochs = min(max(round(shown / count), FEWEST_EPOCHS), MOST_EPOCHS)
    changes: dict[str, Any] = {
        "data.name": str(data),
        "data.augment.crop": "area",
        "data.augment.area": [0.35, 1.0],
        "data.augment.flip": "random",
        "length": f"{epochs} epochs",
        "batch_size": 32 if count < 2_000 else 128,
        "finetune.patience": max(10, epochs // 2),  # less would end before the rate has fallen
    }
    if weights:
        changes |= from_weights(weights, variant)
    elif is_small:
        changes |= {"model.name": "resnet20", "data.image_size": max(32, side // 8 * 8)}
        changes["data.crop_pct"] = 1.0  # small images have no margin to cut off
    else:
        changes |= {"model.name": "resnet18", "data.image_size": PHOTO_SIDE}
    if side > LARGE_SIDE:
        changes["data.cache"] = "disk"
    imbalance = class_imbalance(images)
    if imbalance > UNBALANCED:
        changes["class_weights"] = "balanced"
    return AutoRecipe(changes, count, side, imbalance)


def from_weights(weights: str, variant: str | None) -> dict[str, Any]:
    """Returns the values for fine-tuning: a tenth of the learning rate for pretrained layers."""
    network = load_network(Path(weights), variant=variant)
    name, options = spelled(network.architecture)
    return {
        "model.name": name,
        **({"model.options": options} if options else {}),
        "model.weights": weights,
        **({"model.variant": variant} if variant else {}),
        "data.image_size": min(network.image_size),
        "data.crop_pct": network.crop_pct,
        "data.normalize": "channel" if network.normalization.is_per_pixel else "weights",
        "optimizer.lr": 0.02,
        "finetune.backbone_lr": 0.1,
    }


def typical_side(images: ImageList) -> int:
    """Returns the median of the shorter sides of a sample of the images, in pixels.

    Raises:
        DataError: when none of them can be read.
    """
    files = images.files[:: max(1, len(images.files) // SIZES_READ)]
    sizes = [size for file in files if (size := stored_size(file.path))]
    if not sizes:
        raise DataError(
            f"{images.root}: none of the images can be read. 'resnet data check {images.root}'"
            " names the reasons."
        )
    return round(statistics.median(min(size) for size in sizes))


def class_imbalance(images: ImageList) -> float:
    """Returns the training images of the largest class divided by those of the smallest."""
    counts = Counter(file.label for file in images.files if file.split == "train").values()
    return max(counts) / min(counts)
