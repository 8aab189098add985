"""Weights of akamaster/pytorch_resnet_cifar10: the paper's CIFAR networks as `.th` files.

What differs from torchvision: names begin with `module.` and end with `linear` for the head; there
is no `num_batches_tracked`; option A puts half of its zeros before the channels and half after
them; and images are normalized with the mean and standard deviation of ImageNet.
"""

import re
from io import BytesIO
from pathlib import Path

import torch

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.blocks import Shortcut
from resnetkit.models.zoo import Architecture, cifar
from resnetkit.resizing import FULL
from resnetkit.weights.conventions import IMAGENET_NORMALIZATION, implied_classes
from resnetkit.weights.format import Convention, Format, WeightsSource
from resnetkit.weights.layout import add_batch_counts
from resnetkit.weights.network import TrainedNetwork, built, with_remarks
from resnetkit.weights.tensors import Tensors

__all__ = ["AKAMASTER"]

CONVENTION = Convention(
    {
        "block": ("basic",),
        "widths": ((16, 32, 64),),
        "stem": ("3x3",),
        "shortcut": ("A", "B"),
        "padding": ("split",),
        "preactivation": (False,),
        "norm": ("batch",),
        "norm_eps": (1e-5,),
        "in_channels": (3,),
    },
    stages=3,
    normalization=IMAGENET_NORMALIZATION,
    view=((32, 32), 1.0),
    data="CIFAR-10",
)


def is_akamaster(source: WeightsSource) -> bool:
    """Returns whether the tensors of a file are named as in that repository."""
    if source.configuration is not None:
        return False
    names = set(source.state.tensors)
    return {"conv1.weight", "linear.weight", "layer3.0.conv1.weight"} <= names and (
        "layer4.0.conv1.weight" not in names
    )


def load_akamaster(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of one of these files.

    Raises:
        WeightsError: if the tensors are not exactly those of one of the paper's networks.
    """
    path, state = source.path, source.state.tensors
    tensors = {our_name(name): tensor for name, tensor in state.items()}
    if len(tensors) != len(state):
        raise WeightsError(f"{path} names a tensor twice, also by torchvision's name.")
    architecture = architecture_of(path, tensors)
    add_batch_counts(tensors)
    sides = "zeros on both sides" if architecture.shortcut == "A" else "projections"
    depth = 2 + sum(2 * count for count in architecture.depths)
    network = TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=IMAGENET_NORMALIZATION,
        class_names=implied_classes("CIFAR-10", architecture.num_classes),
        image_size=(32, 32),
        crop_pct=1.0,
        data="",
        origin=(
            f"ResNet-{depth} of akamaster/pytorch_resnet_cifar10: shortcuts of option"
            f" {architecture.shortcut} ({sides}), images normalized with the constants of ImageNet"
        ),
        format="akamaster",
        resize=FULL,
    )
    return with_remarks(network, source.state)


def our_name(name: str) -> str:
    """Returns our name of one of their tensors."""
    return re.sub(r"^linear\.", "fc.", name.replace(".shortcut.", ".downsample."))


def their_name(name: str) -> str:
    """Returns their name of one of our tensors."""
    return "module." + re.sub(r"^fc\.", "linear.", name.replace(".downsample.", ".shortcut."))


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
            f"{path} looks like a network of akamaster/pytorch_resnet_cifar10, but is not: {error}"
        ) from error


def akamaster_bytes(network: TrainedNetwork, path: Path) -> bytes:
    """Returns a `.th` file as their training writes it.

    Raises:
        WeightsError: if the stages differ in depth.
    """
    depths = network.architecture.depths
    if len(set(depths)) != 1:
        raise WeightsError(
            f"akamaster's networks have stages of equal depth: this one has {depths}."
        )
    state = network.model.state_dict()
    stream = BytesIO()
    torch.save(
        {"state_dict": {their_name(name): tensor.cpu() for name, tensor in state.items()}},
        stream,
        _use_new_zipfile_serialization=False,
    )
    return stream.getvalue()


AKAMASTER = Format("akamaster", CONVENTION, is_akamaster, load_akamaster, akamaster_bytes)
