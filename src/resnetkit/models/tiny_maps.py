"""3x3 convolutions on maps of 2x2 pixels, as the matrix products that they are.

Where the last stage of a small network sees 2x2 pixels, five of the nine taps of a 3x3 kernel
multiply nothing but padding, and libraries of convolutions fall back to slow kernels for the
gradient of the weights (figures in docs/log.md). Every output pixel depends on every input pixel,
each pair by one tap, so the whole convolution is one dense layer.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

__all__ = ["Conv3x3"]

PAIRS = 16  # of an output and an input pixel


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution; in training on a CPU, maps of 2x2 pixels take the way of this module.

    The result is equal up to rounding. Arguments, names of tensors and shapes are those of
    `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.is_dense(x)):
            return super().forward(x)
        output: Tensor = DenseConvolution.apply(x, self.weight)
        return output if self.bias is None else output + self.bias[:, None, None]

    def is_dense(self, x: Tensor) -> bool:
        """Returns whether the convolution of x is a dense layer that can be computed as one."""
        return (
            x.shape[2:] == (2, 2)
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and self.stride == self.padding == self.dilation == (1, 1)
            and self.groups == 1
        )


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
