"""Weights of torchvision and timm: our own names, in a state_dict alone or beside timm's config.

Both stride in the 3x3 convolution (v1.5); others publish the same layout with v1, and the tensors
do not tell. What we write in safetensors says it in an entry of the header.
"""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.models.zoo import Architecture, known_as
from resnetkit.resizing import FULL, INTERPOLATIONS, Resize
from resnetkit.weights.checkpoints import read_state
from resnetkit.weights.configuration import (
    IMPOSSIBLE,
    constants,
    counts,
    damaged,
    fraction,
    image_side,
    json_bytes,
    texts,
    weights_beside,
)
from resnetkit.weights.conventions import (
    CONVENTIONS,
    VARIANTS,
    crop_for_floor,
    fractions,
    imagenet_classes,
    stride_named,
    variant_of,
)
from resnetkit.weights.heads import with_known_head
from resnetkit.weights.layout import add_batch_counts, recognized, with_head
from resnetkit.weights.network import TrainedNetwork, built, with_remarks
from resnetkit.weights.tensors import Tensors, read_metadata, safetensors_bytes

__all__ = [
    "is_timm",
    "is_torchvision",
    "load_timm",
    "load_torchvision",
    "timm_files",
    "torchvision_bytes",
]

VARIANT_KEY = "resnetkit.variant"

PLAIN_NAMES = re.compile(
    r"(?:tv_|gluon_|ssl_|swsl_|ig_)?((?:resnet|resnext|wide_resnet)\d+(?:_\d+x\d+d|_2)?)(?:_v1b)?"
)
"""timm's names of networks that compute as torchvision's do. Most others (resnet50d, resnetblur50,
resnetaa50) compute something else, some of them with the same tensors."""


def is_torchvision(tensors: Tensors) -> bool:
    """Returns whether the tensors of a file look like a state_dict of torchvision or timm."""
    names = set(tensors)
    stem = {"conv1.weight", "conv1.0.weight"} & names
    return bool(stem) and {"layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= names


def load_torchvision(path: Path, tensors: Tensors, variant: str | None) -> TrainedNetwork:
    """Builds the network from the tensors of a state_dict.

    Args:
        path: of the file.
        tensors: of the file.
        variant: v1 or v1.5 as it was named; empty where it was not.

    Raises:
        WeightsError: when the tensors are not exactly those of a network, or the variant is neither
            named nor in the file.
    """
    stored = read_metadata(path).get(VARIANT_KEY, "")
    if stored and stored not in VARIANTS:
        raise WeightsError(f"{path} says that its variant is '{stored}': expected v1 or v1.5.")
    architecture, tensors, has_head = understood(path, tensors, stored or variant)
    convention = CONVENTIONS["torchvision"]
    assert convention.mean is not None
    assert convention.std is not None
    source = " as the file says" if stored else " as named"
    channels = architecture.in_channels
    if channels != 3:
        raise WeightsError(
            f"{path} reads images of {channels} channel(s), for which the format has no constants:"
            " expected 3."
        )
    return TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        mean=convention.mean,
        std=convention.std,
        class_names=imagenet_classes(architecture.num_classes),
        image_size=(224, 224),
        data="",
        origin=(
            f"{known_as(architecture) or 'a residual network'} in the layout of torchvision"
            f"{stride_words(architecture, source)}, images in RGB normalized with the constants"
            " of ImageNet"
        ),
        format="torchvision",
        resize=FULL,
        has_head=has_head,
    )


def understood(
    path: Path, tensors: Tensors, variant: str | None
) -> tuple[Architecture, Tensors, bool]:
    """Returns the network of a state_dict, all its tensors, and whether it has a head.

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
    """Raises WeightsError for timm's variants whose stem or shortcuts are others."""
    if "conv1.0.weight" in tensors or any(".downsample.2." in name for name in tensors):
        raise WeightsError(
            f"{path} is one of timm's networks with a deep stem or pooling shortcuts (its names end"
            " in c, d, s or t): resnetkit has no such network. Expected a plain one, such as"
            " resnet50."
        )


def stride_words(architecture: Architecture, source: str) -> str:
    """Returns words on the variant; none for networks that know no difference."""
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
    """Returns what we write into safetensors so that v1 and v1.5 are told apart."""
    variant = variant_of(network.architecture)
    return {VARIANT_KEY: variant} if variant else {}


def is_timm(facts: dict[str, Any]) -> bool:
    """Returns whether a config.json is one of timm's."""
    return "pretrained_cfg" in facts


def load_timm(configuration: Path, facts: dict[str, Any]) -> TrainedNetwork:
    """Builds the network from the weights that lie beside timm's config.json.

    Raises:
        WeightsError: when it is not one of timm's plain networks, or something is missing.
    """
    name = facts.get("architecture")
    plain = PLAIN_NAMES.fullmatch(name) if isinstance(name, str) else None
    if plain is None:
        raise WeightsError(
            f"{configuration} is of timm's '{name}', which computes otherwise than resnetkit's"
            " networks. Expected a plain one: resnet18 to resnet152, resnext50_32x4d or"
            " wide_resnet50_2."
        )
    refuse_changes(configuration, facts)
    path = weights_beside(configuration)
    state = with_known_head(path, read_state(path))
    architecture, tensors, has_head = understood(path, state.tensors, "v1.5")
    found = known_as(architecture)
    if found and found != plain[1]:
        raise WeightsError(f"{configuration} says '{name}', but {path} holds a {found}.")
    try:
        mean, std, size = preprocessing(facts["pretrained_cfg"], architecture.in_channels)
        crop = facts["pretrained_cfg"].get("crop_pct")
        crop_pct = fraction(0.875 if crop is None else crop)
        resize = timm_resize(configuration, facts["pretrained_cfg"])
        class_names = names_of_classes(facts, architecture.num_classes) if has_head else ()
    except IMPOSSIBLE as error:
        raise damaged(configuration, error) from error
    network = TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        mean=mean,
        std=std,
        class_names=class_names,
        image_size=size,
        data="",
        origin=(
            f"{name} of timm{stride_words(architecture, ' as in timm')}, images in RGB normalized"
            " with the constants of its config.json"
        ),
        format="timm",
        has_head=has_head,
        crop_pct=crop_pct,
        resize=resize,
    )
    return with_remarks(network, state)


def timm_resize(configuration: Path, facts: dict[str, Any]) -> Resize:
    """Returns how timm resizes an image in evaluation (timm.data.transforms_factory).

    Raises:
        WeightsError: when it fills borders, or with a filter that is not known.
    """
    mode: Any = facts.get("crop_mode") or "center"
    interpolation: Any = facts.get("interpolation") or "bicubic"  # as timm, where it is missing
    if mode not in ("center", "squash"):
        raise WeightsError(
            f"{configuration} has crop_mode {mode!r}: resnetkit shows the middle of an image, or"
            " squashes it. Expected center or squash."
        )
    if interpolation not in INTERPOLATIONS:
        raise WeightsError(
            f"{configuration} has interpolation {interpolation!r}: expected one of"
            f" {', '.join(INTERPOLATIONS)}."
        )
    return Resize(interpolation, mode, "floor", draft=False)


def refuse_changes(configuration: Path, facts: dict[str, Any]) -> None:
    """Raises WeightsError where timm's configuration changes how a plain network computes."""
    changes = facts.get("model_args") or {}
    harmless = {"in_chans", "num_classes", "global_pool"}
    others = sorted(set(changes) - harmless) if isinstance(changes, dict) else [str(changes)]
    pools = {facts.get("global_pool", "avg")}
    pools |= {changes.get("global_pool", "avg")} if isinstance(changes, dict) else set()
    if others or pools != {"avg"}:
        raise WeightsError(
            f"{configuration} changes the network ({', '.join(others) or 'global_pool'}), which"
            " then computes otherwise than resnetkit's. Expected one without model_args."
        )


def preprocessing(facts: dict[str, Any], channels: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Returns mean, deviation and image size of a pretrained_cfg."""
    inputs, *size = counts(facts.get("input_size", (channels, 224, 224)))
    if inputs != channels:
        raise ValueError(f"input_size has {inputs} channel(s), the weights have {channels}")
    return *constants(facts["mean"], facts["std"], channels), image_side(size)


def names_of_classes(facts: dict[str, Any], count: int) -> tuple[str, ...]:
    """Returns the names that timm's configuration gives, else ImageNet's where they fit."""
    said = facts.get("num_classes", count)
    if said not in (count, 0):
        raise ValueError(f"num_classes is {str(said)[:50]}, the weights have {count}")
    named = facts.get("label_names") or facts["pretrained_cfg"].get("label_names")
    if not named:
        return imagenet_classes(count)
    if len(named) != count:
        raise ValueError(f"there are {len(named)} label_names for {count} classes")
    return texts(named)


def timm_files(network: TrainedNetwork) -> dict[str, bytes]:
    """Returns the files of a folder that timm reads.

    Raises:
        WeightsError: when timm has no network of these blocks.
    """
    architecture = network.architecture
    name = known_as(architecture)
    if not name:
        raise WeightsError(
            f"timm has no network with {architecture.depths} blocks of widths"
            f" {architecture.widths}: export it as transformers or resnetkit."
        )
    facts: dict[str, Any] = {
        "architecture": name,
        "num_classes": architecture.num_classes,
        "num_features": network.model.fc.in_features,
        "pretrained_cfg": {
            "input_size": [architecture.in_channels, *network.image_size],
            "mean": fractions(network.mean),
            "std": fractions(network.std),
            "crop_pct": crop_for_floor(network),
            "interpolation": network.resize.interpolation,
            "crop_mode": network.resize.mode,
            "num_classes": architecture.num_classes,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
    if network.class_names:
        facts["label_names"] = list(network.class_names)
    return {
        "config.json": json_bytes(facts),
        "model.safetensors": safetensors_bytes(
            network.model.state_dict(), variant_metadata(network)
        ),
    }
