"""Parameters and multiply-adds, traced by running a network on the meta device."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from resnetkit.models.zoo import Architecture

__all__ = ["Complexity", "LayerCost", "trace"]


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


@cache
def trace(architecture: Architecture, input_size: int | None = None) -> Complexity:
    """Runs the network on the meta device, where tensors have shapes and no values.

    Args:
        architecture: which network.
        input_size: side of the image in pixels; by default that of the architecture.
    """
    size = architecture.input_size if input_size is None else input_size
    with torch.device("meta"):
        model = architecture.build().eval()
        images = torch.empty(1, architecture.in_channels, size, size)
    layers: list[LayerCost] = []

    def record(name: str) -> None:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            layers.append(layer_cost(name, module, output))

        model.get_submodule(name).register_forward_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU):
            module.forward = keep_shape  # type: ignore  # slow on the meta device
        if next(module.children(), None) is None and not isinstance(module, nn.Identity):
            record(name)
    with torch.no_grad():
        model(images)
    weighted = [layer for layer in layers if layer.multiply_adds]
    return Complexity(
        layers=tuple(layers),
        depth=sum(".downsample." not in layer.name for layer in weighted),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
    )


def keep_shape(x: Tensor) -> Tensor:
    """Replaces a layer that changes values but not the shape."""
    return x


def layer_cost(name: str, module: nn.Module, output: Tensor) -> LayerCost:
    """Returns the cost of a layer by its output for a batch of one."""
    multiply_adds = 0
    if isinstance(module, nn.Conv2d | nn.Linear):
        multiply_adds = output.numel() * module.weight[0].numel()
    return LayerCost(
        name=name,
        kind=type(module).__name__,
        output_shape=tuple(output.shape[1:]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=multiply_adds,
    )
