"""Outlines: the stages and blocks of a network, with shortcuts, shapes and costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from resnetkit.models.blocks import Block, PadShortcut, PreactivationBlock
from resnetkit.models.resnet import ResNet
from resnetkit.models.summary import LayerCost, trace
from resnetkit.models.zoo import Architecture

__all__ = ["BlockOutline", "ShortcutKind", "StageOutline", "outline"]

ShortcutKind = Literal["none", "identity", "zeros", "projection"]
"""The shortcut of a block: none, the identity, zeros for new channels (option A), or a projection
by a 1x1 convolution (options B and C)."""


@dataclass(frozen=True)
class BlockOutline:
    """A block, or the stem or head, which count as blocks here.

    Attributes:
        name: of the module.
        layers: of F in order, such as ("3x3, 64", "BN", "ReLU"); without what follows the
            addition.
        shortcut: see `ShortcutKind`.
        ends_with_relu: whether relu follows the addition.
        output_shape: channels, height and width; only channels after the head.
        parameters: learned values.
        multiply_adds: for one image.
    """

    name: str
    layers: tuple[str, ...]
    shortcut: ShortcutKind
    ends_with_relu: bool
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class StageOutline:
    """The blocks between two changes of size.

    Attributes:
        name: stem, stage2 and up, as in `ResNet.feature_maps`, and head.
        blocks: in order.
    """

    name: str
    blocks: tuple[BlockOutline, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.blocks[-1].output_shape

    @property
    def parameters(self) -> int:
        return sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        return sum(block.multiply_adds for block in self.blocks)


def outline(architecture: Architecture, input_size: int | None = None) -> tuple[StageOutline, ...]:
    """Returns the outline of a network, from its modules and its trace.

    Args:
        architecture: which network.
        input_size: side of the image in pixels; by default that of the architecture.
    """
    costs = trace(architecture, input_size).layers
    with torch.device("meta"):
        model = architecture.build()
    stages = [
        StageOutline("stem", (outer("stem", model, costs, ("conv1", "bn1", "relu", "maxpool")),))
    ]
    for number, name in enumerate(list(model.feature_maps)[1:], start=1):
        blocks = model.get_submodule(f"layer{number}").named_children()
        outlines = [inner(f"layer{number}.{index}", block, costs) for index, block in blocks]
        stages.append(StageOutline(name, tuple(outlines)))
    head = ("bn_out", "relu_out", "avgpool", "fc")
    stages.append(StageOutline("head", (outer("head", model, costs, head),)))
    return tuple(stages)


def outer(
    name: str, model: ResNet, costs: Sequence[LayerCost], modules: tuple[str, ...]
) -> BlockOutline:
    """Returns the outline of the stem or the head."""
    layer_costs = [cost for cost in costs if cost.name in modules]
    layers = [description(model.get_submodule(module)) for module in modules]
    return summed(name, tuple(filter(None, layers)), "none", layer_costs, ends_with_relu=False)


def inner(name: str, block: nn.Module, costs: Sequence[LayerCost]) -> BlockOutline:
    """Returns the outline of a block."""
    assert isinstance(block, Block | PreactivationBlock)
    layer_costs = [cost for cost in costs if cost.name.startswith(f"{name}.")]
    layers = [
        description(module)
        for child, module in block.named_children()
        if child not in ("downsample", "relu_out")
    ]
    return summed(
        name,
        tuple(filter(None, layers)),
        shortcut_kind(block.downsample),
        layer_costs,
        ends_with_relu=isinstance(block, Block),
    )


def summed(
    name: str,
    layers: tuple[str, ...],
    shortcut: ShortcutKind,
    costs: Sequence[LayerCost],
    *,
    ends_with_relu: bool,
) -> BlockOutline:
    """Returns the outline of a block with the sum of the costs of its layers."""
    on_main_path = [cost for cost in costs if ".downsample" not in cost.name]
    return BlockOutline(
        name=name,
        layers=layers,
        shortcut=shortcut,
        ends_with_relu=ends_with_relu,
        output_shape=on_main_path[-1].output_shape,
        parameters=sum(cost.parameters for cost in costs),
        multiply_adds=sum(cost.multiply_adds for cost in costs),
    )


def shortcut_kind(downsample: nn.Module | None) -> ShortcutKind:
    """Returns the kind of a shortcut by its module."""
    if downsample is None:
        return "none"
    if isinstance(downsample, nn.Identity):
        return "identity"
    return "zeros" if isinstance(downsample, PadShortcut) else "projection"


def description(module: nn.Module) -> str:
    """Returns a layer in the notation of the paper, such as '3x3, 64'; empty for the identity."""
    if isinstance(module, nn.Conv2d):
        kernel = "x".join(map(str, module.kernel_size))
        stride = f", /{module.stride[0]}" if module.stride[0] > 1 else ""
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{kernel}, {module.out_channels}{stride}{groups}"
    if isinstance(module, nn.MaxPool2d):
        return f"max pool {module.kernel_size}x{module.kernel_size}, /{module.stride}"
    if isinstance(module, nn.Linear):
        return f"fc {module.out_features}"
    names = {nn.BatchNorm2d: "BN", nn.ReLU: "ReLU", nn.AdaptiveAvgPool2d: "average pool"}
    return names.get(type(module), "")
