"""Batch normalization, the addition of the shortcut and relu, in two passes over memory.

On a CPU a small convolution takes little longer than a pass over its output, and the modules make
about ten passes a step: statistics, normalization, addition, relu, and the same backward. Here each
direction is one function that reads its input twice and writes its output once: of fused.cpp,
compiled for this processor within seconds, or of this module where that does not apply. The modules
keep their weights and statistics.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from ctypes import CDLL, c_double, c_int, c_int64, c_void_p
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from resnetkit.models.blocks import Block

__all__ = ["build_error", "fused_block", "normalize_add_relu"]

COMPILED = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
FLAGS = ("-O3", "-std=c++17", "-fopenmp", "-fPIC", "-shared")
ROWS_PER_GROUP = 64  # that are added up in registers, before the sums of the groups


def fused_block(block: Block, x: Tensor) -> Tensor:
    """Returns the output of a block in training, equal to that of its modules up to rounding.

    Shapes: as for `Block`.
    """
    shortcut = None if block.downsample is None else block.downsample(x)
    *inner, (convolution, norm) = block.layers()
    for inner_convolution, inner_norm in inner:
        x = normalize_add_relu(inner_norm, inner_convolution(x))
    return normalize_add_relu(norm, convolution(x), shortcut)


def normalize_add_relu(norm: Any, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """Returns relu(norm(x) + shortcut), and updates the running statistics of `norm`.

    Args:
        norm: `nn.BatchNorm2d`; in evaluation mode it is called as a module.
        x: (B, C, H, W), fastest in channels-last memory.
        shortcut: likewise; None adds nothing.
    """
    count = x.numel() // x.shape[1]
    usable = isinstance(norm, nn.BatchNorm2d) and norm.training
    if not usable or norm.momentum is None or not norm.affine or count < 2:
        normalized = norm(x)  # frozen or unusual: the module computes it, or raises its own error
        return torch.relu(normalized if shortcut is None else normalized + shortcut)
    means, variances = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    output, mean, variance = NormalizeAddRelu.apply(
        x, shortcut, norm.weight, norm.bias, means.clone(), norm.eps
    )
    with torch.no_grad():
        means.lerp_(mean, norm.momentum)
        variances.lerp_(variance * (count / (count - 1)), norm.momentum)
        norm.get_buffer("num_batches_tracked").add_(1)
    return output


class NormalizeAddRelu(Function):
    """relu(weight * (x - mean) / sqrt(variance + eps) + bias + shortcut), and its gradient.

    Source: Ioffe and Szegedy 2015, algorithm 1 and sec. 3.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        shift: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the output (B, C, H, W), and the mean and variance of the batch (C,)."""
        rows, added = as_rows(x), None if shortcut is None else as_rows(shortcut)
        output, mean, variance = kernels().forward(
            rows, added, weight.detach(), bias.detach(), shift, eps
        )
        saved_output = None if added is None else output
        ctx.save_for_backward(rows, saved_output, weight, bias, mean, variance)
        ctx.eps, ctx.shape = eps, x.shape
        ctx.mark_non_differentiable(mean, variance)
        return as_images(output, x.shape), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of the arguments of `forward`."""
        rows, output, weight, bias, mean, variance = ctx.saved_tensors
        grad_rows, grad_added, grad_weight, grad_bias = kernels().backward(
            as_rows(gradients[0]),
            rows,
            output,
            Affine(weight, bias),
            Statistics(mean, variance),
            ctx.eps,
        )
        grad_shortcut = None if grad_added is None else as_images(grad_added, ctx.shape)
        return as_images(grad_rows, ctx.shape), grad_shortcut, grad_weight, grad_bias, None, None


def as_rows(images: Tensor) -> Tensor:
    """Returns (B, C, H, W) as (B * H * W, C): in channels-last memory, the same memory."""
    return images.detach().permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def as_images(rows: Tensor, shape: torch.Size) -> Tensor:
    """Returns (B * H * W, C) as (B, C, H, W) in channels-last memory."""
    batch, channels, height, width = shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Affine(NamedTuple):
    """The learned weight and bias of a normalization, (C,) each."""

    weight: Tensor
    bias: Tensor


class Statistics(NamedTuple):
    """The mean and variance of a batch, (C,) each."""

    mean: Tensor
    variance: Tensor


def forward(
    rows: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output, and the mean and variance of each channel.

    Args:
        rows: (N, C).
        added: (N, C) or None.
        weight: (C,), as are bias and shift.
        bias: of the normalization.
        shift: close to the mean, for a variance without cancellation.
        eps: of the normalization.
    """
    wide = widened(rows)
    shifted = wide - shift
    shifted_mean = column_sums(shifted) / len(rows)
    variance = (column_sums(shifted * shifted) / len(rows) - shifted_mean**2).clamp_min(0)
    mean = shifted_mean + shift
    factor = weight * torch.rsqrt(variance + eps)
    output = wide * factor + (bias - mean * factor)
    if added is not None:
        output = output + widened(added)
    return output.relu().to(rows.dtype), mean, variance


def backward(
    gradient: Tensor,
    rows: Tensor,
    output: Tensor | None,
    affine: Affine,
    statistics: Statistics,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Returns the gradients of the rows, of what was added, of the weight and of the bias.

    Args:
        gradient: of the output, (N, C).
        rows: as given to `forward`.
        output: as returned by `forward`; None where nothing was added, and it is computed again.
        affine: weight and bias as given to `forward`.
        statistics: as returned by `forward`.
        eps: of the normalization.
    """
    inverse = torch.rsqrt(statistics.variance + eps)
    factor = affine.weight * inverse
    centered = widened(rows) - statistics.mean
    is_positive = output > 0 if output is not None else centered * factor + affine.bias > 0
    grad_sum = torch.where(is_positive, gradient, 0)
    wide = widened(grad_sum)
    grad_bias = column_sums(wide)
    grad_weight = column_sums(wide * centered) * inverse
    count = len(rows)
    grad_rows = factor * (wide - grad_bias / count - centered * (inverse * grad_weight / count))
    return grad_rows.to(rows.dtype), None if output is None else grad_sum, grad_weight, grad_bias


def widened(values: Tensor) -> Tensor:
    """Returns values in the precision of sums: at least float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def column_sums(values: Tensor) -> Tensor:
    """Returns the sum of each column of (N, C), added up by groups of rows: fast and accurate."""
    group = min(len(values) & -len(values), ROWS_PER_GROUP)  # a power of two that divides N
    return values.unflatten(0, (-1, group)).sum(1).sum(0)


@cache
def kernels() -> SimpleNamespace:
    """Returns `forward` and `backward`, compiled for this processor.

    Raises:
        subprocess.CalledProcessError: if fused.cpp cannot be compiled.
        OSError: if the compiler cannot be started, or its result not be loaded.
    """
    library = compiled_library()
    for dtype in COMPILED.values():
        getattr(library, f"forward_{dtype}").argtypes = (
            *(5 * (c_void_p,)),
            c_double,
            *(3 * (c_void_p,)),
            *(c_int64, c_int64, c_int),
        )
        getattr(library, f"backward_{dtype}").argtypes = (
            *(7 * (c_void_p,)),
            c_double,
            *(4 * (c_void_p,)),
            *(c_int64, c_int64, c_int),
        )
    return SimpleNamespace(
        forward=partial(compiled_forward, library), backward=partial(compiled_backward, library)
    )


def compiled_forward(
    library: CDLL,
    rows: Tensor,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what `forward` does, up to rounding."""
    if not are_supported((rows, added), (weight, bias, shift)):
        return forward(rows, added, weight, bias, shift, eps)
    output, mean, variance = (torch.empty_like(like) for like in (rows, weight, weight))
    function = getattr(library, f"forward_{COMPILED[rows.dtype]}")
    function(
        *map(address, (rows, added, weight, bias, shift)),
        eps,
        *map(address, (output, mean, variance)),
        *(*rows.shape, torch.get_num_threads()),
    )
    return output, mean, variance


def compiled_backward(
    library: CDLL,
    gradient: Tensor,
    rows: Tensor,
    output: Tensor | None,
    affine: Affine,
    statistics: Statistics,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Returns what `backward` does, up to rounding."""
    if not are_supported((rows, gradient, output), (*affine, *statistics)):
        return backward(gradient, rows, output, affine, statistics, eps)
    grad_rows, grad_weight, grad_bias = (torch.empty_like(like) for like in (rows, *affine))
    grad_added = None if output is None else torch.empty_like(rows)
    function = getattr(library, f"backward_{COMPILED[rows.dtype]}")
    function(
        *map(address, (gradient, rows, output, *affine, *statistics)),
        eps,
        *map(address, (grad_rows, grad_added, grad_weight, grad_bias)),
        *(*rows.shape, torch.get_num_threads()),
    )
    return grad_rows, grad_added, grad_weight, grad_bias


def are_supported(rows: Iterable[Tensor | None], of_channels: Iterable[Tensor]) -> bool:
    """Returns whether the compiled functions take these activations and values of channels."""
    activations = [tensor for tensor in rows if tensor is not None]
    dtypes = {tensor.dtype for tensor in activations}
    return (
        len(dtypes) == 1
        and dtypes <= COMPILED.keys()
        and all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in activations)
        and all(tensor.dtype == torch.float32 for tensor in of_channels)
    )


def address(tensor: Tensor | None) -> int | None:
    """Returns where the values of a contiguous tensor begin; None for none."""
    return None if tensor is None else tensor.data_ptr()


def compiled_library() -> CDLL:
    """Compiles fused.cpp and loads it; see `kernels` for the errors."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "fused.so")
        source = files("resnetkit.models") / "fused.cpp"
        command = [str(compiler()), *FLAGS, f"-march={instructions()}", "-x", "c++", "-"]
        subprocess.run(
            [*command, "-o", str(path)], input=source.read_bytes(), capture_output=True, check=True
        )
        return CDLL(str(path))


def compiler() -> str | None:
    """Returns the path of a C++ compiler; None if there is none."""
    found = map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))
    return next(filter(None, found), None)


def instructions() -> str:
    """Returns the instructions to compile for: this processor's, or what torch is limited to."""
    return "x86-64-v3" if torch.backends.cpu.get_cpu_capability() == "AVX2" else "native"


@cache
def build_error() -> str | None:
    """Returns why the functions cannot be compiled on this machine; None if they can."""
    if compiler() is None:
        return "there is no C++ compiler"
    try:
        kernels()
    except (OSError, subprocess.CalledProcessError) as error:  # such as a compiler without OpenMP
        return f"compiling fails ({type(error).__name__})"
    return None
