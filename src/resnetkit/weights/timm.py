"""Weights of timm: torchvision's state_dict in a folder, with a config.json that describes it."""

import re
from pathlib import Path
from typing import Any

from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.models.zoo import known_as
from resnetkit.resizing import INTERPOLATIONS, Resize
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
    IMAGENET_OPTIONS,
    crop_for_floor,
    fractions,
    imagenet_classes,
)
from resnetkit.weights.format import Convention, Format, WeightsSource
from resnetkit.weights.heads import with_known_head
from resnetkit.weights.network import TrainedNetwork, built, with_remarks
from resnetkit.weights.tensors import safetensors_bytes
from resnetkit.weights.torchvision import network_of, stride_words, variant_metadata

__all__ = ["TIMM"]

CONVENTION = Convention({**IMAGENET_OPTIONS, "stride_in": ("3x3",)}, names_classes=True)

PLAIN_NAMES = re.compile(
    r"(?:tv_|gluon_|ssl_|swsl_|ig_)?((?:resnet|resnext|wide_resnet)\d+(?:_\d+x\d+d|_2)?)(?:_v1b)?"
)
"""timm's names of networks that compute as torchvision's do. Most others (resnet50d, resnetblur50,
resnetaa50) compute something else, some of them with the same tensors."""


def is_timm(source: WeightsSource) -> bool:
    """Returns whether a config.json is one of timm's."""
    return source.configuration is not None and "pretrained_cfg" in source.configuration


def load_timm(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of a config.json and the weights next to it.

    Raises:
        WeightsError: if it is not one of timm's plain networks, or a file is missing.
    """
    configuration, facts = source.path, source.facts
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
    architecture, tensors, has_head = network_of(path, state.tensors, "v1.5")
    found = known_as(architecture)
    if found and found != plain[1]:
        raise WeightsError(f"{configuration} says '{name}', but {path} holds a {found}.")
    try:
        normalization, size = preprocessing(facts["pretrained_cfg"], architecture.in_channels)
        crop = facts["pretrained_cfg"].get("crop_pct")
        crop_pct = fraction(0.875 if crop is None else crop)
        resize = timm_resize(configuration, facts["pretrained_cfg"])
        class_names = names_of_classes(facts, architecture.num_classes) if has_head else ()
    except IMPOSSIBLE as error:
        raise damaged(configuration, error) from error
    network = TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=normalization,
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


def preprocessing(facts: dict[str, Any], channels: int) -> tuple[Normalization, tuple[int, int]]:
    """Returns normalization and image size of a pretrained_cfg."""
    inputs, *size = counts(facts.get("input_size", (channels, 224, 224)))
    if inputs != channels:
        raise ValueError(f"input_size has {inputs} channel(s), the weights have {channels}")
    return constants(facts["mean"], facts["std"], channels), image_side(size)


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


def timm_files(network: TrainedNetwork, path: Path) -> dict[str, bytes]:
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
            "mean": fractions(network.normalization.mean),
            "std": fractions(network.normalization.std),
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


TIMM = Format("timm", CONVENTION, is_timm, load_timm, timm_files)
