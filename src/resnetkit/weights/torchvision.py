"""Weights of torchvision: a state_dict, whose names are ours too.

Bottlenecks stride in the 3x3 convolution (v1.5); others publish the same layout with v1, and the
tensors do not tell. The safetensors files that resnetkit writes state it in their header.
"""

from io import BytesIO
from pathlib import Path

import torch

from resnetkit.errors import WeightsError
from resnetkit.models.zoo import Architecture, known_as
from resnetkit.resizing import FULL
from resnetkit.weights.conventions import (
    IMAGENET_NORMALIZATION,
    IMAGENET_OPTIONS,
    IMAGENET_VIEW,
    imagenet_classes,
)
from resnetkit.weights.format import Convention, Format, WeightsSource
from resnetkit.weights.heads import with_our_head
from resnetkit.weights.layout import add_batch_counts, check_rgb, recognized, with_head
from resnetkit.weights.network import TrainedNetwork, built, with_remarks
from resnetkit.weights.tensors import Tensors, read_metadata, safetensors_bytes
from resnetkit.weights.variants import VARIANTS, stride_named, variant_of

__all__ = ["TORCHVISION", "network_of", "stride_phrase", "variant_metadata"]

CONVENTION = Convention(
    {**IMAGENET_OPTIONS, "stride_in": ("3x3",), "in_channels": (3,)},
    normalization=IMAGENET_NORMALIZATION,
    view=IMAGENET_VIEW,
)
VARIANT_KEY = "resnetkit.variant"


def is_torchvision(source: WeightsSource) -> bool:
    """Returns whether the tensors of a file look like a state_dict of torchvision or timm."""
    if source.configuration is not None:
        return False
    names = set(source.state.tensors)
    stem = {"conv1.weight", "conv1.0.weight"} & names
    return bool(stem) and {"layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= names


def load_torchvision(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of a state_dict.

    Raises:
        WeightsError: if the tensors are not exactly those of a network, or neither the file nor the
            caller names the variant.
    """
    path, state = source.path, with_our_head(source.path, source.state)
    stored = read_metadata(path).get(VARIANT_KEY, "")
    if stored and stored not in VARIANTS:
        raise WeightsError(f"{path} states the variant '{stored}': expected v1 or v1.5.")
    architecture, tensors, has_head = network_of(path, state.tensors, stored or source.variant)
    reason = " as the file states" if stored else " as given"
    check_rgb(path, architecture)
    network = TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=IMAGENET_NORMALIZATION,
        class_names=imagenet_classes(architecture.num_classes),
        image_size=(224, 224),
        data="",
        origin=(
            f"{known_as(architecture) or 'a residual network'} in the layout of torchvision"
            f"{stride_phrase(architecture, reason)}, images in RGB normalized with the constants"
            " of ImageNet"
        ),
        format="torchvision",
        resize=FULL,
        has_head=has_head,
    )
    return with_remarks(network, state)


def network_of(
    path: Path, tensors: Tensors, variant: str | None
) -> tuple[Architecture, Tensors, bool]:
    """Returns the architecture of a state_dict, its tensors, and whether it has a head.

    A network without a head is given one of a single class, whose weights are zero.
    """
    tensors = dict(tensors)
    refuse_deep_stems(path, tensors)
    add_batch_counts(tensors)
    has_head = with_head(path, tensors)
    architecture = recognized(path, tensors)
    stride = stride_named(path, architecture.block, variant)
    return architecture.with_options(stride_in=stride), tensors, has_head


def refuse_deep_stems(path: Path, tensors: Tensors) -> None:
    """Raises WeightsError for timm's variants with another stem or other shortcuts."""
    if "conv1.0.weight" in tensors or any(".downsample.2." in name for name in tensors):
        raise WeightsError(
            f"{path} is one of timm's networks with a deep stem or pooling shortcuts (its names end"
            " in c, d, s or t): resnetkit has no such network. Expected a plain network,"
            " such as resnet50."
        )


def stride_phrase(architecture: Architecture, source: str) -> str:
    """Returns a phrase on the variant; empty if the network has no bottlenecks."""
    variant = variant_of(architecture)
    return variant and f", {variant} (stride in the {architecture.stride_in}){source}"


def torchvision_bytes(network: TrainedNetwork, path: Path) -> bytes:
    """Returns a state_dict: as safetensors where the path ends so, else as `torch.save` does."""
    state = {name: tensor.cpu() for name, tensor in network.model.state_dict().items()}
    if path.suffix == ".safetensors":
        return safetensors_bytes(state, variant_metadata(network))
    stream = BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def variant_metadata(network: TrainedNetwork) -> dict[str, str]:
    """Returns the metadata of safetensors that distinguishes v1 from v1.5."""
    variant = variant_of(network.architecture)
    return {VARIANT_KEY: variant} if variant else {}


TORCHVISION = Format("torchvision", CONVENTION, is_torchvision, load_torchvision, torchvision_bytes)
