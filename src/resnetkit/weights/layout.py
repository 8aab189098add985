"""Layers of a network by position, and the architecture of its tensors, for all formats."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.zoo import Architecture, BlockName
from resnetkit.weights.tensors import Tensors, check_plain

__all__ = [
    "STEM",
    "Layer",
    "LayerTensors",
    "Names",
    "add_batch_counts",
    "check_nothing_left",
    "check_rgb",
    "features_of",
    "layers_in",
    "our_names",
    "put_layer",
    "recognized",
    "take",
    "with_head",
]

LARGEST = 10_000  # depth of a stage and width that a network may have


@dataclass(frozen=True)
class Layer:
    """A convolution and its normalization, by position.

    Attributes:
        stage: stage from 1; 0 is the stem.
        block: block of the stage, from 0.
        number: number of the convolution in F, from 1; 0 is the projection of the shortcut.
    """

    stage: int
    block: int
    number: int


STEM = Layer(0, 0, 1)

Names = Callable[[Layer], tuple[str, str]]
"""Names that a format gives a layer's convolution and normalization."""

LayerTensors = dict[str, Tensors]
"""Tensors of a file by layer, then by parameter, such as kernel and bias."""


def our_names(layer: Layer) -> tuple[str, str]:
    """Returns our names of a convolution and its normalization, which are torchvision's."""
    if layer == STEM:
        return "conv1", "bn1"
    block = f"layer{layer.stage}.{layer.block}"
    if layer.number == 0:
        return f"{block}.downsample.0", f"{block}.downsample.1"
    return f"{block}.conv{layer.number}", f"{block}.bn{layer.number}"


def layers_in(module_names: Container[str], names: Names) -> list[Layer]:
    """Returns the layers of a file from the stem to the last block without a gap."""
    layers = [STEM]
    for stage in count(1):
        for block in count():
            candidates = [Layer(stage, block, number) for number in (1, 2, 3, 0)]
            present = [layer for layer in candidates if names(layer)[0] in module_names]
            if not present:
                break
            layers += present
        if block == 0:
            return layers
    raise AssertionError("stages end")


def take(
    path: Path,
    layers: LayerTensors,
    layer: str,
    required: Sequence[str],
    *,
    optional: Sequence[str] = (),
) -> Tensors:
    """Removes a layer from the layers of a file and returns its parameters.

    Raises:
        WeightsError: if a parameter is missing, or is neither required nor optional.
    """
    parameters = layers.pop(layer, {})
    for name in required:
        if name not in parameters:
            raise WeightsError(f"{path} lacks '{name}' of the layer '{layer}'.")
    for name in parameters:
        if name not in (*required, *optional):
            raise WeightsError(
                f"{path} has '{name}' in the layer '{layer}', for which there is no use."
            )
    return parameters


def check_nothing_left(path: Path, layers: LayerTensors) -> None:
    """Checks that every layer of a file was used.

    Raises:
        WeightsError: with the first names of layers that were not.
    """
    if layers:
        names = sorted(layers)
        raise WeightsError(
            f"{path} has no use for {len(names)} layer(s) of the network it was recognized as:"
            f" {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}."
        )


def put_layer(
    path: Path,
    tensors: Tensors,
    layer: Layer,
    convolution: tuple[Tensor, Tensor | None],
    norm: Sequence[Tensor],
) -> None:
    """Adds a convolution and its normalization under our names.

    Normalizing w * x + b with the mean m is normalizing w * x with the mean m - b.

    Args:
        path: path of the file.
        tensors: tensors of the network, to which the layer is added.
        layer: position of the layer.
        convolution: weight (outputs, inputs, height, width), and bias or None.
        norm: weight, bias, mean and variance, (outputs,) each.

    Raises:
        WeightsError: if bias and mean differ in shape.
    """
    our_convolution, our_norm = our_names(layer)
    weight, bias = convolution
    scale, shift, mean, variance = norm
    if bias is not None:
        if bias.shape != mean.shape:
            raise WeightsError(
                f"{path}: the bias of '{our_convolution}' has the shape {tuple(bias.shape)},"
                f" expected {tuple(mean.shape)}."
            )
        mean = mean - bias
    tensors[f"{our_convolution}.weight"] = weight
    parameters = ("weight", "bias", "running_mean", "running_var")
    for name, tensor in zip(parameters, (scale, shift, mean, variance), strict=True):
        tensors[f"{our_norm}.{name}"] = tensor


def add_batch_counts(tensors: Tensors) -> None:
    """Adds the numbers of batches that some files lack, and that inference does not use.

    A count of shape (1,) becomes a scalar.
    """
    for name in [name for name in tensors if name.endswith(".running_mean")]:
        count_name = name.removesuffix("running_mean") + "num_batches_tracked"
        tensors.setdefault(count_name, torch.tensor(0))
        if tensors[count_name].shape == (1,):  # of some converters
            tensors[count_name] = tensors[count_name].reshape(())


def with_head(path: Path, tensors: Tensors) -> bool:
    """Returns whether tensors have a head; if not, adds a head of zeros for a single class.

    Raises:
        WeightsError: if the head is not a single layer, or a tensor is larger than what is stored.
    """
    names = sorted(name for name in tensors if name.startswith(("fc.", "head.", "classifier.")))
    if {"fc.weight", "fc.bias"} <= set(names):
        return True
    if names:
        raise WeightsError(
            f"{path} has another head than one layer: {', '.join(names[:6])}. Expected fc.weight"
            " and fc.bias; without any of them the rest is read, to start from or for features."
        )
    check_plain(path, tensors)  # or a shape alone would say how large the head is
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(1, features_of(tensors)), torch.zeros(1)
    return False


def features_of(tensors: Tensors) -> int:
    """Returns the number of features of the last stage; 1 without a stage."""
    last = [name for name in tensors if name.startswith("layer") and name.endswith(".weight")]
    weights = [tensors[name] for name in last if tensors[name].dim() == 4]
    return max((len(weight) for weight in weights if weight.numel()), default=1)


def recognized(path: Path, tensors: Tensors, **options: Any) -> Architecture:
    """Returns the architecture with a 7x7 stem that tensors with our names belong to.

    Args:
        path: path of the file.
        tensors: tensors by our names; whether they are complete is not checked here.
        **options: options of the architecture that tensors do not show.

    Raises:
        WeightsError: if there is no such architecture.
    """
    check_plain(path, tensors)
    head, stem = shape_of(path, tensors, "fc.weight", 2), shape_of(path, tensors, "conv1.weight", 4)
    if stem[2:] == (3, 3):
        raise WeightsError(
            f"{path} begins with a 3x3 convolution, and does not state whether pooling follows:"
            " expected the 7x7 convolution of networks for ImageNet."
        )
    block: BlockName = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
    last, expansion = (3, 4) if block == "bottleneck" else (2, 1)
    depths = blocks_of_stages(tensors)
    widths = tuple(
        shape_of(path, tensors, f"layer{stage}.0.conv{last}.weight", 4)[0] // expansion
        for stage in range(1, len(depths) + 1)
    )
    groups, base_width = 1, 64
    if block == "bottleneck":
        inner, group_width = shape_of(path, tensors, "layer1.0.conv2.weight", 4)[:2]
        groups = inner // max(group_width, 1)
        base_width = group_width * 64 // max(widths[0], 1)
    try:
        if not all(0 < value <= LARGEST for value in (*depths, *widths)) or not depths:
            raise ArchitectureError(f"it has the depths {depths} and the widths {widths}.")
        return Architecture(block, depths, widths, "7x7", 224, False).with_options(
            groups=groups,
            base_width=base_width,
            num_classes=head[0],
            in_channels=stem[1],
            **options,
        )
    except ArchitectureError as error:
        raise WeightsError(f"{path} looks like a residual network, but is not: {error}") from error


def check_rgb(path: Path, architecture: Architecture) -> None:
    """Raises WeightsError for other images than RGB in a format that has constants for RGB only."""
    if architecture.in_channels != 3:
        raise WeightsError(
            f"{path} reads images of {architecture.in_channels} channel(s), for which the format"
            " has no constants: expected 3."
        )


def blocks_of_stages(tensors: Tensors) -> tuple[int, ...]:
    """Returns the number of blocks of each stage."""
    depths: list[int] = []
    for layer in layers_in({name.removesuffix(".weight") for name in tensors}, our_names):
        depths += [0] * (layer.stage - len(depths))
        if layer.stage:
            depths[-1] = layer.block + 1
    return tuple(depths)


def shape_of(path: Path, tensors: Tensors, name: str, dimensions: int) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        WeightsError: if the tensor is missing, or has another number of dimensions.
    """
    if name not in tensors:
        raise WeightsError(f"{path} lacks '{name}'.")
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions:
        raise WeightsError(f"{path}: '{name}' has the shape {shape}, expected {dimensions} sizes.")
    return shape
