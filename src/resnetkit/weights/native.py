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
    JsonObject,
    check_mistake,
    corrupt,
    counts,
    fraction,
    image_side,
    json_bytes,
    json_object,
    texts,
)
from resnetkit.weights.exported import config_digest
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
    folder, config = source.path.parent, source.config
    weights, preprocessing = folder / "model.safetensors", folder / "preprocessing.safetensors"
    if source.named not in (None, weights) or source.entry:
        raise WeightsError(
            f"{source.path} describes {weights.name} as a whole: give the path of the folder. If"
            f" you mean another network, move its file out of {folder}."
        )
    check_digests(folder, config)
    tensors = read_tensors(weights)
    normalization = normalization_of(preprocessing, read_tensors(preprocessing))
    try:
        architecture = checked_architecture(json_object(config["layers"]), len(tensors))
        height, width = image_side(config["image_size"])
        class_names = texts(config["class_names"])
        if len(class_names) not in (0, architecture.num_classes):
            raise ValueError(f"{len(class_names)} names for {architecture.num_classes} classes")
        name, title = texts([json_object(config["data"])["name"], config["architecture"]])
        (origin,) = texts([config.get("origin", f"{title} trained by resnetkit on {name}")])
        crop_pct = config.get("crop_pct", 1.0 if architecture.stem == "3x3" else 0.875)
        return TrainedNetwork(
            model=built(weights, architecture, tensors),
            architecture=architecture,
            normalization=fitting(normalization, architecture.in_channels, (height, width)),
            class_names=class_names,
            image_size=(height, width),
            data=name,
            origin=origin,
            crop_pct=fraction(crop_pct),
            resize=TypeAdapter(Resize).validate_python(config.get("resize", {})),
        )
    except (*IMPOSSIBLE, ArchitectureError) as error:
        raise corrupt(folder / "config.json", error) from error


def check_digests(folder: Path, config: JsonObject) -> None:
    """Checks that every file of the folder is as it was written.

    Raises:
        WeightsError: if one is not, or config.json holds no digests.
    """
    digests = config.get("sha256")
    if not isinstance(digests, dict):
        raise WeightsError(
            f"{folder / 'config.json'} holds no digests (sha256) of the files next to it: it is"
            " corrupt, or was written by an early version. Train the recipe again."
        )
    actual = {"config.json": config_digest(config)}
    for name in ("model.safetensors", "preprocessing.safetensors"):
        content = read_content(folder / name)
        check_mistake(folder / name, content)
        actual[name] = hashlib.sha256(content).hexdigest()
    for name, digest in actual.items():
        if digests.get(name) != digest:
            raise WeightsError(
                f"{folder / name} is not what was written: its SHA-256 is {digest[:16]}...,"
                f" expected {str(digests.get(name))[:16]}.... Restore the file, or download it"
                " again."
            )


def checked_architecture(layers: JsonObject, num_tensors: int) -> Architecture:
    """Returns the architecture that a configuration describes.

    Args:
        layers: fields of the architecture, as config.json holds them.
        num_tensors: number of tensors in the file of weights, which bounds what is built.

    Raises:
        ValueError: if there are more blocks than tensors, or a value is impossible.
    """
    num_blocks = sum(counts(layers["depths"]))
    if num_blocks > num_tensors:
        raise ValueError(f"it has {num_blocks} blocks, but {num_tensors} tensors")
    counts(layers["widths"])
    values: dict[str, Any] = {  # unchecked, except by `with_options`
        key: tuple(value) if isinstance(value, list) else value for key, value in layers.items()
    }
    options = {field.name for field in fields(Architecture) if field.default is not MISSING}
    chosen = {name: values[name] for name in options & set(values)}
    return Architecture(**values).with_options(**chosen)


def fitting(normalization: Normalization, channels: int, size: tuple[int, int]) -> Normalization:
    """Returns a normalization with a mean of each channel or each pixel.

    Raises:
        ValueError: if it has another shape.
    """
    shape = tuple(normalization.mean.shape)
    if shape not in ((channels, 1, 1), (channels, *size)):
        raise ValueError(f"the mean has the shape {shape}")
    return normalization


def normalization_of(path: Path, tensors: Tensors) -> Normalization:
    """Returns the normalization in the tensors of the preprocessing."""
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


def model_folder_files(network: TrainedNetwork, **more: object) -> dict[str, bytes]:
    """Returns the files of a folder from which a network is loaded again.

    The folder may be given to others, so the name of a data set is left out if it is a path.

    Args:
        network: network to write.
        **more: further entries of config.json, such as the digest of the recipe.
    """
    config = {
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
    digests["config.json"] = config_digest(json.loads(json_bytes(config)))  # as it will be read
    return {"config.json": json_bytes({**config, "sha256": digests}), **files}


def is_plain(name: str) -> bool:
    """Returns whether the name of a data set is a plain name, not a path."""
    return name == Path(name).name and not name.startswith((".", "~"))


RESNETKIT = Format(
    "resnetkit",
    None,
    is_resnetkit,
    load_resnetkit,
    lambda network, path: model_folder_files(network),
)
