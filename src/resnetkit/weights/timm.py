"""Weights of timm: torchvision's state_dict in a folder, with a config.json that describes it."""

import re
from pathlib import Path

from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.models.zoo import known_as
from resnetkit.resizing import INTERPOLATIONS, Resize
from resnetkit.weights.configuration import (
    IMPOSSIBLE,
    JsonObject,
    constants,
    corrupt,
    counts,
    fraction,
    image_side,
    json_bytes,
    json_object,
    texts,
)
from resnetkit.weights.conventions import (
    IMAGENET_OPTIONS,
    crop_for_floor,
    fractions,
    imagenet_classes,
)
from resnetkit.weights.format import Convention, Format, WeightsSource
from resnetkit.weights.heads import with_our_head
from resnetkit.weights.network import TrainedNetwork, built, with_remarks
from resnetkit.weights.tensors import safetensors_bytes
from resnetkit.weights.torchvision import network_of, stride_phrase, variant_metadata

__all__ = ["TIMM"]

CONVENTION = Convention({**IMAGENET_OPTIONS, "stride_in": ("3x3",)}, names_classes=True)

PLAIN_NAMES = re.compile(
    r"(?:tv_|gluon_|ssl_|swsl_|ig_)?((?:resnet|resnext|wide_resnet)\d+(?:_\d+x\d+d|_2)?)(?:_v1b)?"
)
"""timm's names of networks that compute the same as torchvision's. Most others (resnet50d,
resnetblur50, resnetaa50) compute something else, some of them with the same tensors."""


FLAT_KEYS = {"architecture", "input_size", "mean", "std", "first_conv", "classifier"}
"""Keys of an older config.json, which has those of `pretrained_cfg` not in an object of their own,
and `labels` in place of `label_names` (timm.models._hub)."""


def is_timm(source: WeightsSource) -> bool:
    """Returns whether a config.json is one of timm's."""
    config = source.configuration
    return config is not None and ("pretrained_cfg" in config or set(config) >= FLAT_KEYS)


def nested(config: JsonObject) -> JsonObject:
    """Returns a configuration in the present form."""
    if "pretrained_cfg" in config:
        return config
    return {**config, "pretrained_cfg": {"label_names": config.get("labels"), **config}}


def load_timm(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of a config.json and the weights next to it.

    Raises:
        WeightsError: if it is not one of timm's plain networks, or a file is missing.
    """
    configuration, config = source.path, nested(source.config)
    name = config.get("architecture")
    plain = PLAIN_NAMES.fullmatch(name) if isinstance(name, str) else None
    if plain is None:
        raise WeightsError(
            f"{configuration} is of timm's '{name}', which does not compute the same as the"
            " networks of resnetkit. Expected a plain network: resnet18 to resnet152,"
            " resnext50_32x4d or wide_resnet50_2."
        )
    refuse_changes(configuration, config)
    path, state = source.weights, with_our_head(source.weights, source.state)
    architecture, tensors, has_head = network_of(path, state.tensors, "v1.5")
    actual = known_as(architecture)
    if actual and actual != plain[1]:
        raise WeightsError(f"{configuration} names '{name}', but {path} holds a {actual}.")
    try:
        cfg = json_object(config["pretrained_cfg"])
        normalization, size = preprocessing(cfg, architecture.in_channels)
        crop = cfg.get("crop_pct")
        crop_pct = fraction(0.875 if crop is None else crop)
        resize = timm_resize(configuration, cfg)
        class_names = class_names_of(config, architecture.num_classes) if has_head else ()
    except IMPOSSIBLE as error:
        raise corrupt(configuration, error) from error
    network = TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=normalization,
        class_names=class_names,
        image_size=size,
        data="",
        origin=(
            f"{name} of timm{stride_phrase(architecture, ' as in timm')}, images in RGB normalized"
            " with the constants of its config.json"
        ),
        format="timm",
        has_head=has_head,
        crop_pct=crop_pct,
        resize=resize,
    )
    return with_remarks(network, state)


def timm_resize(configuration: Path, cfg: JsonObject) -> Resize:
    """Returns how timm resizes an image in evaluation (timm.data.transforms_factory).

    Raises:
        WeightsError: if it pads images, or uses an unknown filter.
    """
    mode = cfg.get("crop_mode") or "center"
    name = cfg.get("interpolation") or "bicubic"  # timm's default
    if mode != "center" and mode != "squash":
        raise WeightsError(
            f"{configuration} has crop_mode {mode!r}: expected center or squash, since resnetkit"
            " does not pad images."
        )
    interpolation = next((option for option in INTERPOLATIONS if option == name), None)
    if interpolation is None:
        raise WeightsError(
            f"{configuration} has interpolation {name!r}: expected one of"
            f" {', '.join(INTERPOLATIONS)}."
        )
    return Resize(interpolation, "center" if mode == "center" else "squash", "floor", draft=False)


def refuse_changes(configuration: Path, config: JsonObject) -> None:
    """Raises WeightsError for a configuration that changes what a plain network computes."""
    changes = config.get("model_args") or {}
    harmless = {"in_chans", "num_classes", "global_pool"}
    others = sorted(set(changes) - harmless) if isinstance(changes, dict) else [str(changes)]
    pools = [config.get("global_pool", "avg")]
    pools += [changes.get("global_pool", "avg")] if isinstance(changes, dict) else []
    if others or any(pool != "avg" for pool in pools):
        raise WeightsError(
            f"{configuration} changes the network ({', '.join(others) or 'global_pool'}), which"
            " then does not compute the same. Expected a configuration without model_args."
        )


def preprocessing(cfg: JsonObject, channels: int) -> tuple[Normalization, tuple[int, int]]:
    """Returns normalization and image size of a pretrained_cfg."""
    inputs, *size = counts(cfg.get("input_size", (channels, 224, 224)))
    if inputs != channels:
        raise ValueError(f"input_size has {inputs} channel(s), the weights have {channels}")
    return constants(cfg["mean"], cfg["std"], channels), image_side(size)


def class_names_of(config: JsonObject, num_classes: int) -> tuple[str, ...]:
    """Returns the class names of a configuration, or ImageNet's for 1000 classes without names."""
    stated = config.get("num_classes", num_classes)
    if stated not in (num_classes, 0):
        raise ValueError(f"num_classes is {str(stated)[:50]}, the weights have {num_classes}")
    names = config.get("label_names") or json_object(config["pretrained_cfg"]).get("label_names")
    if not names:
        return imagenet_classes(num_classes)
    class_names = texts(names)
    if len(class_names) != num_classes:
        raise ValueError(f"there are {len(class_names)} label_names for {num_classes} classes")
    return class_names


def timm_files(network: TrainedNetwork, path: Path) -> dict[str, bytes]:
    """Returns the files of a folder that timm reads.

    Raises:
        WeightsError: if timm has no network with these blocks.
    """
    architecture = network.architecture
    name = known_as(architecture)
    if not name:
        raise WeightsError(
            f"timm has no network with {architecture.depths} blocks of widths"
            f" {architecture.widths}: export it as transformers or resnetkit."
        )
    config: dict[str, object] = {
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
        config["label_names"] = list(network.class_names)
    return {
        "config.json": json_bytes(config),
        "model.safetensors": safetensors_bytes(
            network.model.state_dict(), variant_metadata(network)
        ),
    }


TIMM = Format("timm", CONVENTION, is_timm, load_timm, timm_files)
