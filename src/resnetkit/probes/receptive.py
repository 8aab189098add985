"""Receptive fields: the pixels of the image that a cell of a feature map can depend on."""

from dataclasses import dataclass

from torch import nn

from resnetkit.models.blocks import Block, PreactivationBlock
from resnetkit.models.resnet import ResNet

__all__ = ["ReceptiveField", "receptive_fields"]


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a cell of a feature map.

    Attributes:
        name: of the feature map, as in `ResNet.features`.
        pixels: side of the field, a square, along the longest path.
        stride: distance of two cells, in pixels.
    """

    name: str
    pixels: int
    stride: int


def receptive_fields(model: ResNet) -> list[ReceptiveField]:
    """Computes the receptive fields of the stem and of each stage.

    A layer widens the field by (kernel - 1) * dilation times the stride of all layers before it.
    """
    pixels, stride = 1, 1
    fields = []
    stages: list[list[nn.Module]] = [[model.conv1, model.maxpool]]
    stages += [windows(model.get_submodule(f"layer{k}")) for k in range(1, len(model.feature_maps))]
    for name, layers in zip(model.feature_maps, stages, strict=True):
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                kernel, dilation, step = (
                    first(size) for size in (layer.kernel_size, layer.dilation, layer.stride)
                )
                pixels += (kernel - 1) * dilation * stride
                stride *= step
        fields.append(ReceptiveField(name, pixels, stride))
    return fields


def windows(stage: nn.Module) -> list[nn.Module]:
    """Returns the convolutions on the longest path through a stage: those of F of each block."""
    blocks = [m for m in stage.children() if isinstance(m, Block | PreactivationBlock)]
    return [
        module
        for block in blocks
        for name, module in block.named_children()
        if name.startswith("conv")
    ]


def first(size: int | tuple[int, ...]) -> int:
    """Returns the size in the first direction; all layers are square."""
    return size if isinstance(size, int) else size[0]
