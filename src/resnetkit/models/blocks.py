"""The building blocks of residual networks: shortcuts, and blocks in both orders of activation.

Attribute names (`conv1`, `bn1`, `downsample`, ...) are torchvision's, so that a state_dict of
either library loads strictly into the other. Every activation is a separate module, and none
works in place, so that a hook sees exactly what a layer returned.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from resnetkit.errors import ArchitectureError
from resnetkit.models.tiny_maps import Conv3x3

__all__ = [
    "BasicBlock",
    "Block",
    "BlockOptions",
    "Bottleneck",
    "Norm",
    "PadShortcut",
    "PreactivationBasicBlock",
    "PreactivationBlock",
    "PreactivationBottleneck",
    "Shortcut",
    "StrideIn",
    "ZeroPadding",
    "conv1x1",
    "conv3x3",
    "make_shortcut",
    "normalization",
]

Shortcut = Literal["none", "A", "B", "C"]
"""He et al. 2015, sec. 3.3: `none` makes the plain network; A pads with zeros; B projects where the
shape changes; C projects everywhere."""

ZeroPadding = Literal["append", "split"]
"""Where option A puts its zero channels: all after those of the input, or half on either side."""

StrideIn = Literal["1x1", "3x3"]
"""Which convolution of a bottleneck strides: the first 1x1 (the paper, "v1") or the 3x3
(torchvision, "v1.5")."""

Norm = Literal["batch", "none"]
"""Batch normalization after each convolution, or none; without it the convolutions have biases
("Biases are in the BN layers that follow": KaimingHe/deep-residual-networks issue 10)."""


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Options that all blocks of a network share.

    Attributes:
        shortcut: see `Shortcut`.
        padding: of option A; see `ZeroPadding`.
        norm: see `Norm`.
        stride_in: of bottlenecks; see `StrideIn`.
        groups: of the 3x3 convolution of bottlenecks (ResNeXt: Xie et al. 2017).
        base_width: of bottlenecks, channels of the 3x3 convolution for each 64 of the width and
            each group (Wide ResNet: 128).
    """

    shortcut: Shortcut = "B"
    padding: ZeroPadding = "append"
    norm: Norm = "batch"
    stride_in: StrideIn = "3x3"
    groups: int = 1
    base_width: int = 64

    def check_basic(self) -> None:
        """Raises ArchitectureError when options are set that basic blocks do not have."""
        if (self.groups, self.base_width) != (1, 64):
            raise ArchitectureError(
                "groups and base_width belong to bottleneck blocks: this network has basic ones."
            )

    def inner_width(self, width: int) -> int:
        """Returns the channels inside a bottleneck of a certain width."""
        return width * self.base_width // 64 * self.groups

    def strides(self, stride: int) -> tuple[int, int]:
        """Returns the strides of the first 1x1 and of the 3x3 convolution of a bottleneck."""
        return (stride, 1) if self.stride_in == "1x1" else (1, stride)


DEFAULT_OPTIONS = BlockOptions()


def conv1x1(inputs: int, outputs: int, *, stride: int = 1, norm: Norm = "batch") -> nn.Conv2d:
    """Returns a 1x1 convolution."""
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=norm == "none")


def conv3x3(
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    norm: Norm = "batch",
) -> nn.Conv2d:
    """Returns a 3x3 convolution that keeps the image size at stride 1."""
    return Conv3x3(
        inputs,
        outputs,
        3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        bias=norm == "none",
    )


def normalization(channels: int, norm: Norm) -> nn.Module:
    """Returns batch normalization over `channels`, or the identity."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


class PadShortcut(nn.Module):
    """Option A: subsamples the image and fills the new channels with zeros; it has no parameters.

    Source: He et al. 2015, sec. 3.3 and 4.2. Weights trained with one layout of the zeros do not
    fit the other.

    Shapes: (B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, padding: ZeroPadding) -> None:
        super().__init__()
        self.stride = stride
        missing = outputs - inputs
        before = missing // 2 if padding == "split" else 0
        self.zeros = (before, missing - before)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.zeros))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, zeros={self.zeros}"


def make_shortcut(
    inputs: int, outputs: int, stride: int, options: BlockOptions, *, preactivated: bool = False
) -> nn.Module | None:
    """Returns the shortcut of a block as a module; None for a plain block."""
    if options.shortcut == "none":
        return None
    if inputs == outputs and stride == 1 and options.shortcut != "C":
        return nn.Identity()
    if options.shortcut == "A":
        return PadShortcut(inputs, outputs, stride, padding=options.padding)
    projection = conv1x1(inputs, outputs, stride=stride, norm=options.norm)
    if preactivated:  # its input is normalized already
        return nn.Sequential(projection)
    return nn.Sequential(projection, normalization(outputs, options.norm))


class Block(nn.Module, ABC):
    """Residual block: relu(F(x) + shortcut(x)); a plain block, which has no shortcut: relu(F(x)).

    Source: He et al. 2015, eq. 1 and 2.

    Shapes: (B, inputs, H, W) -> (B, width * expansion, ceil(H / stride), ceil(W / stride)).
    """

    expansion: ClassVar[int]
    downsample: nn.Module | None
    relu_out: nn.Module

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """Returns F(x), the residual that is added to the shortcut."""

    @abstractmethod
    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Returns the convolutions of F with their normalizations, in order."""

    def last_layer(self) -> nn.Module:
        """Returns the layer whose weight, when zero, makes F(x) zero."""
        convolution, norm = self.layers()[-1]
        return norm if isinstance(norm, nn.BatchNorm2d) else convolution

    def forward(self, x: Tensor) -> Tensor:
        residual = self.residual(x)
        return self.relu_out(residual if self.downsample is None else residual + self.downsample(x))


class BasicBlock(Block):
    """F is two 3x3 convolutions: He et al. 2015, fig. 5 left."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        options: BlockOptions = DEFAULT_OPTIONS,
        *,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        options.check_basic()
        norm = options.norm
        self.conv1 = conv3x3(inputs, width, stride=stride, dilation=dilation, norm=norm)
        self.bn1 = normalization(width, norm)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, dilation=dilation, norm=norm)
        self.bn2 = normalization(width, norm)
        self.downsample = make_shortcut(inputs, width, stride, options)
        self.relu_out = nn.ReLU()

    def residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))

    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.conv1, self.bn1), (self.conv2, self.bn2)]


class Bottleneck(Block):
    """F is 1x1, 3x3, 1x1: He et al. 2015, fig. 5 right.

    Args:
        inputs: channels of the input.
        width: channels of the 3x3 convolution of an ordinary ResNet; the output has four times as
            many.
        stride: of the block.
        options: shared by all blocks.
        dilation: of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        options: BlockOptions = DEFAULT_OPTIONS,
        *,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        inner, outputs = options.inner_width(width), width * self.expansion
        first, second = options.strides(stride)
        groups, norm = options.groups, options.norm
        self.conv1 = conv1x1(inputs, inner, stride=first, norm=norm)
        self.bn1 = normalization(inner, norm)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(
            inner, inner, stride=second, dilation=dilation, groups=groups, norm=norm
        )
        self.bn2 = normalization(inner, norm)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(inner, outputs, norm=norm)
        self.bn3 = normalization(outputs, norm)
        self.downsample = make_shortcut(inputs, outputs, stride, options)
        self.relu_out = nn.ReLU()

    def residual(self, x: Tensor) -> Tensor:
        inner = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        return self.bn3(self.conv3(inner))

    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)]


class PreactivationBlock(nn.Module, ABC):
    """Pre-activated residual block: F(x) + shortcut(x), where F begins with normalization and relu.

    Source: He et al. 2016 ("Identity Mappings in Deep Residual Networks"), fig. 1b. A projection
    reads the activated input, as in the authors' code; identity and padding read the input itself.

    Shapes: as for `Block`.
    """

    expansion: ClassVar[int]
    downsample: nn.Module | None
    bn1: nn.Module
    relu1: nn.Module

    @abstractmethod
    def residual(self, activated: Tensor) -> Tensor:
        """Returns what follows the first activation."""

    @abstractmethod
    def last_layer(self) -> nn.Module:
        """Returns the layer whose weight, when zero, makes F(x) zero."""

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        residual = self.residual(activated)
        if self.downsample is None:
            return residual
        projects = isinstance(self.downsample, nn.Sequential)
        return residual + self.downsample(activated if projects else x)


class PreactivationBasicBlock(PreactivationBlock):
    """The pre-activated form of `BasicBlock`."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        options: BlockOptions = DEFAULT_OPTIONS,
        *,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        options.check_basic()
        norm = options.norm
        self.bn1 = normalization(inputs, norm)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(inputs, width, stride=stride, dilation=dilation, norm=norm)
        self.bn2 = normalization(width, norm)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width, dilation=dilation, norm=norm)
        self.downsample = make_shortcut(inputs, width, stride, options, preactivated=True)

    def residual(self, activated: Tensor) -> Tensor:
        return self.conv2(self.relu2(self.bn2(self.conv1(activated))))

    def last_layer(self) -> nn.Module:
        return self.conv2


class PreactivationBottleneck(PreactivationBlock):
    """The pre-activated form of `Bottleneck`; the arguments mean the same."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        options: BlockOptions = DEFAULT_OPTIONS,
        *,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        inner, outputs = options.inner_width(width), width * self.expansion
        first, second = options.strides(stride)
        groups, norm = options.groups, options.norm
        self.bn1 = normalization(inputs, norm)
        self.relu1 = nn.ReLU()
        self.conv1 = conv1x1(inputs, inner, stride=first, norm=norm)
        self.bn2 = normalization(inner, norm)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(
            inner, inner, stride=second, dilation=dilation, groups=groups, norm=norm
        )
        self.bn3 = normalization(inner, norm)
        self.relu3 = nn.ReLU()
        self.conv3 = conv1x1(inner, outputs, norm=norm)
        self.downsample = make_shortcut(inputs, outputs, stride, options, preactivated=True)

    def residual(self, activated: Tensor) -> Tensor:
        inner = self.relu2(self.bn2(self.conv1(activated)))
        return self.conv3(self.relu3(self.bn3(self.conv2(inner))))

    def last_layer(self) -> nn.Module:
        return self.conv3
