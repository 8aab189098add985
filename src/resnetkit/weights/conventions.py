"""What each format of weights says without writing it down, and which networks it can hold."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.models.blocks import StrideIn
from resnetkit.models.zoo import Architecture, BlockName
from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "CONVENTIONS",
    "FORMATS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "KERAS_NORM_EPS",
    "VARIANTS",
    "Convention",
    "check_held",
    "check_variant",
    "crop_for_floor",
    "fractions",
    "imagenet_classes",
    "implied_classes",
    "pixels",
    "stride_named",
    "variant_of",
    "view_of",
]

VARIANTS: dict[str, StrideIn] = {"v1": "1x1", "v1.5": "3x3"}
"""Where a bottleneck strides. The tensors of both are of the same shapes."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_VIEW = ((224, 224), 0.875)  # 224 of 256 pixels
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of pixels from 0 to 255, red first
KERAS_NORM_EPS = 1.001e-5
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
"""In the order of the data set."""


@dataclass(frozen=True)
class Convention:
    """What a format leaves unsaid.

    Attributes:
        options: values of an architecture's options that it can hold.
        stages: of its networks; 0: any number.
        mean: that its images are normalized with, (C, 1, 1) for pixels of 0 to 255; None: it says.
        std: likewise.
        view: size of the images and the part of the shorter side that is shown; None: it says.
        offset: of the middle that its readers cut out; see `Resize`.
        names_classes: whether it holds the names of classes.
        counts_batches: whether it holds how many batches the running statistics have seen.
        data: whose classes are meant where there are as many, and they have no names.
    """

    options: Mapping[str, tuple[Any, ...]]
    stages: int = 4
    mean: Tensor | None = None
    std: Tensor | None = None
    view: tuple[tuple[int, int], float] | None = None
    offset: Literal["round", "floor"] = "round"
    names_classes: bool = False
    counts_batches: bool = True
    data: Literal["ImageNet", "CIFAR-10"] = "ImageNet"


def pixels(fractions: tuple[float, ...]) -> Tensor:
    """Returns constants for pixels of 0 to 1 as a tensor (C, 1, 1) for pixels of 0 to 255."""
    return (torch.tensor(fractions, dtype=torch.float64) * 255).float()[:, None, None]


def fractions(constants: Tensor) -> list[float]:
    """Returns the shortest numbers that `pixels` makes exactly these constants (C, 1, 1) of."""
    return [shortest_fraction(float(value)) for value in constants.flatten()]


def shortest_fraction(value: float) -> float:
    """Returns value / 255 with as few digits as give value again in float32."""
    for digits in range(1, 17):
        fraction = float(f"{value / 255:.{digits}g}")
        if pixels((fraction,)).item() == value:
            return fraction
    return value / 255


IMAGENET_OPTIONS: dict[str, tuple[Any, ...]] = {
    "stem": ("7x7",),
    "shortcut": ("B",),
    "preactivation": (False,),
    "norm": ("batch",),
    "norm_eps": (1e-5,),
    "pooling": ("padded",),
}
UNGROUPED: dict[str, tuple[Any, ...]] = {"groups": (1,), "base_width": (64,)}
BOTTLENECKS: dict[str, tuple[Any, ...]] = {
    **IMAGENET_OPTIONS,
    **UNGROUPED,
    "block": ("bottleneck",),
    "stride_in": ("1x1",),
    "in_channels": (3,),
}
CONVENTIONS: dict[str, Convention] = {
    "torchvision": Convention(
        {**IMAGENET_OPTIONS, "stride_in": ("3x3",), "in_channels": (3,)},
        mean=pixels(IMAGENET_MEAN),
        std=pixels(IMAGENET_STD),
        view=IMAGENET_VIEW,
    ),
    "timm": Convention({**IMAGENET_OPTIONS, "stride_in": ("3x3",)}, names_classes=True),
    "transformers": Convention(
        {**IMAGENET_OPTIONS, **UNGROUPED}, stages=0, offset="floor", names_classes=True
    ),
    "keras": Convention(
        {**BOTTLENECKS, "norm_eps": (KERAS_NORM_EPS,)},
        mean=torch.tensor(CAFFE_MEAN)[:, None, None],
        std=torch.ones(3, 1, 1),
        view=IMAGENET_VIEW,
        counts_batches=False,
    ),
    "caffe": Convention(
        {**BOTTLENECKS, "pooling": ("ceil",)},
        mean=torch.tensor(CAFFE_MEAN)[:, None, None],
        std=torch.ones(3, 1, 1),
        view=IMAGENET_VIEW,
        counts_batches=False,
    ),
    "akamaster": Convention(
        {
            "block": ("basic",),
            "widths": ((16, 32, 64),),
            "stem": ("3x3",),
            "shortcut": ("A", "B"),
            "padding": ("split",),
            "preactivation": (False,),
            "norm": ("batch",),
            "norm_eps": (1e-5,),
            "in_channels": (3,),
        },
        stages=3,
        mean=pixels(IMAGENET_MEAN),
        std=pixels(IMAGENET_STD),
        view=((32, 32), 1.0),
        data="CIFAR-10",
    ),
}
FORMATS = ("resnetkit", *CONVENTIONS)


def variant_of(architecture: Architecture) -> str:
    """Returns v1 or v1.5; empty for networks without bottlenecks, which know no difference."""
    if architecture.block == "basic":
        return ""
    return next(name for name, stride in VARIANTS.items() if stride == architecture.stride_in)


def stride_named(path: Path, block: BlockName, variant: str | None) -> StrideIn:
    """Returns where the blocks of a file stride that does not say it.

    Raises:
        WeightsError: when nobody says it, though both are possible.
    """
    if variant or block == "basic":
        return VARIANTS[variant or "v1.5"]
    raise WeightsError(
        f"{path} does not say where its bottleneck blocks stride, and its tensors fit both: v1"
        " strides in the first 1x1 convolution (the paper, Caffe, Keras), v1.5 in the 3x3"
        " (torchvision, timm). The wrong one answers, but badly. Name it: --variant v1 or"
        ' --variant v1.5 (in Python: variant="v1.5").'
    )


def check_variant(path: Path, architecture: Architecture, variant: str | None) -> None:
    """Checks that a file is of the variant that was named, if one was.

    Raises:
        WeightsError: when it is of the other.
    """
    found = variant_of(architecture)
    if variant and found and variant != found:
        raise WeightsError(
            f"{path} is of the variant {found}, not {variant}: its format says so. Leave the"
            " variant out."
        )


def check_held(network: TrainedNetwork, name: str) -> None:
    """Checks that a format can hold a network, so that its readers compute what the network does.

    Raises:
        WeightsError: with everything that it cannot hold.
    """
    convention = CONVENTIONS[name]
    problems = [
        *unheld_options(network.architecture, convention),
        *unheld_facts(network, convention),
    ]
    if problems:
        raise WeightsError(
            f"the format {name} cannot hold this network: {'; '.join(problems)}. 'resnetkit' holds"
            " every network."
        )


def unheld_options(architecture: Architecture, convention: Convention) -> list[str]:
    """Returns what of an architecture a format cannot hold, in words."""
    meaningless = {"stride_in"} if architecture.block == "basic" else set()
    if architecture.shortcut != "A":
        meaningless.add("padding")
    problems = [
        f"{option} is {getattr(architecture, option)}, expected {' or '.join(map(str, allowed))}"
        for option, allowed in convention.options.items()
        if option not in meaningless and getattr(architecture, option) not in allowed
    ]
    stages = len(architecture.depths)
    if convention.stages not in (0, stages):
        problems.append(f"it has {stages} stages, expected {convention.stages}")
    if any(architecture.replace_stride_with_dilation):
        problems.append("it dilates instead of striding, which no file of weights says")
    return problems


def unheld_facts(network: TrainedNetwork, convention: Convention) -> list[str]:
    """Returns what a format says wrongly about the images and the classes of a network."""
    problems = []
    if network.mean.shape[1:] != (1, 1):
        problems.append("its images are normalized with a mean of each pixel, expected of channels")
    elif convention.mean is not None and convention.std is not None:
        implied = (convention.mean, convention.std)
        for word, own, expected in zip(
            ("mean", "deviation"), (network.mean, network.std), implied, strict=True
        ):
            if own.shape != expected.shape or not torch.allclose(own, expected):
                problems.append(
                    f"its images are normalized with the {word} {words(own)}, expected"
                    f" {words(expected)}, which the format does not write down"
                )
    if convention.view is not None:
        expected_size, expected_share = convention.view
        expected_side = round(max(expected_size) / expected_share)
        if view_of(network) != (expected_size, expected_side, "bilinear", "center"):
            height, width = network.image_size
            problems.append(
                f"its images are of {height}x{width} pixels, {network.crop_pct:g} of the shorter"
                " side,"
                f" {network.resize.interpolation} and {network.resize.mode}; the format does not"
                f" write that down, and its readers expect {expected_size[0]} pixels,"
                f" {expected_share:g}, bilinear and center"
            )
    size = max(network.image_size)
    side = network.resize.side(size, network.crop_pct)
    middle = network.resize.margin(side, size)
    theirs = replace(network.resize, offset=convention.offset).margin(side, size)
    if middle != theirs:
        problems.append(
            f"the middle of {side} pixels begins at {middle}, for readers of the format at {theirs}"
        )
    if not convention.names_classes:
        meant = implied_classes(convention.data, network.architecture.num_classes)
        if meant and network.class_names != meant:
            problems.append(
                f"its {len(meant)} classes are not those of {convention.data}, which they would"
                " be taken for"
            )
    return problems


def view_of(network: TrainedNetwork) -> tuple[tuple[int, int], int, str, str]:
    """Returns what decides which pixels of an image a network is shown.

    Where what is cut off is odd, readers may put the middle a pixel apart: see `Convention.offset`.
    """
    side = network.resize.side(max(network.image_size), network.crop_pct)
    return network.image_size, side, network.resize.interpolation, network.resize.mode


def crop_for_floor(network: TrainedNetwork) -> float:
    """Returns the crop that libraries which round down resize to the same side for."""
    size = max(network.image_size)
    side = network.resize.side(size, network.crop_pct)
    if math.floor(size / network.crop_pct) == side:
        return network.crop_pct
    return size / (side + 0.001)


def words(constants: Tensor) -> str:
    """Returns constants for pixels of 0 to 255 for people."""
    return ", ".join(f"{float(value):.6g}" for value in constants.flatten())


def implied_classes(data: str, count: int) -> tuple[str, ...]:
    """Returns the names of classes that a number of classes without names is taken for.

    Args:
        data: what networks of the format are trained on, ImageNet or CIFAR-10.
        count: of the classes.
    """
    if data == "CIFAR-10":
        return CIFAR10_CLASSES if count == len(CIFAR10_CLASSES) else ()
    return imagenet_classes(count)


def imagenet_classes(count: int) -> tuple[str, ...]:
    """Returns the names of ImageNet's 1000 classes; none for another number of classes."""
    if count != 1000:
        return ()
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
