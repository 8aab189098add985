"""Weights of Hugging Face transformers: a folder with config.json and the tensors.

What makes them different: other names, and a configuration that says everything, the variant too
(`downsample_in_bottleneck`).
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.models.weights.checkpoints import read_state
from resnetkit.models.weights.configuration import (
    IMPOSSIBLE,
    constants,
    damaged,
    image_side,
    json_bytes,
    read_configuration,
    texts,
    weights_beside,
)
from resnetkit.models.weights.conventions import (
    IMAGENET_MEAN,
    IMAGENET_STD,
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
        mean, std, size = preprocessing(configuration.with_name(PREPROCESSOR), architecture)
        class_names = names_of_classes(facts, architecture.num_classes)
    except IMPOSSIBLE as error:
        raise damaged(configuration, error) from error
    variant = variant_of(architecture)
    return TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        mean=mean,
        std=std,
        class_names=class_names,
        image_size=size,
        data="",
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


def preprocessing(path: Path, architecture: Architecture) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Returns mean, deviation and image size of a preprocessor_config.json, if there is one."""
    facts = read_configuration(path) if path.is_file() else {}
    mean, std = facts.get("image_mean", IMAGENET_MEAN), facts.get("image_std", IMAGENET_STD)
    return *constants(mean, std, architecture.in_channels), image_size(facts)


def image_size(facts: dict[str, Any]) -> tuple[int, int]:
    """Returns height and width of the images of a preprocessor_config.json."""
    size = facts.get("crop_size") if facts.get("do_center_crop") else facts.get("size", 224)
    if isinstance(size, dict):
        side = size.get("shortest_edge", 224)
        size = (size.get("height", side), size.get("width", side))
    return image_side(size if isinstance(size, list | tuple) else (size, size))


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
    height, width = network.image_size
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": height}
        if height == width
        else {"height": height, "width": width},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": fractions(network.mean),
        "image_std": fractions(network.std),
    }
    return {
        "config.json": json_bytes(facts),
        PREPROCESSOR: json_bytes(processor),
        "model.safetensors": safetensors_bytes(their_state(network), {}),
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
