"""The outline of a network: its stages and blocks with their shortcuts, shapes and costs."""

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
"""What a block's input passes through beside F: nothing at all, itself, itself with zeros for new
channels (option A), or a 1x1 convolution (options B and C)."""


@dataclass(frozen=True)
class BlockOutline:
    """One block, or the stem or head, which are blocks of their own here.

    Attributes:
        name: of the module.
        layers: of F in order, such as ("3x3, 64", "BN", "ReLU"); what follows the addition is not
            among them.
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
    """Reads the outline off the network itself, built without values, and off its trace.

    Args:
        architecture: which network.
        input_size: side of the image in pixels; the architecture's own when absent.
    """
    costs = trace(architecture, input_size).layers
    with torch.device("meta"):
        model = architecture.build()
    stages = [
        StageOutline("stem", (outer("stem", model, costs, ("conv1", "bn1", "relu", "maxpool")),))
    ]
    for number, name in enumerate(list(model.feature_maps)[1:], start=1):
        blocks = model.get_submodule(f"layer{number}").named_children()
        found = tuple(inner(f"layer{number}.{place}", block, costs) for place, block in blocks)
        stages.append(StageOutline(name, found))
    head = ("bn_out", "relu_out", "avgpool", "fc")
    stages.append(StageOutline("head", (outer("head", model, costs, head),)))
    return tuple(stages)


def outer(
    name: str, model: ResNet, costs: Sequence[LayerCost], modules: tuple[str, ...]
) -> BlockOutline:
    """Returns the outline of what lies before or behind the stages."""
    own = [cost for cost in costs if cost.name in modules]
    named = [words(model.get_submodule(module)) for module in modules]
    return summed(name, tuple(filter(None, named)), "none", own, ends_with_relu=False)


def inner(name: str, block: nn.Module, costs: Sequence[LayerCost]) -> BlockOutline:
    """Returns the outline of a block."""
    assert isinstance(block, Block | PreactivationBlock)
    own = [cost for cost in costs if cost.name.startswith(f"{name}.")]
    layers = [
        words(module)
        for child, module in block.named_children()
        if child not in ("downsample", "relu_out")
    ]
    ends = isinstance(block, Block)
    return summed(
        name, tuple(filter(None, layers)), shortcut_kind(block.downsample), own, ends_with_relu=ends
    )


def summed(
    name: str,
    layers: tuple[str, ...],
    shortcut: ShortcutKind,
    costs: Sequence[LayerCost],
    *,
    ends_with_relu: bool,
) -> BlockOutline:
    """Returns an outline with the costs of its layers added up."""
    beside = [cost for cost in costs if ".downsample" not in cost.name]
    return BlockOutline(
        name=name,
        layers=layers,
        shortcut=shortcut,
        ends_with_relu=ends_with_relu,
        output_shape=beside[-1].output_shape,
        parameters=sum(cost.parameters for cost in costs),
        multiply_adds=sum(cost.multiply_adds for cost in costs),
    )


def shortcut_kind(downsample: nn.Module | None) -> ShortcutKind:
    """Returns what kind of shortcut a module is."""
    if downsample is None:
        return "none"
    if isinstance(downsample, nn.Identity):
        return "identity"
    return "zeros" if isinstance(downsample, PadShortcut) else "projection"


def words(module: nn.Module) -> str:
    """Returns what to call a layer, with the numbers the paper gives; empty for the identity."""
    if isinstance(module, nn.Conv2d):
        kernel = "x".join(map(str, module.kernel_size))
        stride = f", /{module.stride[0]}" if module.stride[0] > 1 else ""
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{kernel}, {module.out_channels}{stride}{groups}"
    if isinstance(module, nn.MaxPool2d):
        return f"max pool {module.kernel_size}x{module.kernel_size}, /{module.stride}"
    if isinstance(module, nn.Linear):
        return f"fc {module.out_features}"
    known = {nn.BatchNorm2d: "BN", nn.ReLU: "ReLU", nn.AdaptiveAvgPool2d: "average pool"}
    return known.get(type(module), "")
