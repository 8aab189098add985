"""Blocks against the equations of the papers, computed here from bare weights in float64."""

from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from resnetkit.errors import ArchitectureError
from resnetkit.models.blocks import (
    BasicBlock,
    BlockOptions,
    Bottleneck,
    PadShortcut,
    PreactivationBasicBlock,
    PreactivationBottleneck,
    Shortcut,
    StrideIn,
    ZeroPadding,
)

SHORTCUTS: tuple[Shortcut, ...] = ("none", "A", "B", "C")
PADDINGS: tuple[ZeroPadding, ...] = ("append", "split")
BLOCKS = (BasicBlock, Bottleneck, PreactivationBasicBlock, PreactivationBottleneck)
BASIC, BOTTLENECK = (BasicBlock, PreactivationBasicBlock), (Bottleneck, PreactivationBottleneck)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomized(block: nn.Module) -> nn.Module:
    """Returns the block in float64 eval mode, all its weights and statistics random."""
    generator = torch.Generator().manual_seed(1)
    for name, value in block.double().eval().state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.is_floating_point():
            value.normal_(std=0.5, generator=generator)
    return block


def padded_slowly(x: Tensor, outputs: int, stride: int, padding: ZeroPadding) -> Tensor:
    """Option A, one pixel of one channel at a time."""
    batch, inputs, height, width = x.shape
    first = (outputs - inputs) // 2 if padding == "split" else 0
    y = x.new_zeros(batch, outputs, ceil(height / stride), ceil(width / stride))
    for channel in range(inputs):
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                y[:, first + channel, row, column] = x[:, channel, row * stride, column * stride]
    return y


class Reference:
    """The layers of a block as bare arithmetic on its weights."""

    def __init__(self, block: nn.Module) -> None:
        self.weights = block.state_dict()

    def conv(self, name: str, x: Tensor, **options: Any) -> Tensor:
        bias = self.weights.get(f"{name}.bias")
        return conv2d(x, self.weights[f"{name}.weight"], bias, **options)

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale, offset, mean, variance = (
            self.weights[f"{name}.{key}"].view(-1, 1, 1)
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + offset

    def basic(self, x: Tensor, stride: int) -> Tensor:
        """He et al. 2015, fig. 5 left."""
        x = relu(self.norm("bn1", self.conv("conv1", x, stride=stride, padding=1)))
        return self.norm("bn2", self.conv("conv2", x, padding=1))

    def bottleneck(self, x: Tensor, stride: int, stride_in: StrideIn) -> Tensor:
        """He et al. 2015, fig. 5 right."""
        first, second = {"1x1": (stride, 1), "3x3": (1, stride)}[stride_in]
        x = relu(self.norm("bn1", self.conv("conv1", x, stride=first)))
        x = relu(self.norm("bn2", self.conv("conv2", x, stride=second, padding=1)))
        return self.norm("bn3", self.conv("conv3", x))

    def preactivated_basic(self, activated: Tensor, stride: int) -> Tensor:
        """He et al. 2016, fig. 1b, from the first convolution on."""
        x = self.conv("conv1", activated, stride=stride, padding=1)
        return self.conv("conv2", relu(self.norm("bn2", x)), padding=1)

    def preactivated_bottleneck(
        self, activated: Tensor, stride: int, stride_in: StrideIn
    ) -> Tensor:
        """The bottleneck in the order of He et al. 2016."""
        first, second = {"1x1": (stride, 1), "3x3": (1, stride)}[stride_in]
        x = self.conv("conv1", activated, stride=first)
        x = self.conv("conv2", relu(self.norm("bn2", x)), stride=second, padding=1)
        return self.conv("conv3", relu(self.norm("bn3", x)))

    def post_shortcut(self, x: Tensor, outputs: int, stride: int, shortcut: Shortcut) -> Tensor:
        """He et al. 2015, sec. 3.3; a plain block adds nothing."""
        changes = x.shape[1] != outputs or stride != 1
        if shortcut == "none":
            return x.new_zeros(())
        if shortcut == "C" or (shortcut == "B" and changes):
            return self.norm("downsample.1", self.conv("downsample.0", x, stride=stride))
        return padded_slowly(x, outputs, stride, "append")

    def pre_shortcut(
        self, x: Tensor, activated: Tensor, outputs: int, stride: int, shortcut: Shortcut
    ) -> Tensor:
        """As above, but a projection reads the activated input and has no normalization."""
        changes = x.shape[1] != outputs or stride != 1
        if shortcut == "none":
            return x.new_zeros(())
        if shortcut == "C" or (shortcut == "B" and changes):
            return self.conv("downsample.0", activated, stride=stride)
        return padded_slowly(x, outputs, stride, "append")


def every_shape(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test for every shortcut, in a block that keeps the shape and in two that change it."""
    test = pytest.mark.parametrize("shortcut", SHORTCUTS)(test)
    return pytest.mark.parametrize(
        ("inputs", "outputs", "stride"), [(64, 64, 1), (16, 64, 1), (32, 64, 2)]
    )(test)


@every_shape
def test_basic_block_is_its_equation(
    inputs: int, outputs: int, stride: int, shortcut: Shortcut
) -> None:
    block = randomized(BasicBlock(inputs, outputs, stride, BlockOptions(shortcut=shortcut)))
    reference, x = Reference(block), random_tensor(2, inputs, 7, 7)
    expected = relu(
        reference.basic(x, stride) + reference.post_shortcut(x, outputs, stride, shortcut)
    )
    torch.testing.assert_close(block(x), expected)


@every_shape
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_bottleneck_is_its_equation(
    inputs: int, outputs: int, stride: int, shortcut: Shortcut, stride_in: StrideIn
) -> None:
    options = BlockOptions(shortcut=shortcut, stride_in=stride_in)
    block = randomized(Bottleneck(inputs, outputs // 4, stride, options))
    reference, x = Reference(block), random_tensor(2, inputs, 7, 7)
    residual = reference.bottleneck(x, stride, stride_in)
    expected = relu(residual + reference.post_shortcut(x, outputs, stride, shortcut))
    torch.testing.assert_close(block(x), expected)


@every_shape
def test_preactivated_basic_block_is_its_equation(
    inputs: int, outputs: int, stride: int, shortcut: Shortcut
) -> None:
    block = randomized(
        PreactivationBasicBlock(inputs, outputs, stride, BlockOptions(shortcut=shortcut))
    )
    reference, x = Reference(block), random_tensor(2, inputs, 7, 7)
    activated = relu(reference.norm("bn1", x))
    residual = reference.preactivated_basic(activated, stride)
    expected = residual + reference.pre_shortcut(x, activated, outputs, stride, shortcut)
    torch.testing.assert_close(block(x), expected)


@every_shape
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_preactivated_bottleneck_is_its_equation(
    inputs: int, outputs: int, stride: int, shortcut: Shortcut, stride_in: StrideIn
) -> None:
    options = BlockOptions(shortcut=shortcut, stride_in=stride_in)
    block = randomized(PreactivationBottleneck(inputs, outputs // 4, stride, options))
    reference, x = Reference(block), random_tensor(2, inputs, 7, 7)
    activated = relu(reference.norm("bn1", x))
    residual = reference.preactivated_bottleneck(activated, stride, stride_in)
    expected = residual + reference.pre_shortcut(x, activated, outputs, stride, shortcut)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("block_type", BASIC)
def test_without_normalization_a_basic_block_is_two_convolutions_with_biases(
    block_type: type[BasicBlock] | type[PreactivationBasicBlock],
) -> None:
    block = randomized(block_type(16, 16, options=BlockOptions(norm="none")))
    conv, x = Reference(block).conv, random_tensor(2, 16, 5, 5)
    before, after = (relu, nn.Identity()) if block_type in BLOCKS[2:] else (nn.Identity(), relu)
    residual = conv("conv2", relu(conv("conv1", before(x), padding=1)), padding=1)
    torch.testing.assert_close(block(x), after(residual + x))


def test_groups_and_base_width_split_the_3x3_convolution() -> None:
    """ResNeXt: each of 4 groups reads and writes only its own 8 = 16 * 32 / 64 channels."""
    block = randomized(Bottleneck(64, 16, options=BlockOptions(groups=4, base_width=32)))
    reference, x = Reference(block), random_tensor(2, 64, 5, 5)
    inner = relu(reference.norm("bn1", reference.conv("conv1", x)))
    kernels = reference.weights["conv2.weight"].chunk(4)
    parts = zip(inner.chunk(4, 1), kernels, strict=True)
    split = torch.cat([conv2d(part, kernel, padding=1) for part, kernel in parts], 1)
    inner = relu(reference.norm("bn2", split))
    expected = relu(reference.norm("bn3", reference.conv("conv3", inner)) + x)
    assert kernels[0].shape == (8, 8, 3, 3)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("block_type", BASIC)
@pytest.mark.parametrize("options", [BlockOptions(groups=2), BlockOptions(base_width=128)])
def test_basic_blocks_refuse_the_options_of_bottlenecks(
    block_type: Any, options: BlockOptions
) -> None:
    with pytest.raises(ArchitectureError, match="groups and base_width belong to bottleneck"):
        block_type(64, 64, options=options)


@pytest.mark.parametrize("block_type", BLOCKS)
def test_dilation_spreads_the_3x3_convolutions_and_keeps_the_size(block_type: Any) -> None:
    width, options = 64 // block_type.expansion, BlockOptions(norm="none")
    block = randomized(block_type(64, width, options=options, dilation=2))
    x = random_tensor(1, 64, 9, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(block(x)[0, :, 4, 4].sum(), x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    convolutions_3x3 = 2 if block_type in BASIC else 1
    reach = range(-2 * convolutions_3x3, 2 * convolutions_3x3 + 1, 2)
    assert block(x).shape == x.shape
    assert rows == [4 + offset for offset in reach]


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 4),
    missing=st.integers(0, 5),
    stride=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    padding=st.sampled_from(PADDINGS),
)
def test_pad_shortcut_equals_its_slow_twin(
    inputs: int, missing: int, stride: int, height: int, width: int, padding: ZeroPadding
) -> None:
    x = random_tensor(2, inputs, height, width)
    shortcut = PadShortcut(inputs, inputs + missing, stride, padding=padding)
    assert torch.equal(shortcut(x), padded_slowly(x, inputs + missing, stride, padding))


def test_the_two_paddings_put_the_zeros_in_different_places() -> None:
    x = random_tensor(1, 16, 2, 2)
    zeros = {
        padding: (PadShortcut(16, 32, 1, padding=padding)(x) == 0).all((0, 2, 3)).nonzero()
        for padding in PADDINGS
    }
    assert zeros["append"].flatten().tolist() == list(range(16, 32))
    assert zeros["split"].flatten().tolist() == [*range(8), *range(24, 32)]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("block_type", BLOCKS)
def test_option_a_adds_no_weights_to_the_plain_block(block_type: Any, padding: ZeroPadding) -> None:
    plain = block_type(16, 32, 2, BlockOptions(shortcut="none"))
    padded = block_type(16, 32, 2, BlockOptions(shortcut="A", padding=padding))
    assert isinstance(padded.downsample, PadShortcut)
    padded.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(padded.state_dict(), strict=True)


def test_the_padding_is_visible_in_the_printed_block() -> None:
    printed = str(PadShortcut(16, 32, 2, padding="split"))
    assert printed == "PadShortcut(stride=2, zeros=(8, 8))"
