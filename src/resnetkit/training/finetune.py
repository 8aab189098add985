"""Starting from what a network has learned before."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from resnetkit.errors import RecipeError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import ARCHITECTURES, Architecture
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

__all__ = ["learned_network", "spelled", "take_over"]

FREE = ("num_classes", "input_size", "initialization", "zero_init_residual", "recompute")
"""What of an architecture may differ between the weights and the network that starts from them."""


def learned_network(recipe: Recipe, architecture: Architecture) -> TrainedNetwork | None:
    """Returns the network that a recipe starts from; none when it starts afresh.

    Raises:
        RecipeError: when the weights are of another network than the recipe's.
        WeightsError: when the file cannot be trusted.
    """
    if not recipe.model.weights:
        return None
    path = Path(recipe.model.weights)
    network = load_network(path, variant=recipe.model.variant)
    if comparable(network.architecture) != comparable(architecture):
        theirs, own = network.architecture.in_channels, architecture.in_channels
        if replace(comparable(network.architecture), in_channels=own) == comparable(architecture):
            raise RecipeError(
                f"model.weights ({path}) are of a network for images of {theirs} channel(s), the"
                f" data has {own}. Own images are read with as many as model.options.in_channels"
                " says."
            )
        name, options = spelled(network.architecture)
        if network.architecture.in_channels == architecture.in_channels:
            options.pop("in_channels", 0)  # it follows the data
        words = [f"model.name={name}", *(f"model.options.{k}={v}" for k, v in options.items())]
        raise RecipeError(
            f"model.weights ({path}) are of another network than the recipe's. For theirs set"
            f" {', '.join(words)}."
        )
    return network


def comparable(architecture: Architecture) -> Architecture:
    """Returns the architecture without what does not decide the shape of its layers."""
    plain = ARCHITECTURES["resnet20"]
    return replace(architecture, **{name: getattr(plain, name) for name in FREE})


def spelled(architecture: Architecture) -> tuple[str, dict[str, Any]]:
    """Returns the named network that is nearest to an architecture, and the options it needs."""
    wanted = comparable(architecture)

    def differences(known: Architecture) -> dict[str, Any]:
        base = comparable(known)
        return {
            field.name: getattr(wanted, field.name)
            for field in fields(Architecture)
            if getattr(base, field.name) != getattr(wanted, field.name)
        }

    fixed = ("block", "depths", "widths", "stem", "preactivation")
    candidates = {
        name: found
        for name, known in ARCHITECTURES.items()
        if not set(found := differences(known)) & set(fixed)
    }
    if not candidates:
        raise RecipeError("no named network has these layers: it cannot be trained by a recipe.")
    name = min(candidates, key=lambda each: len(candidates[each]))
    return name, candidates[name]


def take_over(model: ResNet, network: TrainedNetwork) -> None:
    """Gives a network what another has learned; the head starts anew.

    Args:
        model: of the same layers up to the head; changed in place.
        network: whose tensors are taken.
    """
    learned = network.model.state_dict()
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            if not name.startswith("fc."):
                tensor.copy_(learned[name])
