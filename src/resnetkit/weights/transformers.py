"""Weights of Hugging Face transformers: a folder with config.json and the tensors.

What differs from torchvision: the names, and a complete configuration, which states the variant too
(`downsample_in_bottleneck`).
"""

from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.models.zoo import Architecture, known_as
from resnetkit.weights.configuration import (
    IMPOSSIBLE,
    JsonObject,
    corrupt,
    json_bytes,
    json_object,
    texts,
)
from resnetkit.weights.conventions import IMAGENET_OPTIONS, UNGROUPED, imagenet_classes
from resnetkit.weights.format import Convention, Format, WeightsSource
from resnetkit.weights.layout import (
    STEM,
    Layer,
    add_batch_counts,
    layers_in,
    our_names,
    recognized,
    with_head,
)
from resnetkit.weights.network import TrainedNetwork, built, with_remarks
from resnetkit.weights.processors import PREPROCESSOR, preprocessing, processor_config
from resnetkit.weights.tensors import Tensors, safetensors_bytes
from resnetkit.weights.variants import variant_of

__all__ = ["TRANSFORMERS"]

CONVENTION = Convention(
    {**IMAGENET_OPTIONS, **UNGROUPED}, stages=0, offset="floor", names_classes=True
)

HEAD = "classifier.1"


def names(layer: Layer) -> tuple[str, str]:
    """Returns transformers' names of a convolution and its normalization."""
    if layer == STEM:
        prefix = "resnet.embedder.embedder"
    else:
        block = f"resnet.encoder.stages.{layer.stage - 1}.layers.{layer.block}"
        prefix = f"{block}.layer.{layer.number - 1}" if layer.number else f"{block}.shortcut"
    return f"{prefix}.convolution", f"{prefix}.normalization"


def is_transformers(source: WeightsSource) -> bool:
    """Returns whether a config.json, or the names of tensors, are those of transformers."""
    if source.configuration is not None:
        return "model_type" in source.configuration
    stem = "embedder.embedder.convolution.weight"
    return any(name.endswith(stem) for name in source.state.tensors)


def load_transformers(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of a config.json and the weights next to it.

    Raises:
        WeightsError: if it is not a ResNet, does not compute the same as ours, or a file is
            missing.
    """
    if source.configuration is None:
        raise WeightsError(
            f"{source.path} has the names of Hugging Face transformers, but their config.json"
            " is not next to it: complete the folder, and give the path of the folder."
        )
    configuration, config = source.path, source.configuration
    refuse_others(configuration, config)
    path, state = source.weights, source.state
    tensors = renamed(path, state.tensors)
    add_batch_counts(tensors)
    has_head = with_head(path, tensors)
    v1 = config.get("downsample_in_bottleneck", False)
    architecture = recognized(path, tensors, stride_in="1x1" if v1 else "3x3")
    check_shapes(configuration, config, architecture)
    processor = configuration.with_name(PREPROCESSOR)
    view = preprocessing(processor, architecture.in_channels)
    try:
        class_names = class_names_of(config, architecture.num_classes) if has_head else ()
    except IMPOSSIBLE as error:
        raise corrupt(configuration, error) from error
    variant = variant_of(architecture)
    network = TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=view.normalization,
        class_names=class_names,
        image_size=view.size,
        data="",
        crop_pct=view.crop_pct,
        resize=view.resize,
        origin=(
            f"{known_as(architecture) or 'a residual network'} of Hugging Face transformers"
            f"{variant and f', {variant} (stride in the {architecture.stride_in}) as its config'}"
            f"{variant and '.json says'}, images in RGB"
            f"{'' if processor.exists() else f' as for ImageNet, since there is no {PREPROCESSOR}'}"
        ),
        format="transformers",
        has_head=has_head,
    )
    return with_remarks(network, state)


def refuse_others(configuration: Path, config: JsonObject) -> None:
    """Raises WeightsError for networks that do not compute the same as ours."""
    expected = {
        "model_type": ("resnet",),
        "hidden_act": ("relu",),
        "downsample_in_first_stage": (False,),
        "downsample_in_bottleneck": (False, True),
        "layer_type": ("basic", "bottleneck"),
    }
    for key, allowed in expected.items():
        if key in config and config[key] not in allowed:
            raise WeightsError(
                f"{configuration} has {key} {config[key]!r}: resnetkit reads networks with"
                f" {' or '.join(map(repr, allowed))}."
            )


def renamed(path: Path, state: Tensors) -> Tensors:
    """Returns tensors by our names; a tensor that is not of the network keeps its name."""
    if not any(name.startswith("resnet.") for name in state):  # saved without a head
        state = {f"resnet.{name}": tensor for name, tensor in state.items()}
    modules = {HEAD: "fc"}
    for layer in layers_in({name.rpartition(".")[0] for name in state}, names):
        modules.update(zip(names(layer), our_names(layer), strict=True))
    tensors: Tensors = {}
    for name, tensor in state.items():
        module, _, parameter = name.rpartition(".")
        ours = f"{modules[module]}.{parameter}" if module in modules else name
        if ours in tensors:
            raise WeightsError(f"{path} has no use for '{name}': it has '{ours}' as well.")
        tensors[ours] = tensor
    return tensors


def check_shapes(configuration: Path, config: JsonObject, architecture: Architecture) -> None:
    """Checks that config.json describes the network that the tensors make up."""
    for key, actual in shapes_of(architecture).items():
        stated = config.get(key, actual)
        if stated != actual:
            raise WeightsError(
                f"{configuration} states {key} {stated}, but the weights next to it have {actual}."
            )


def shapes_of(architecture: Architecture) -> dict[str, object]:
    """Returns the entries of config.json that describe the shapes of a network."""
    expansion = 4 if architecture.block == "bottleneck" else 1
    return {
        "num_channels": architecture.in_channels,
        "embedding_size": architecture.widths[0],
        "hidden_sizes": [width * expansion for width in architecture.widths],
        "depths": list(architecture.depths),
        "layer_type": architecture.block,
    }


def class_names_of(config: JsonObject, num_classes: int) -> tuple[str, ...]:
    """Returns the class names of a configuration, or ImageNet's for 1000 classes without names."""
    labels = json_object(config.get("id2label") or {})
    if missing := [number for number in range(len(labels)) if str(number) not in labels]:
        raise ValueError(f"id2label names {len(labels)} classes, but not the class {missing[0]}")
    names = texts([labels[str(number)] for number in range(len(labels))])
    if not names or names == tuple(f"LABEL_{number}" for number in range(len(labels))):
        return imagenet_classes(num_classes)
    if len(names) != num_classes:
        raise ValueError(f"id2label names {len(names)} classes, the weights have {num_classes}")
    check_numbering(config, names)
    return names


def check_numbering(config: JsonObject, class_names: tuple[str, ...]) -> None:
    """Raises ValueError if entries of config.json contradict the numbers of the classes."""
    stated = config.get("num_labels", len(class_names))
    if stated != len(class_names):
        raise ValueError(f"num_labels is {str(stated)[:50]}, id2label names {len(class_names)}")
    names = {str(number): name for number, name in enumerate(class_names)}
    for label, number in json_object(config.get("label2id") or {}).items():
        if names.get(str(number)) != label:
            raise ValueError(f"id2label and label2id disagree on the class {str(number)[:50]}")


def transformers_files(network: TrainedNetwork, path: Path) -> dict[str, bytes]:
    """Returns the files of a folder that transformers reads."""
    architecture = network.architecture
    labels = network.class_names or [
        f"LABEL_{number}" for number in range(architecture.num_classes)
    ]
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        **shapes_of(architecture),
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": variant_of(architecture) == "v1",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    return {
        "config.json": json_bytes(config),
        PREPROCESSOR: json_bytes(processor_config(network)),
        "model.safetensors": safetensors_bytes(their_state(network), {}),
    }


def their_state(network: TrainedNetwork) -> Tensors:
    """Returns the tensors of a network by transformers' names."""
    state = network.model.state_dict()
    modules = {"fc": HEAD}
    for layer in layers_in({name.rpartition(".")[0] for name in state}, our_names):
        modules.update(zip(our_names(layer), names(layer), strict=True))
    return {
        f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in state.items()
    }


TRANSFORMERS = Format(
    "transformers", CONVENTION, is_transformers, load_transformers, transformers_files
)
