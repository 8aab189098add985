"""The constants of published networks, and the geometry of their preprocessing."""

import math

import torch
from torch import Tensor

from resnetkit.data.normalization import Normalization
from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "CAFFE_BOTTLENECKS",
    "CAFFE_NORMALIZATION",
    "IMAGENET_MEAN",
    "IMAGENET_NORMALIZATION",
    "IMAGENET_OPTIONS",
    "IMAGENET_STD",
    "IMAGENET_VIEW",
    "UNGROUPED",
    "crop_for_floor",
    "fractions",
    "imagenet_classes",
    "implied_classes",
    "pixels",
    "view_of",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_VIEW = ((224, 224), 0.875)  # 224 of 256 pixels
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
"""In the order of the data set."""

IMAGENET_OPTIONS: dict[str, tuple[object, ...]] = {
    "stem": ("7x7",),
    "shortcut": ("B",),
    "preactivation": (False,),
    "norm": ("batch",),
    "norm_eps": (1e-5,),
    "pooling": ("padded",),
}
UNGROUPED: dict[str, tuple[object, ...]] = {"groups": (1,), "base_width": (64,)}
CAFFE_BOTTLENECKS: dict[str, tuple[object, ...]] = {
    **IMAGENET_OPTIONS,
    **UNGROUPED,
    "block": ("bottleneck",),
    "stride_in": ("1x1",),
    "in_channels": (3,),
}
"""Options of an architecture that a format can hold, shared by several formats."""


def pixels(fractions: tuple[float, ...]) -> Tensor:
    """Returns constants for pixels of 0 to 1 as a tensor (C, 1, 1) for pixels of 0 to 255."""
    return (torch.tensor(fractions, dtype=torch.float64) * 255).float()[:, None, None]


def fractions(constants: Tensor) -> list[float]:
    """Returns the shortest numbers that `pixels` turns into exactly these constants (C, 1, 1)."""
    return [shortest_fraction(float(value)) for value in constants.flatten()]


def shortest_fraction(value: float) -> float:
    """Returns value / 255 with the fewest digits that restore the value in float32."""
    for digits in range(1, 17):
        fraction = float(f"{value / 255:.{digits}g}")
        if pixels((fraction,)).item() == value:
            return fraction
    return value / 255


IMAGENET_NORMALIZATION = Normalization(pixels(IMAGENET_MEAN), pixels(IMAGENET_STD))
CAFFE_NORMALIZATION = Normalization(
    torch.tensor((123.68, 116.779, 103.939))[:, None, None], torch.ones(3, 1, 1)
)  # red first


def view_of(network: TrainedNetwork) -> tuple[tuple[int, int], int, str, str]:
    """Returns size, resized side, filter and mode, which determine the input of a network.

    If an odd number of pixels is cropped, readers may differ by a pixel: see `Convention.offset`.
    """
    side = network.resize.side(max(network.image_size), network.crop_pct)
    return network.image_size, side, network.resize.interpolation, network.resize.mode


def crop_for_floor(network: TrainedNetwork) -> float:
    """Returns the crop_pct with which libraries that round down resize to the same side."""
    size = max(network.image_size)
    side = network.resize.side(size, network.crop_pct)
    if math.floor(size / network.crop_pct) == side:
        return network.crop_pct
    return size / (side + 0.001)


def implied_classes(data: str, count: int) -> tuple[str, ...]:
    """Returns the class names that are assumed for a number of classes; empty if unknown.

    Args:
        data: data set that networks of the format are trained on, ImageNet or CIFAR-10.
        count: number of classes.
    """
    if data == "CIFAR-10":
        return CIFAR10_CLASSES if count == len(CIFAR10_CLASSES) else ()
    return imagenet_classes(count)


def imagenet_classes(count: int) -> tuple[str, ...]:
    """Returns the names of ImageNet's 1000 classes; empty for another number of classes."""
    if count != 1000:
        return ()
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
