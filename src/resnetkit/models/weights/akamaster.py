"""Weights of akamaster/pytorch_resnet_cifar10: the paper's CIFAR networks as `.th` files.

What makes them different: names begin with `module.` and end with `linear` for the head; there is
no `num_batches_tracked`; option A puts half of its zeros before the channels and half behind; and
the images are normalised with the means and deviations of ImageNet.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.blocks import Shortcut
from resnetkit.models.weights.network import TrainedNetwork, built
from resnetkit.models.weights.tensors import Tensors, is_tensors
from resnetkit.models.zoo import Architecture, cifar

__all__ = ["is_akamaster", "load_akamaster"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def is_akamaster(content: object) -> bool:
    """Returns whether what a file holds looks like weights of this repository."""
    if not isinstance(content, Mapping):
        return False
    state = content.get("state_dict", content)
    if not is_tensors(state):
        return False
    names = {name.removeprefix("module.") for name in state}
    return {"conv1.weight", "linear.weight", "layer3.0.conv1.weight"} <= names and (
        "layer4.0.conv1.weight" not in names
    )


def load_akamaster(path: Path, content: Mapping[str, object]) -> TrainedNetwork:
    """Builds the network from what `read_file` returned for one of these files.

    Raises:
        WeightsError: when the tensors are not exactly those of one of the paper's networks.
    """
    state: Tensors = content.get("state_dict", content)  # type: ignore[assignment]
    tensors = {our_name(name): tensor for name, tensor in state.items()}
    if len(tensors) != len(state):
        raise WeightsError(f"{path} names a tensor twice, with 'module.' and without.")
    architecture = architecture_of(path, tensors)
    add_batch_counts(tensors)
    sides = "zeros on both sides" if architecture.shortcut == "A" else "projections"
    depth = 2 + sum(2 * count for count in architecture.depths)
    return TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        mean=pixels(IMAGENET_MEAN),
        std=pixels(IMAGENET_STD),
        class_names=(),
        image_size=(32, 32),
        data="",
        origin=(
            f"ResNet-{depth} of akamaster/pytorch_resnet_cifar10: shortcuts of option"
            f" {architecture.shortcut} ({sides}), images normalised with the constants of ImageNet"
        ),
    )


def our_name(name: str) -> str:
    """Returns our name of one of their tensors."""
    name = name.removeprefix("module.").replace(".shortcut.", ".downsample.")
    return re.sub(r"^linear\.", "fc.", name)


def architecture_of(path: Path, tensors: Tensors) -> Architecture:
    """Returns the network that the names and the head of the weights belong to."""
    blocks = {name.split(".")[1] for name in tensors if re.match(r"layer1\.\d+\.", name)}
    shortcut: Shortcut = "B" if any(".downsample." in name for name in tensors) else "A"
    head = tensors["fc.weight"]
    try:
        return cifar(6 * len(blocks) + 2).with_options(
            shortcut=shortcut, padding="split", num_classes=len(head) if head.dim() == 2 else 0
        )
    except ArchitectureError as error:
        raise WeightsError(
            f"{path} looks like a network of akamaster/pytorch_resnet_cifar10, but is none: {error}"
        ) from error


def add_batch_counts(tensors: Tensors) -> None:
    """Adds what these files lack: the batches counted, which change nothing in use."""
    for name in [name for name in tensors if name.endswith(".running_mean")]:
        count = name.removesuffix("running_mean") + "num_batches_tracked"
        tensors.setdefault(count, torch.tensor(0))


def pixels(fractions: tuple[float, ...]) -> Tensor:
    """Returns constants for pixels of 0 to 1 as a tensor (C, 1, 1) for pixels of 0 to 255."""
    return (torch.tensor(fractions) * 255)[:, None, None]
