"""Receptive field: how many pixels of the image one cell of a feature map can depend on."""

from dataclasses import dataclass

from torch import nn

from resnetkit.models.blocks import Block, PreactivationBlock
from resnetkit.models.resnet import ResNet

__all__ = ["ReceptiveField", "receptive_fields"]


@dataclass(frozen=True)
class ReceptiveField:
    """Of one cell of a feature map.

    Attributes:
        name: of the feature map, as in `ResNet.features`.
        pixels: side of the square of the image that it can depend on, by the longest path.
        stride: pixels from one cell to the next.
    """

    name: str
    pixels: int
    stride: int


def receptive_fields(model: ResNet) -> list[ReceptiveField]:
    """Computes the field of the stem and of each stage, by the sizes and strides of the layers.

    Each layer widens the field by (kernel - 1) * dilation times the stride of all layers before it.
    """
    pixels, stride = 1, 1
    found = []
    stages: list[list[nn.Module]] = [[model.conv1, model.maxpool]]
    stages += [windows(model.get_submodule(f"layer{k}")) for k in range(1, len(model.feature_maps))]
    for name, layers in zip(model.feature_maps, stages, strict=True):
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                kernel, dilation, step = (
                    first(each) for each in (layer.kernel_size, layer.dilation, layer.stride)
                )
                pixels += (kernel - 1) * dilation * stride
                stride *= step
        found.append(ReceptiveField(name, pixels, stride))
    return found


def windows(stage: nn.Module) -> list[nn.Module]:
    """Returns the convolutions of a stage on the longest path: those of every F, in order."""
    blocks = [m for m in stage.children() if isinstance(m, Block | PreactivationBlock)]
    return [
        module
        for block in blocks
        for name, module in block.named_children()
        if name.startswith("conv")
    ]


def first(size: int | tuple[int, ...]) -> int:
    """Returns the first of a layer's sizes, which are equal in both directions."""
    return size if isinstance(size, int) else size[0]
