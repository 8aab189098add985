"""Our own format: the folder `model/` of a finished run."""

import hashlib
import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from resnetkit.data.normalization import Normalization
from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.zoo import Architecture, known_as
from resnetkit.resizing import Resize
from resnetkit.weights.configuration import (
    IMPOSSIBLE,
    check_mistake,
    counts,
    damaged,
    fraction,
    image_side,
    json_bytes,
    texts,
)
from resnetkit.weights.format import Format, WeightsSource
from resnetkit.weights.network import TrainedNetwork, built
from resnetkit.weights.tensors import (
    Tensors,
    check_values,
    read_content,
    read_tensors,
    safetensors_bytes,
)

__all__ = ["RESNETKIT", "model_folder_files"]

OWN_KEYS = {"layers", "class_names", "image_size"}


def is_resnetkit(source: WeightsSource) -> bool:
    """Returns whether a config.json is one that resnetkit has written."""
    return source.configuration is not None and set(source.configuration) >= OWN_KEYS


def load_resnetkit(source: WeightsSource) -> TrainedNetwork:
    """Loads a network that `resnet train` has finished.

    Raises:
        WeightsError: if a file is missing, corrupt or of another network.
    """
    folder, facts = source.path.parent, source.facts
    check_digests(folder, facts)
    weights, preprocessing = folder / "model.safetensors", folder / "preprocessing.safetensors"
    tensors = read_tensors(weights)
    normalization = normalization_of(preprocessing, read_tensors(preprocessing))
    try:
        architecture = checked_architecture(tuples(dict(facts["layers"])), len(tensors))
        height, width = image_side(facts["image_size"])
        class_names = texts(facts["class_names"])
        if len(class_names) not in (0, architecture.num_classes):
            raise ValueError(f"{len(class_names)} names for {architecture.num_classes} classes")
        name, known = texts([facts["data"]["name"], facts["architecture"]])
        (origin,) = texts([facts.get("origin", f"{known} trained by resnetkit on {name}")])
        return TrainedNetwork(
            model=built(weights, architecture, tensors),
            architecture=architecture,
            normalization=fitting(normalization, architecture.in_channels, (height, width)),
            class_names=class_names,
            image_size=(height, width),
            data=name,
            origin=origin,
            crop_pct=fraction(facts.get("crop_pct", 1.0 if architecture.stem == "3x3" else 0.875)),
            resize=resize_of(facts.get("resize", {})),
        )
    except (*IMPOSSIBLE, ArchitectureError) as error:
        raise damaged(folder / "config.json", error) from error


def resize_of(facts: dict[str, Any]) -> Resize:
    """Returns how images are resized, by the values of a configuration.

    Raises:
        ValueError: when one cannot be.
    """
    return TypeAdapter(Resize).validate_python(facts)


def check_digests(folder: Path, facts: dict[str, Any]) -> None:
    """Checks that every file of the folder is what was written.

    Raises:
        WeightsError: when one is not, or the folder does not say.
    """
    digests = facts.get("sha256")
    if not isinstance(digests, dict):
        raise WeightsError(
            f"{folder / 'config.json'} holds no digests (sha256) of the files next to it: it is"
            " damaged, or was written by a version before they were kept. Train the recipe again."
        )
    found = {"config.json": facts_digest(facts)}
    for name in ("model.safetensors", "preprocessing.safetensors"):
        content = read_content(folder / name)
        check_mistake(folder / name, content)
        found[name] = hashlib.sha256(content).hexdigest()
    for name, digest in found.items():
        if digests.get(name) != digest:
            raise WeightsError(
                f"{folder / name} is not what was written: its SHA-256 is {digest[:16]}...,"
                f" expected {str(digests.get(name))[:16]}.... Put the file back, or fetch it again."
            )


def facts_digest(facts: dict[str, Any]) -> str:
    """Returns the SHA-256 of a configuration without its digests, however it is spaced."""
    own = {key: value for key, value in facts.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def checked_architecture(layers: dict[str, Any], tensors: int) -> Architecture:
    """Returns the architecture of a configuration whose every option is a possible one.

    Args:
        layers: of the configuration.
        tensors: how many there are, which bounds what is built.

    Raises:
        ValueError: when there are more blocks than tensors, or a value that cannot be.
    """
    if sum(counts(layers["depths"])) > tensors:
        raise ValueError(f"it has {sum(layers['depths'])} blocks, but {tensors} tensors")
    counts(layers["widths"])
    architecture = Architecture(**layers)
    options = {field.name for field in fields(Architecture) if field.default is not MISSING}
    return architecture.with_options(**{name: layers[name] for name in options & set(layers)})


def fitting(normalization: Normalization, channels: int, size: tuple[int, int]) -> Normalization:
    """Returns a normalization with a mean of each channel or each pixel.

    Raises:
        ValueError: when it is of another shape.
    """
    shape = tuple(normalization.mean.shape)
    if shape not in ((channels, 1, 1), (channels, *size)):
        raise ValueError(f"the mean has the shape {shape}")
    return normalization


def tuples(layers: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of an architecture with the tuples that JSON has turned into lists."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in layers.items()
    }


def normalization_of(path: Path, tensors: Tensors) -> Normalization:
    """Returns the normalization that the tensors of the preprocessing are."""
    if set(tensors) != {"mean", "std"}:
        raise WeightsError(f"{path} holds {', '.join(sorted(tensors))}, expected mean and std.")
    check_values(path, tensors)
    mean, std = tensors["mean"].float(), tensors["std"].float()
    if mean.dim() != 3 or std.shape != (len(mean), 1, 1) or (std <= 0).any():
        raise WeightsError(
            f"{path} does not fit: expected a mean (C, 1, 1) or (C, H, W) and deviations (C, 1, 1)"
            " above 0."
        )
    return Normalization(mean, std)


def model_folder_files(network: TrainedNetwork, **more: Any) -> dict[str, bytes]:
    """Returns the files of a folder that holds all that is known of a network.

    Where the images lie that it was trained on is nobody's business who is given the network: of
    data that is not published, the name is left out.

    Args:
        network: to be written.
        **more: facts for config.json, such as the digest of the recipe.
    """
    facts = {
        "architecture": known_as(network.architecture) or "a residual network",
        "layers": asdict(network.architecture),
        "class_names": list(network.class_names),
        "image_size": list(network.image_size),
        "crop_pct": network.crop_pct,
        "resize": asdict(network.resize),
        "origin": network.origin,
        "data": {"name": network.data if is_plain(network.data) else ""},
        **more,
    }
    files = {
        "model.safetensors": safetensors_bytes(network.model.state_dict(), {}),
        "preprocessing.safetensors": safetensors_bytes(
            {"mean": network.normalization.mean, "std": network.normalization.std}, {}
        ),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    digests["config.json"] = facts_digest(json.loads(json_bytes(facts)))  # as it will be read
    return {"config.json": json_bytes({**facts, "sha256": digests}), **files}


def is_plain(name: str) -> bool:
    """Returns whether a name of data is one, not a path."""
    return name == Path(name).name and not name.startswith((".", "~"))


RESNETKIT = Format(
    "resnetkit",
    None,
    is_resnetkit,
    load_resnetkit,
    lambda network, path: model_folder_files(network),
)
