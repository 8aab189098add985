"""The optimizers that a recipe asks for: SGD, or SGD and Muon, with a rate for each parameter."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.models.resnet import ResNet
from resnetkit.training.muon import Muon
from resnetkit.training.recipe import Recipe
from resnetkit.training.recipe_schema import Decay

__all__ = ["make_optimizers", "parameter_groups"]


def make_optimizers(model: ResNet, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Returns SGD for all parameters, or for all but those that Muon learns, and Muon."""
    settings = recipe.optimizer
    orthogonal = inner_convolutions(model) if settings.muon_lr else []
    groups = parameter_groups(model, settings.weight_decay, settings.decay, leave_out=orthogonal)
    descent = torch.optim.SGD(
        with_lr_scales(groups, model.fc, recipe.finetune.backbone_lr),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )
    if not orthogonal:
        return (descent,)
    muon = Muon(orthogonal, lr=settings.muon_lr, momentum=settings.muon_momentum)
    share = settings.muon_lr / settings.lr
    muon.param_groups[0]["lr_scale"] = share * recipe.finetune.backbone_lr
    return descent, muon


def with_lr_scales(
    groups: list[dict[str, Any]], head: nn.Module, backbone_lr: float
) -> list[dict[str, Any]]:
    """Returns the groups with their rates relative to the recipe's: lower for all but the head."""
    if backbone_lr == 1:
        return [{**group, "lr_scale": 1.0} for group in groups]
    of_head = set(head.parameters())
    parts = [
        {
            **group,
            "params": [p for p in group["params"] if (p in of_head) == chosen],
            "lr_scale": rate,
        }
        for group in groups
        for chosen, rate in ((False, backbone_lr), (True, 1.0))
    ]
    return [part for part in parts if part["params"]]


def inner_convolutions(model: ResNet) -> list[Tensor]:
    """Returns the weights of the convolutions inside blocks, as far as they are learned."""
    return [
        module.weight
        for _, block in model.blocks()
        for module in block.modules()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad
    ]


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
