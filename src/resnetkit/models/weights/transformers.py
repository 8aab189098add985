"""Weights of Hugging Face transformers: a folder with config.json and the tensors.

What makes them different: other names, and a configuration that says everything, the variant too
(`downsample_in_bottleneck`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.models.weights.checkpoints import read_state
from resnetkit.models.weights.configuration import (
    IMPOSSIBLE,
    constants,
    counts,
    damaged,
    image_side,
    json_bytes,
    read_configuration,
    share,
    texts,
    weights_beside,
)
from resnetkit.models.weights.conventions import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    crop_for_floor,
    fractions,
    imagenet_classes,
    variant_of,
)
from resnetkit.models.weights.layout import (
    STEM,
    Layer,
    add_batch_counts,
    layers_in,
    our_names,
    recognised,
    with_head,
)
from resnetkit.models.weights.network import TrainedNetwork, built
from resnetkit.models.weights.tensors import (
    Tensors,
    safetensors_bytes,
)
from resnetkit.models.zoo import Architecture, known_as
from resnetkit.resizing import BILINEAR, INTERPOLATIONS, Resize

__all__ = ["is_transformers", "is_transformers_state", "load_transformers", "transformers_files"]

HEAD = "classifier.1"
PREPROCESSOR = "preprocessor_config.json"


def names(layer: Layer) -> tuple[str, str]:
    """Returns transformers' names of a convolution and its normalisation."""
    if layer == STEM:
        place = "resnet.embedder.embedder"
    else:
        block = f"resnet.encoder.stages.{layer.stage - 1}.layers.{layer.block}"
        place = f"{block}.layer.{layer.number - 1}" if layer.number else f"{block}.shortcut"
    return f"{place}.convolution", f"{place}.normalization"


def is_transformers(facts: dict[str, Any]) -> bool:
    """Returns whether a config.json is of one of transformers' networks."""
    return "model_type" in facts


def is_transformers_state(tensors: Tensors) -> bool:
    """Returns whether tensors have the names of transformers' ResNet, with head or without."""
    stem = "embedder.embedder.convolution.weight"
    return any(name.endswith(stem) for name in tensors)


def load_transformers(configuration: Path, facts: dict[str, Any]) -> TrainedNetwork:
    """Builds the network from the weights that lie beside its config.json.

    Raises:
        WeightsError: when it is no ResNet, computes otherwise than ours, or something is missing.
    """
    refuse_others(configuration, facts)
    path = weights_beside(configuration)
    tensors = renamed(path, read_state(path).tensors)
    add_batch_counts(tensors)
    has_head = with_head(path, tensors)
    v1 = facts.get("downsample_in_bottleneck", False)
    architecture = recognised(path, tensors, stride_in="1x1" if v1 else "3x3")
    check_facts(configuration, facts, architecture)
    try:
        shown = preprocessing(configuration.with_name(PREPROCESSOR), architecture)
        class_names = names_of_classes(facts, architecture.num_classes)
    except IMPOSSIBLE as error:
        raise damaged(configuration, error) from error
    variant = variant_of(architecture)
    return TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        mean=shown.mean,
        std=shown.std,
        class_names=class_names,
        image_size=shown.size,
        data="",
        shown=shown.shown,
        resize=shown.resize,
        origin=(
            f"{known_as(architecture) or 'a residual network'} of Hugging Face transformers"
            f"{variant and f', {variant} (stride in the {architecture.stride_in}) as its config'}"
            f"{variant and '.json says'}, images in RGB"
        ),
        format="transformers",
        has_head=has_head,
    )


def refuse_others(configuration: Path, facts: dict[str, Any]) -> None:
    """Raises WeightsError for networks that are not ours under other names."""
    expected = {
        "model_type": ("resnet",),
        "hidden_act": ("relu",),
        "downsample_in_first_stage": (False,),
        "downsample_in_bottleneck": (False, True),
        "layer_type": ("basic", "bottleneck"),
    }
    for key, allowed in expected.items():
        if key in facts and facts[key] not in allowed:
            raise WeightsError(
                f"{configuration} has {key} {facts[key]!r}: resnetkit reads networks with"
                f" {' or '.join(map(repr, allowed))}."
            )


def renamed(path: Path, state: Tensors) -> Tensors:
    """Returns tensors under our names; one that has no place in the network keeps its own."""
    places = {HEAD: "fc"}
    for layer in layers_in({name.rpartition(".")[0] for name in state}, names):
        places.update(zip(names(layer), our_names(layer), strict=True))
    tensors: Tensors = {}
    for name, tensor in state.items():
        place, _, part = name.rpartition(".")
        ours = f"{places[place]}.{part}" if place in places else name
        if ours in tensors:
            raise WeightsError(f"{path} has no use for '{name}': '{ours}' is there already.")
        tensors[ours] = tensor
    return tensors


def check_facts(configuration: Path, facts: dict[str, Any], architecture: Architecture) -> None:
    """Checks that config.json describes the network that the tensors make up."""
    for key, own in described(architecture).items():
        said = facts.get(key, own)
        if (list(said) if isinstance(said, list | tuple) else said) != own:
            raise WeightsError(
                f"{configuration} says that {key} is {said}, but the weights beside it have {own}."
            )


def described(architecture: Architecture) -> dict[str, Any]:
    """Returns what config.json says of a network's shapes."""
    expansion = 4 if architecture.block == "bottleneck" else 1
    return {
        "num_channels": architecture.in_channels,
        "embedding_size": architecture.widths[0],
        "hidden_sizes": [width * expansion for width in architecture.widths],
        "depths": list(architecture.depths),
        "layer_type": architecture.block,
    }


@dataclass(frozen=True)
class Preprocessing:
    """What a preprocessor_config.json does to an image.

    Attributes:
        mean: float32 (C, 1, 1), for pixels of 0 to 255.
        std: likewise.
        size: height and width in pixels.
        shown: part of the resized shorter side that is shown.
        resize: how it is resized.
    """

    mean: Tensor
    std: Tensor
    size: tuple[int, int] = (224, 224)
    shown: float = 0.875
    resize: Resize = BILINEAR


SQUASHED_FROM = 384  # pixels: ConvNextImageProcessor then resizes both sides and cuts nothing


def preprocessing(path: Path, architecture: Architecture) -> Preprocessing:
    """Returns what the preprocessor_config.json next to a network says, if there is one.

    Raises:
        WeightsError: when it does what resnetkit does not, with the reason.
        ValueError: when a value cannot be.
    """
    channels = architecture.in_channels
    if not path.is_file():
        return Preprocessing(*constants(IMAGENET_MEAN, IMAGENET_STD, channels))
    facts = read_configuration(path)
    refuse_steps(path, facts)
    mean, std = constants_of(facts, channels)
    numbers = dict(enumerate(INTERPOLATIONS))
    if facts.get("resample", 2) not in numbers:
        raise ValueError(f"resample is {facts['resample']!r}, no filter of Pillow")
    # Its class resizes bilinearly where the file says nothing, as most of transformers' do.
    interpolation = numbers[facts.get("resample", 2)]
    size, shown, mode = geometry(facts)
    return Preprocessing(mean, std, size, shown, Resize(interpolation, mode, "floor", "floor"))


def refuse_steps(path: Path, facts: dict[str, Any]) -> None:
    """Raises WeightsError for what is done to images that resnetkit does not do."""
    refused = {
        "do_resize": (False, "images of any size would be shown as they are"),
        "do_flip_channel_order": (True, "blue would come first"),
        "do_pad": (True, "borders would be added"),
        "do_grayscale": (True, "colors would be lost"),
    }
    for key, (value, words) in refused.items():
        if facts.get(key) is value:
            raise WeightsError(f"{path} has {key} {value}: {words}, which resnetkit does not do.")


def constants_of(facts: dict[str, Any], channels: int) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation for pixels of 0 to 255.

    (factor * x - mean) / std is (x - mean / factor) / (std / factor).
    """
    factor = facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise ValueError(f"rescale_factor is {factor!r}, expected a number above 0, up to 1")
    mean, std = [0.0] * channels, [1.0] * channels
    if facts.get("do_normalize", True):
        mean, std = facts.get("image_mean", IMAGENET_MEAN), facts.get("image_std", IMAGENET_STD)
    if abs(factor * 255 - 1) < 1e-9:
        return constants(mean, std, channels)
    mean, std = ([float(value) / factor / 255 for value in values] for values in (mean, std))
    return constants(mean, std, channels)


def geometry(
    facts: dict[str, Any],
) -> tuple[tuple[int, int], float, Literal["center", "squash"]]:
    """Returns size, part of the shorter side that is shown, and how images are resized.

    Source: transformers' ConvNextImageProcessor, ViTImageProcessor and those that cut out the
    middle (BitImageProcessor and its like).
    """
    kind = str(facts.get("image_processor_type") or facts.get("feature_extractor_type") or "")
    size = facts.get("size", 224)
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    if facts.get("do_center_crop"):
        crop = facts.get("crop_size", size)
        crop = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        shape = image_side((crop["height"], crop["width"]))
        (edge,) = counts([edge])
        if max(shape) > edge:
            raise ValueError(f"{max(shape)} pixels cannot be cut out of {edge}")
        return shape, share(max(shape) / edge), "center"
    if isinstance(size, dict) and edge is None:
        return image_side((size["height"], size["width"])), 1.0, "squash"
    shape = image_side((edge, edge))
    if kind.startswith("ViT") or ("ConvNext" in kind and shape[0] >= SQUASHED_FROM):
        return shape, 1.0, "squash"
    crop_pct = facts.get("crop_pct") or 224 / 256
    return shape, share(crop_pct), "center"


def names_of_classes(facts: dict[str, Any], count: int) -> tuple[str, ...]:
    """Returns the names that config.json gives, else ImageNet's where they fit."""
    named = facts.get("id2label") or {}
    found = texts([named[str(number)] for number in range(len(named))])
    if not found or found == tuple(f"LABEL_{number}" for number in range(len(named))):
        return imagenet_classes(count)
    if len(found) != count:
        raise ValueError(f"id2label names {len(found)} classes, the weights have {count}")
    return found


def transformers_files(network: TrainedNetwork) -> dict[str, bytes]:
    """Returns the files of a folder that transformers reads."""
    architecture = network.architecture
    labels = network.class_names or [
        f"LABEL_{number}" for number in range(architecture.num_classes)
    ]
    facts = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        **described(architecture),
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": variant_of(architecture) == "v1",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    processor = {
        **processor_geometry(network),
        "do_resize": True,
        "resample": INTERPOLATIONS.index(network.resize.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": fractions(network.mean),
        "image_std": fractions(network.std),
    }
    return {
        "config.json": json_bytes(facts),
        PREPROCESSOR: json_bytes(processor),
        "model.safetensors": safetensors_bytes(their_state(network), {}),
    }


def processor_geometry(network: TrainedNetwork) -> dict[str, Any]:
    """Returns which of transformers' processors shows images as a network is shown them.

    Raises:
        WeightsError: when none does.
    """
    height, width = network.image_size
    side = network.resize.side(max(height, width), network.shown)
    if network.resize.mode == "squash" and side == max(height, width):
        return {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": height, "width": width},
        }
    if network.resize.mode == "squash" or height != width:
        raise WeightsError(
            f"transformers has no processor that shows images of {height}x{width} pixels,"
            f" {network.shown:g} of a side, {network.resize.mode}: export it as timm or resnetkit."
        )
    if height < SQUASHED_FROM:
        return {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": height},
            "crop_pct": crop_for_floor(network),
        }
    return {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": side},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }


def their_state(network: TrainedNetwork) -> Tensors:
    """Returns the tensors of a network under transformers' names."""
    state = network.model.state_dict()
    places = {"fc": HEAD}
    for layer in layers_in({name.rpartition(".")[0] for name in state}, our_names):
        places.update(zip(our_names(layer), names(layer), strict=True))
    return {
        f"{places[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in state.items()
    }
