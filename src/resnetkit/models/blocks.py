"""The parts a residual network is made of: shortcuts, and blocks in both orders of activation.

Attribute names (`conv1`, `bn1`, `downsample`, ...) are torchvision's, so that a state_dict of
either library loads strictly into the other. Every activation is a module of its own and none
works in place, so that a hook sees exactly what each layer produced.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "BasicBlock",
    "Block",
    "Bottleneck",
    "Norm",
    "PadShortcut",
    "PreactivationBasicBlock",
    "PreactivationBlock",
    "PreactivationBottleneck",
    "Shortcut",
    "StrideIn",
    "ZeroPadding",
    "convolution",
    "make_shortcut",
    "normalization",
]

Shortcut = Literal["none", "A", "B", "C"]
"""He et al. 2015, sec. 3.3: `none` makes the plain network; A pads with zeros; B projects where the
shape changes; C projects everywhere."""

ZeroPadding = Literal["append", "split"]
"""Where option A puts its zero channels: all behind the input's, or half on either side."""

StrideIn = Literal["1x1", "3x3"]
"""Which convolution of a bottleneck strides: the first 1x1 (the paper, "v1") or the 3x3
(torchvision, "v1.5")."""

Norm = Literal["batch", "none"]
"""Batch normalization after each convolution, or none; without it the convolutions have biases."""


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    norm: Norm = "batch",
) -> nn.Conv2d:
    """Returns a convolution that keeps the image size at stride 1."""
    # "Biases are in the BN layers that follow": He, KaimingHe/deep-residual-networks issue 10.
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=dilation * (kernel - 1) // 2,
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
    inputs: int,
    outputs: int,
    stride: int,
    *,
    shortcut: Shortcut,
    padding: ZeroPadding,
    norm: Norm,
    preactivated: bool = False,
) -> nn.Module | None:
    """Returns what a block's input passes through on its way around F; None for a plain block."""
    if shortcut == "none":
        return None
    if inputs == outputs and stride == 1 and shortcut != "C":
        return nn.Identity()
    if shortcut == "A":
        return PadShortcut(inputs, outputs, stride, padding=padding)
    projection = convolution(inputs, outputs, 1, stride=stride, norm=norm)
    if preactivated:  # its input is normalized already
        return nn.Sequential(projection)
    return nn.Sequential(projection, normalization(outputs, norm))


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
        """Returns F(x), what the block adds to its shortcut."""

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
        *,
        shortcut: Shortcut = "B",
        padding: ZeroPadding = "append",
        norm: Norm = "batch",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 3, stride=stride, dilation=dilation, norm=norm)
        self.bn1 = normalization(width, norm)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(width, width, 3, dilation=dilation, norm=norm)
        self.bn2 = normalization(width, norm)
        self.downsample = make_shortcut(
            inputs, width, stride, shortcut=shortcut, padding=padding, norm=norm
        )
        self.relu_out = nn.ReLU()

    def residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))

    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.conv1, self.bn1), (self.conv2, self.bn2)]


class Bottleneck(Block):
    """F is 1x1, 3x3, 1x1: He et al. 2015, fig. 5 right.

    Args:
        inputs: channels of the input.
        width: channels of the 3x3 convolution of a plain ResNet; the output has four times as many.
        stride: of the block.
        shortcut: see `Shortcut`.
        padding: see `ZeroPadding`.
        norm: see `Norm`.
        dilation: of the 3x3 convolution.
        stride_in: see `StrideIn`.
        groups: of the 3x3 convolution (ResNeXt: Xie et al. 2017).
        base_width: channels of the 3x3 convolution for each 64 of `width` and each group (Wide
            ResNet: 128).
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        *,
        shortcut: Shortcut = "B",
        padding: ZeroPadding = "append",
        norm: Norm = "batch",
        dilation: int = 1,
        stride_in: StrideIn = "3x3",
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        super().__init__()
        inner, outputs = width * base_width // 64 * groups, width * self.expansion
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = convolution(inputs, inner, 1, stride=first, norm=norm)
        self.bn1 = normalization(inner, norm)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(
            inner, inner, 3, stride=second, dilation=dilation, groups=groups, norm=norm
        )
        self.bn2 = normalization(inner, norm)
        self.relu2 = nn.ReLU()
        self.conv3 = convolution(inner, outputs, 1, norm=norm)
        self.bn3 = normalization(outputs, norm)
        self.downsample = make_shortcut(
            inputs, outputs, stride, shortcut=shortcut, padding=padding, norm=norm
        )
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
        *,
        shortcut: Shortcut = "B",
        padding: ZeroPadding = "append",
        norm: Norm = "batch",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.bn1 = normalization(inputs, norm)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution(inputs, width, 3, stride=stride, dilation=dilation, norm=norm)
        self.bn2 = normalization(width, norm)
        self.relu2 = nn.ReLU()
        self.conv2 = convolution(width, width, 3, dilation=dilation, norm=norm)
        self.downsample = make_shortcut(
            inputs, width, stride, shortcut=shortcut, padding=padding, norm=norm, preactivated=True
        )

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
        *,
        shortcut: Shortcut = "B",
        padding: ZeroPadding = "append",
        norm: Norm = "batch",
        dilation: int = 1,
        stride_in: StrideIn = "3x3",
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        super().__init__()
        inner, outputs = width * base_width // 64 * groups, width * self.expansion
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.bn1 = normalization(inputs, norm)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution(inputs, inner, 1, stride=first, norm=norm)
        self.bn2 = normalization(inner, norm)
        self.relu2 = nn.ReLU()
        self.conv2 = convolution(
            inner, inner, 3, stride=second, dilation=dilation, groups=groups, norm=norm
        )
        self.bn3 = normalization(inner, norm)
        self.relu3 = nn.ReLU()
        self.conv3 = convolution(inner, outputs, 1, norm=norm)
        self.downsample = make_shortcut(
            inputs,
            outputs,
            stride,
            shortcut=shortcut,
            padding=padding,
            norm=norm,
            preactivated=True,
        )

    def residual(self, activated: Tensor) -> Tensor:
        inner = self.relu2(self.bn2(self.conv1(activated)))
        return self.conv3(self.relu3(self.bn3(self.conv2(inner))))

    def last_layer(self) -> nn.Module:
        return self.conv3
