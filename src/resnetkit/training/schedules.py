"""Parameter groups, learning-rate schedules and warm-up, as plain functions of the step."""

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

from torch import Tensor, nn

__all__ = [
    "Decay",
    "cosine",
    "linear",
    "linear_warmup",
    "one_cycle",
    "parameter_groups",
    "stepwise",
]

Decay = Literal["convolutions", "weights", "all"]
"""What weight decay pulls on: convolution weights (the paper), those and the head's weights, or
every parameter (fb.resnet.torch, torchvision)."""


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay: Decay,
    *,
    leave_out: Collection[Tensor] = (),
) -> list[dict[str, Any]]:
    """Returns the parameters in two groups, decayed and not, in the order of the model.

    Args:
        model: whose parameters are learned; those that want no gradient are left out.
        weight_decay: of the first group.
        decay: see `Decay`.
        leave_out: parameters that another optimizer learns.

    Source: the README of fb.resnet.torch names decay of every parameter as its deviation from the
    paper.
    """
    decayed_types: tuple[type[nn.Module], ...] = {
        "convolutions": (nn.Conv2d,),
        "weights": (nn.Conv2d, nn.Linear),
        "all": (nn.Module,),
    }[decay]
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    others = set(leave_out)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in others or not parameter.requires_grad:
                continue
            is_weight = name == "weight" or decay == "all"
            chosen = decayed if is_weight and isinstance(module, decayed_types) else free
            chosen.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


# A schedule maps a step to a factor of the peak learning rate.


def stepwise(step: int, *, milestones: Sequence[int], factor: float) -> float:
    """Returns factor ** (number of milestones reached): He et al. 2015, a tenth at 32k and 48k."""
    return float(factor ** sum(step >= milestone for milestone in milestones))


def linear(step: int, total: int, *, final: float) -> float:
    """Returns a straight line from 1 at step 0 to `final` at step `total`."""
    return 1 + (final - 1) * step / total


def cosine(step: int, total: int, *, final: float) -> float:
    """Returns half a cosine wave from 1 to `final` at step `total` (Loshchilov and Hutter 2017)."""
    return final + (1 - final) * (1 + math.cos(math.pi * step / total)) / 2


def one_cycle(step: int, total: int, *, start: float, peak: float, final: float) -> float:
    """Returns two straight lines: from `start` up to 1, then down to `final` (Smith 2018).

    Args:
        step: from 0.
        total: steps of the run.
        start: factor at step 0.
        peak: where the line reaches 1, as a share of the run.
        final: factor at the end.
    """
    top = peak * total
    if step < top:
        return start + (1 - start) * step / top
    return 1 + (final - 1) * (step - top) / (total - top)


def linear_warmup(step: int, steps: int) -> float:
    """Returns a factor that rises to 1 in equal increments (Goyal et al. 2017, sec. 2.2)."""
    return min(1.0, (step + 1) / steps)
