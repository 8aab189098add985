"""What to train on a user's images when they ask for nothing in particular."""

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

__all__ = ["Choice", "choose"]

SIZES_READ = 200  # files whose size in pixels is looked at
SMALL_SIDE = 64  # pixels; smaller images keep their size
PHOTO_SIDE = 128  # pixels at which photos are shown: a third of the cost of 224
LARGE_SIDE = 600  # pixels; larger photos are not decoded again and again
SHOWN_SMALL, SHOWN_PHOTOS = 120_000, 18_000  # in all, of few images again and again: minutes each
MANY_PHOTOS = 10_000
FEW_PHOTOS = (
    " From nothing, few photos teach little: 'resnet weights fetch resnet18.IMAGENET1K_V1' brings"
    " weights that were learned from a million, to start from with --weights"
    " resnet18.IMAGENET1K_V1."
)
FEWEST_EPOCHS, MOST_EPOCHS = 10, 60
UNBALANCED = 3.0  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        changes: values of the recipe `finetune`, by dotted key.
        count: of training images.
        side: their shorter side, the median in pixels.
        imbalance: how many times as many images the largest class has as the smallest.
    """

    changes: dict[str, Any]
    count: int
    side: int
    imbalance: float

    def in_words(self, recipe: Recipe) -> str:
        """Returns what a recipe that was made from the choice does, as a person would say it."""
        size = recipe.data.image_size
        start = f" from {recipe.model.weights}" if recipe.model.weights else ""
        kept = (
            " Decoded images are kept on the disk (data.cache)."
            if recipe.data.cache != "none"
            else ""
        )
        balance = (
            f" The largest class has {self.imbalance:.1f} times the images of the smallest, so that"
            " each image counts by its class (class_weights=balanced)."
            if recipe.class_weights == "balanced"
            else ""
        )
        is_poor = self.count < MANY_PHOTOS and self.side >= SMALL_SIDE
        advice = FEW_PHOTOS if is_poor and not recipe.model.weights else ""
        return (
            f"{self.count:,} training images, about {self.side} pixels on the shorter side:"
            f" {recipe.model.name}{start} at {size}x{size} pixels, {recipe.length} in batches of"
            f" {recipe.batch_size}, crops by area and horizontal flips"
            f" (data.augment.flip=none where left and right matter).{kept}{balance} --set changes"
            f" any of it.{advice}"
        )


def choose(
    data: Path, *, weights: str | None = None, variant: str | None = None, seed: int = 0
) -> Choice:
    """Looks at custom images and returns what suits them.

    Args:
        data: a folder or table of images; see `read_images`.
        weights: a run folder or file to start from; empty to start afresh.
        variant: v1 or v1.5, where the file of weights does not say.
        seed: of the drawing of parts.

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
        changes["data.crop_pct"] = 1.0  # there is nothing to spare at the edges
    else:
        changes |= {"model.name": "resnet18", "data.image_size": PHOTO_SIDE}
    if side > LARGE_SIDE:
        changes["data.cache"] = "disk"
    imbalance = unevenness(images)
    if imbalance > UNBALANCED:
        changes["class_weights"] = "balanced"
    return Choice(changes, count, side, imbalance)


def from_weights(weights: str, variant: str | None) -> dict[str, Any]:
    """Returns what suits a network that has learned before: a tenth of the rate for its layers."""
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
    """Returns the median of the shorter sides, in pixels, of some of the images.

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


def unevenness(images: ImageList) -> float:
    """Returns how many times as many training images the largest class has as the smallest."""
    counts = Counter(file.label for file in images.files if file.split == "train").values()
    return max(counts) / min(counts)
