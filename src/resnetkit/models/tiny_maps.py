"""3x3 convolutions on maps of few pixels, as the matrix products that they are.

Where the last stage of a network sees 2x2 pixels, five of the nine taps of a 3x3 kernel multiply
nothing but padding; with 3x3 pixels it is four in ten products, with 4x4 three. Libraries of
convolutions compute them all, some with slow kernels for such maps (figures in docs/log.md).

On 2x2 pixels every output depends on every input, each pair by one tap, so that the convolution is
one dense layer: this is fastest for few channels in float32. Wide convolutions in bfloat16 are one
product for each set of taps that meets pixels, not padding.
"""

from collections import defaultdict
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

__all__ = ["Conv3x3"]

PAIRS = 16  # of an output and an input pixel of 2x2 each
FEW_PIXELS = 4 * 4  # of the output; with more, fewer products fall away (figures in docs/log.md)
WIDE = 256 * 256  # inputs times outputs; with less, gathering pixels costs more than it saves
IN_BFLOAT16 = {torch.float32, torch.bfloat16}  # what autocast computes in bfloat16


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution; in training on a CPU, one of few pixels is computed as matrix products.

    The result is equal up to rounding. Arguments, names of tensors and shapes are those of
    `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor
        if self.is_dense(x):
            output = DenseConvolution.apply(x, self.weight)
        elif self.is_small_and_wide(x):
            output = PixelConvolution.apply(x.bfloat16(), self.weight.bfloat16(), self.stride[0])
        else:
            return super().forward(x)
        return output if self.bias is None else output + self.bias[:, None, None]

    def is_dense(self, x: Tensor) -> bool:
        """Returns whether the convolution of x is a dense layer that is fastest as one."""
        return (
            self.is_ordinary(x)
            and x.shape[2:] == (2, 2)
            and self.stride == (1, 1)
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )

    def is_small_and_wide(self, x: Tensor) -> bool:
        """Returns whether the convolution of x is fastest without the products with padding."""
        if not self.is_ordinary(x) or self.in_channels * self.out_channels < WIDE:
            return False
        if self.bias is not None:  # torch rounds to bfloat16 once, after it is added
            return False
        height, width = (-(-size // self.stride[0]) for size in x.shape[2:])
        return height * width <= FEW_PIXELS and self.computes_in_bfloat16(x)

    def is_ordinary(self, x: Tensor) -> bool:
        """Returns whether x is in training on a CPU, and the convolution one of this module."""
        return (
            self.training
            and x.dim() == 4
            and x.device.type == "cpu"
            and self.stride in {(1, 1), (2, 2)}
            and self.padding == self.dilation == (1, 1)
            and self.groups == 1
        )

    def computes_in_bfloat16(self, x: Tensor) -> bool:
        """Returns whether torch would convolve x in bfloat16."""
        dtypes = {x.dtype, self.weight.dtype}
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu") == torch.bfloat16 and dtypes <= IN_BFLOAT16
        return dtypes == {torch.bfloat16}


class Meeting(NamedTuple):
    """An output and an input pixel, counted by rows, and the tap of the kernel between them."""

    output: int
    tap: int
    input: int


class Group(NamedTuple):
    """Pixels of a result that are computed alike.

    Attributes:
        taps: int64 (T,), which of the nine taps take part, ascending.
        results: int64 (P,), pixels of the result.
        sources: int64 (P * T,), the pixels that each of them is computed from, one for each tap.
    """

    taps: Tensor
    results: Tensor
    sources: Tensor


class PixelConvolution(Function):
    """A 3x3 convolution with padding 1, as products with the pixels that exist.

    In the middle of a map all nine taps meet pixels, at an edge six, in a corner four: one matrix
    product for each such group of output pixels, of the pixels that they see and the taps that
    meet them. The gradient of the input is the same from the other side, that of the weight one
    product for each tap.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Returns the output, (B, outputs, ceil(H / stride), ceil(W / stride)), channels last.

        Args:
            ctx: of autograd.
            x: (B, inputs, H, W).
            weight: (outputs, inputs, 3, 3), of the dtype of x.
            stride: in both directions.
        """
        height, width = x.shape[2:]
        pixels, kernel = as_pixels(x), as_pixels(weight)
        rows, columns = -(-height // stride), -(-width // stride)
        output = x.new_empty(len(x), rows * columns, len(weight))
        for group in groups(height, width, stride, of_inputs=False):
            matrix = kernel.index_select(1, group.taps).flatten(1)
            output.index_copy_(1, group.results, product(pixels, group, matrix.T))
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return as_maps(output, rows, columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Returns the gradients of x and of the weight."""
        x, weight = ctx.saved_tensors
        of_output, of_x, of_weight = as_pixels(gradient), None, None
        if ctx.needs_input_grad[0]:
            of_x = gradient_of_input(of_output, weight, x.shape, ctx.stride)
        if ctx.needs_input_grad[1]:
            of_weight = gradient_of_weight(of_output, x, weight.shape, ctx.stride)
        return of_x, of_weight, None


def gradient_of_input(of_output: Tensor, weight: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """Returns the gradient of an input of a shape from (B, pixels, outputs), that of the output."""
    batch, inputs, height, width = shape
    kernel = as_pixels(weight).transpose(0, 1).contiguous()  # (9, outputs, inputs)
    of_x = of_output.new_empty(batch, height * width, inputs)
    for group in groups(height, width, stride, of_inputs=True):
        matrix = kernel.index_select(0, group.taps).flatten(0, 1)
        of_x.index_copy_(1, group.results, product(of_output, group, matrix))
    return as_maps(of_x, height, width)


def gradient_of_weight(of_output: Tensor, x: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """Returns the gradient of a kernel of a shape from (B, pixels, outputs), that of the output."""
    outputs, inputs = shape[:2]
    pixels = as_pixels(x)
    of_weight = x.new_zeros(outputs, 9, inputs)  # a tap that meets only padding keeps zeros
    for tap, output_pixels, input_pixels in pixels_by_tap(*x.shape[2:], stride):
        theirs = of_output.index_select(1, output_pixels).flatten(0, 1)
        of_weight[:, tap] = theirs.T @ pixels.index_select(1, input_pixels).flatten(0, 1)
    return as_maps(of_weight, 3, 3)


def as_pixels(maps: Tensor) -> Tensor:
    """Returns (B, C, H, W) as (B, H * W, C): in channels-last memory, the same memory."""
    return maps.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def as_maps(pixels: Tensor, height: int, width: int) -> Tensor:
    """Returns (B, H * W, C) as (B, C, H, W) in channels-last memory."""
    return pixels.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def product(pixels: Tensor, group: Group, matrix: Tensor) -> Tensor:
    """Returns the results of a group, (B, P, columns of the matrix).

    Args:
        pixels: (B, pixels, C), of which each result is computed from T.
        group: which results, and from which pixels.
        matrix: (T * C, columns).
    """
    batch, _, channels = pixels.shape
    results, taps = len(group.results), len(group.taps)
    rows = pixels.index_select(1, group.sources).view(batch * results, taps * channels)
    return (rows @ matrix).view(batch, results, matrix.shape[1])


@cache
def groups(height: int, width: int, stride: int, *, of_inputs: bool) -> list[Group]:
    """Returns the groups of output pixels, or those of input pixels, of a map of a size."""
    met: dict[int, list[tuple[int, int]]] = defaultdict(list)  # taps and sources by pixel
    for output, tap, source in meetings(height, width, stride):
        result, other = (source, output) if of_inputs else (output, source)
        met[result].append((tap, other))
    alike: dict[tuple[int, ...], list[tuple[int, list[int]]]] = defaultdict(list)
    for result, pairs in met.items():
        taps, sources = zip(*sorted(pairs), strict=True)
        alike[taps].append((result, list(sources)))
    return [
        Group(
            torch.tensor(taps),
            torch.tensor([result for result, _ in members]),
            torch.tensor([sources for _, sources in members]).flatten(),
        )
        for taps, members in alike.items()
    ]


@cache
def pixels_by_tap(height: int, width: int, stride: int) -> list[tuple[int, Tensor, Tensor]]:
    """Returns each tap that meets pixels, with the output pixels and the input pixels it joins."""
    outputs, inputs = defaultdict(list), defaultdict(list)
    for output, tap, source in meetings(height, width, stride):
        outputs[tap].append(output)
        inputs[tap].append(source)
    return [(tap, torch.tensor(outputs[tap]), torch.tensor(inputs[tap])) for tap in outputs]


def meetings(height: int, width: int, stride: int) -> list[Meeting]:
    """Returns every meeting of pixels in a convolution with padding 1 of a map of a size."""
    return [
        Meeting(row * -(-width // stride) + column, 3 * down + right, y * width + x)
        for row in range(-(-height // stride))
        for column in range(-(-width // stride))
        for down in range(3)
        for right in range(3)
        if 0 <= (y := stride * row + down - 1) < height
        and 0 <= (x := stride * column + right - 1) < width
    ]


class DenseConvolution(Function):
    """A 3x3 convolution of 2x2 pixels with padding 1, as a matrix product.

    An output pixel o and an input pixel i meet at the tap 1 + i - o, in each direction. Counting
    output pixels from the last to the first makes that a sum, so that the matrix of the layer is a
    strided view of the kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Returns the output, (B, outputs, 2, 2) in channels-last memory.

        Args:
            ctx: of autograd.
            x: float32 (B, inputs, 2, 2).
            weight: float32 (outputs, inputs, 3, 3).
        """
        batch, (outputs, inputs) = len(x), weight.shape[:2]
        rows = x.permute(0, 2, 3, 1).reshape(batch, 4 * inputs)
        matrix = dense_matrix(weight)
        product = (rows @ matrix.T).view(batch, 4, outputs).flip(1)
        ctx.save_for_backward(rows, matrix)
        return product.view(batch, 2, 2, outputs).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Returns the gradients of x and of the weight."""
        rows, matrix = ctx.saved_tensors
        batch, (outputs, inputs) = len(rows), (side // 4 for side in matrix.shape)
        reversed_rows = gradient.permute(0, 2, 3, 1).reshape(batch, 4, outputs).flip(1)
        reversed_rows = reversed_rows.reshape(batch, 4 * outputs)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = (reversed_rows @ matrix).view(batch, 2, 2, inputs).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            of_weight = summed_over_pairs(reversed_rows.T @ rows, outputs, inputs)
        return of_x, of_weight


def dense_matrix(weight: Tensor) -> Tensor:
    """Returns the matrix (4 outputs, 4 inputs) of a kernel (outputs, inputs, 3, 3).

    Rows are output pixels from the last to the first, columns input pixels; channels vary fastest.
    """
    outputs, inputs = weight.shape[:2]
    kernel = weight.permute(0, 2, 3, 1).contiguous()  # in channels-last memory, no copy
    row, column, channel = 3 * inputs, inputs, 1  # strides of the taps of one output
    return kernel.as_strided(
        (2, 2, outputs, 2, 2, inputs), (row, column, 9 * inputs, row, column, channel)
    ).reshape(4 * outputs, 4 * inputs)


def summed_over_pairs(of_matrix: Tensor, outputs: int, inputs: int) -> Tensor:
    """Returns the gradient of a kernel from that of its matrix, in channels-last memory."""
    pairs = of_matrix.view(2, 2, outputs, 2, 2, inputs).permute(0, 1, 3, 4, 2, 5)
    taps = tap_of_pair() @ pairs.reshape(PAIRS, outputs * inputs)
    kernel = taps.view(3, 3, outputs, inputs).permute(2, 0, 1, 3).contiguous()
    return kernel.permute(0, 3, 1, 2)


@cache
def tap_of_pair() -> Tensor:
    """Returns which tap (9 rows) each pair of pixels (16 columns) meets at: ones, else zeros."""
    pixel = torch.arange(2)
    row = pixel[:, None, None, None] + pixel[:, None]  # of output (2, 2) and input (2, 2)
    column = pixel[:, None, None] + pixel
    taps = (3 * row + column).flatten()
    return (torch.arange(9)[:, None] == taps).float()
