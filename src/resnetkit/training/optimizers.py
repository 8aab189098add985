"""The optimizers of a recipe: SGD, or SGD and Muon, with their parameter groups."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.models.resnet import ResNet
from resnetkit.training.muon import Muon
from resnetkit.training.recipe import Recipe
from resnetkit.training.recipe_schema import Decay

__all__ = ["make_optimizers", "parameter_groups"]


def make_optimizers(model: ResNet, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Returns SGD for all parameters, or Muon for convolutions and SGD for the rest."""
    settings = recipe.optimizer
    blocks = [block for _, block in model.blocks()]
    modules = blocks if settings.muon_on == "blocks" else [model]
    orthogonal = convolutions(modules) if settings.muon_lr else []
    groups = parameter_groups(model, settings.weight_decay, settings.decay, exclude=orthogonal)
    sgd = torch.optim.SGD(
        with_lr_scales(groups, model.fc, recipe.finetune.backbone_lr),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )
    if not orthogonal:
        return (sgd,)
    muon = Muon(orthogonal, lr=settings.muon_lr, momentum=settings.muon_momentum)
    relative = settings.muon_lr / settings.lr
    muon.param_groups[0]["lr_scale"] = relative * recipe.finetune.backbone_lr
    return sgd, muon


def with_lr_scales(
    groups: list[dict[str, Any]], head: nn.Module, backbone_lr: float
) -> list[dict[str, Any]]:
    """Returns the groups with their `lr_scale`: 1 for the head, `backbone_lr` for the rest."""
    if backbone_lr == 1:
        return [{**group, "lr_scale": 1.0} for group in groups]
    head_parameters = set(head.parameters())
    scaled = [
        {
            **group,
            "params": [p for p in group["params"] if (p in head_parameters) == in_head],
            "lr_scale": lr_scale,
        }
        for group in groups
        for in_head, lr_scale in ((False, backbone_lr), (True, 1.0))
    ]
    return [group for group in scaled if group["params"]]


def convolutions(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Returns the trainable weights of the convolutions inside modules."""
    return [
        inner.weight
        for module in modules
        for inner in module.modules()
        if isinstance(inner, nn.Conv2d) and inner.weight.requires_grad
    ]


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay: Decay,
    *,
    exclude: Collection[Tensor] = (),
) -> list[dict[str, Any]]:
    """Returns the parameters with and without weight decay as groups, in the order of the model.

    Args:
        model: of which frozen parameters are left out.
        weight_decay: of the first group.
        decay: see `OptimizerSection`.
        exclude: parameters of another optimizer.

    Source: the README of fb.resnet.torch lists weight decay of every parameter among its deviations
    from the paper.
    """
    decayed_types: tuple[type[nn.Module], ...] = {
        "convolutions": (nn.Conv2d,),
        "weights": (nn.Conv2d, nn.Linear),
        "all": (nn.Module,),
    }[decay]
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    excluded = set(exclude)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in excluded or not parameter.requires_grad:
                continue
            is_weight = name == "weight" or decay == "all"
            is_decayed = is_weight and isinstance(module, decayed_types)
            (decayed if is_decayed else undecayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
