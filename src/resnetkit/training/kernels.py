"""The kernels of a training: torch's modules, or fused ones where they save time."""

from dataclasses import dataclass
from typing import Literal

import torch

from resnetkit.errors import RecipeError
from resnetkit.models.fused import build_error
from resnetkit.models.zoo import Architecture

__all__ = ["ChosenKernels", "choose_kernels"]

SMALL_TRAINING = 10**13  # multiply-adds of all forward passes: about five epochs of ResNet-20


@dataclass(frozen=True)
class ChosenKernels:
    """The kernels that compute normalization, addition and relu in training.

    Attributes:
        name: modules or fused.
        reason: why they were chosen, for messages.
    """

    name: Literal["modules", "fused"]
    reason: str


def choose_kernels(
    requested: str, architecture: Architecture, device: torch.device, *, multiply_adds: int
) -> ChosenKernels:
    """Returns the requested kernels; for `auto`, the faster ones (figures in docs/log.md).

    Args:
        requested: auto, modules or fused.
        architecture: of the network.
        device: where it trains.
        multiply_adds: of all forward passes of the training.

    Raises:
        RecipeError: when fused kernels are requested but not available.
    """
    if requested == "modules":
        return ChosenKernels("modules", "the recipe asks for them")
    obstacle: str | None
    if architecture.preactivation or architecture.norm == "none":
        obstacle = "they need blocks that end with batch normalization, addition and relu"
    elif requested == "fused" or worth_fusing(architecture, device, multiply_adds):
        obstacle = build_error()
    else:
        return ChosenKernels("modules", "fused ones would gain nothing here")
    if obstacle and requested == "fused":
        raise RecipeError(
            f"kernels is 'fused', but {obstacle}. Set kernels=auto, which then takes the modules."
        )
    if obstacle:
        return ChosenKernels("modules", obstacle)
    return ChosenKernels("fused", "compiled for this processor")


def worth_fusing(architecture: Architecture, device: torch.device, multiply_adds: int) -> bool:
    """Returns whether fused kernels save more time than compiling them takes."""
    small_blocks = architecture.block == "basic"  # bottlenecks are too wide to gain
    return device.type == "cpu" and small_blocks and multiply_adds > SMALL_TRAINING
