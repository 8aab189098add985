"""Parameters and multiply-adds, by running a network on an empty batch."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod

import torch
from torch import Tensor, nn

from resnetkit.models.zoo import Architecture

__all__ = ["Complexity", "LayerCost", "Totals", "count", "trace"]


@dataclass(frozen=True)
class LayerCost:
    """Cost of a layer: a module without submodules.

    Attributes:
        name: qualified name of the module.
        kind: class of the module, such as Conv2d.
        output_shape: without the batch dimension, such as (64, 56, 56).
        parameters: number of learned values.
        multiply_adds: for one image; zero for anything but convolutions and the head.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int

    @property
    def is_on_main_path(self) -> bool:
        """Returns whether the layer counts in the depth: one with weights, and no projection."""
        return self.multiply_adds > 0 and ".downsample." not in self.name


@dataclass(frozen=True)
class Complexity:
    """Cost of a network for one image.

    Attributes:
        layers: every leaf module in the order of execution.
        depth: layers with weights from input to output, without projections, as in the paper.
        parameters: learned values of the whole network.
        multiply_adds: of convolutions and head, for one image.
    """

    layers: tuple[LayerCost, ...]
    depth: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Totals:
    """Depth, parameters and multiply-adds of a network; attributes as those of `Complexity`."""

    depth: int
    parameters: int
    multiply_adds: int


@cache
def count(architecture: Architecture, input_size: int | None = None) -> Totals:
    """Returns the totals of `trace` without running every block.

    The blocks of a stage after its first one are equal. The second is traced, and its layers count
    as often as there are such blocks.

    Args:
        architecture: which network.
        input_size: side of the image in pixels; by default that of the architecture.
    """
    depths = architecture.depths
    shallow = replace(architecture, depths=tuple(min(depth, 2) for depth in depths))
    repeats = Counter({f"layer{n}.1": depth - 1 for n, depth in enumerate(depths, start=1)})
    totals = Counter(depth=0, parameters=0, multiply_adds=0)
    for layer in trace(shallow, input_size).layers:
        block = ".".join(layer.name.split(".")[:2])
        times = repeats[block] or 1
        totals["depth"] += times * layer.is_on_main_path
        totals["parameters"] += times * layer.parameters
        totals["multiply_adds"] += times * layer.multiply_adds
    return Totals(**totals)


@cache
def trace(architecture: Architecture, input_size: int | None = None) -> Complexity:
    """Runs the network on an empty batch, of which every layer returns the shape.

    The weights are on the meta device, where tensors have no values. No operation takes place
    there: torch would import its compiler first, which takes longer than the whole trace.

    Args:
        architecture: which network.
        input_size: side of the image in pixels; by default that of the architecture.
    """
    size = architecture.input_size if input_size is None else input_size
    with torch.device("meta"):
        model = architecture.build().eval()
    layers: list[LayerCost] = []

    def record(name: str) -> None:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            layers.append(layer_cost(name, module, output))

        model.get_submodule(name).register_forward_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, SHAPED):
            module.forward = partial(returned_shape, module)  # type: ignore[method-assign]
        if next(module.children(), None) is None and not isinstance(module, nn.Identity):
            record(name)
    with torch.no_grad():
        model(torch.empty(0, architecture.in_channels, size, size))
    return Complexity(
        layers=tuple(layers),
        depth=sum(layer.is_on_main_path for layer in layers),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
    )


SHAPED = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear)
"""Layers that `trace` does not run, because they have weights or change values alone."""


def returned_shape(module: nn.Module, x: Tensor) -> Tensor:
    """Returns a tensor of the shape that a layer of `SHAPED` returns."""
    if isinstance(module, nn.Linear):
        return x.new_empty(len(x), module.out_features)
    if not isinstance(module, nn.Conv2d):
        return x
    padding = module.padding
    assert isinstance(padding, tuple)  # of numbers: ours are never given by a word
    sizes = zip(
        x.shape[2:], module.kernel_size, module.stride, module.dilation, padding, strict=True
    )
    height, width = (
        (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel, stride, dilation, pad in sizes
    )
    return x.new_empty(len(x), module.out_channels, height, width)


def layer_cost(name: str, module: nn.Module, output: Tensor) -> LayerCost:
    """Returns the cost of a layer by the shape of its output, whose first dimension is a batch."""
    multiply_adds = 0
    if isinstance(module, nn.Conv2d | nn.Linear):
        outputs = len(module.weight)
        multiply_adds = prod(output.shape[1:]) * (module.weight.numel() // outputs)
    return LayerCost(
        name=name,
        kind="Conv2d" if isinstance(module, nn.Conv2d) else type(module).__name__,
        output_shape=tuple(output.shape[1:]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=multiply_adds,
    )
