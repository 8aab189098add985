"""Training that starts from pretrained weights."""

from pathlib import Path

import torch

from resnetkit.errors import RecipeError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import ARCHITECTURES, Architecture
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

__all__ = ["copy_backbone", "pretrained_network", "spelled"]


def pretrained_network(recipe: Recipe, architecture: Architecture) -> TrainedNetwork | None:
    """Returns the network whose weights a recipe starts from; None when it trains from scratch.

    Raises:
        RecipeError: when the weights belong to another network than the recipe's.
        WeightsError: when the file cannot be read.
    """
    if not recipe.model.weights:
        return None
    path = Path(recipe.model.weights)
    network = load_network(path, variant=recipe.model.variant)
    if differences := architecture.differences(network.architecture):
        if set(differences) == {"in_channels"}:
            raise RecipeError(
                f"model.weights ({path}) belong to a network for images of"
                f" {differences['in_channels']} channel(s), the data has"
                f" {architecture.in_channels}."
                " model.options.in_channels sets the number of channels that custom images are"
                " read with."
            )
        name, options = spelled(network.architecture)
        if "in_channels" not in differences:
            options.pop("in_channels", None)  # it follows the data
        settings = [f"model.name={name}", *(f"model.options.{k}={v}" for k, v in options.items())]
        raise RecipeError(
            f"model.weights ({path}) belong to another network than the recipe's. For theirs set"
            f" {', '.join(settings)}."
        )
    return network


def spelled(architecture: Architecture) -> tuple[str, dict[str, object]]:
    """Returns the named network closest to an architecture, and the options that make them equal.

    Raises:
        RecipeError: when no named network has these layers.
    """
    differences = {name: named.differences(architecture) for name, named in ARCHITECTURES.items()}
    fixed = {"block", "depths", "widths", "stem", "preactivation"}  # not options of create_model
    candidates = {
        name: options for name, options in differences.items() if not fixed & set(options)
    }
    if not candidates:
        raise RecipeError("no named network has these layers: it cannot be trained by a recipe.")
    name = min(candidates, key=lambda candidate: len(candidates[candidate]))
    return name, candidates[name]


def copy_backbone(model: ResNet, network: TrainedNetwork) -> None:
    """Copies the weights of a network into another, except for the head.

    Args:
        model: with the same layers up to the head; changed in place.
        network: whose tensors are copied.
    """
    pretrained = network.model.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.startswith("fc."):
                tensor.copy_(pretrained[name])
