"""Our own format: the folder `model/` of a finished run."""

from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.weights.configuration import (
    IMPOSSIBLE,
    counts,
    damaged,
    json_bytes,
    read_configuration,
    share,
    texts,
)
from resnetkit.models.weights.network import TrainedNetwork, built
from resnetkit.models.weights.tensors import (
    Tensors,
    check_values,
    read_tensors,
    safetensors_bytes,
)
from resnetkit.models.zoo import Architecture, known_as

__all__ = ["load_model_folder", "model_folder_files"]


def load_model_folder(folder: Path) -> TrainedNetwork:
    """Loads a network that `resnet train` has finished.

    Raises:
        WeightsError: when a file is missing, damaged or not of that network.
    """
    facts = read_configuration(folder / "config.json")
    weights, preprocessing = folder / "model.safetensors", folder / "preprocessing.safetensors"
    tensors = read_tensors(weights)
    mean, std = mean_and_std(preprocessing, read_tensors(preprocessing))
    try:
        architecture = checked_architecture(tuples(dict(facts["layers"])))
        height, width = counts(facts["image_size"])
        class_names = texts(facts["class_names"])
        name, known = texts([facts["data"]["name"], facts["architecture"]])
        (origin,) = texts([facts.get("origin", f"{known} trained by resnetkit on {name}")])
        return TrainedNetwork(
            model=built(weights, architecture, tensors),
            architecture=architecture,
            mean=fitting(mean, architecture.in_channels, (height, width)),
            std=std,
            class_names=class_names,
            image_size=(height, width),
            data=name,
            origin=origin,
            shown=share(facts.get("shown", 1.0 if architecture.stem == "3x3" else 0.875)),
        )
    except (*IMPOSSIBLE, ArchitectureError) as error:
        raise damaged(folder / "config.json", error) from error


def checked_architecture(layers: dict[str, Any]) -> Architecture:
    """Returns the architecture of a configuration whose every option is a possible one."""
    counts(layers["depths"])
    counts(layers["widths"])
    architecture = Architecture(**layers)
    options = {field.name for field in fields(Architecture) if field.default is not MISSING}
    return architecture.with_options(**{name: layers[name] for name in options & set(layers)})


def fitting(mean: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """Returns a mean of each channel or each pixel.

    Raises:
        ValueError: when it is of another shape.
    """
    if mean.shape not in ((channels, 1, 1), (channels, *size)):
        raise ValueError(f"the mean has the shape {tuple(mean.shape)}")
    return mean


def tuples(layers: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of an architecture with the tuples that JSON has turned into lists."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in layers.items()
    }


def mean_and_std(path: Path, tensors: Tensors) -> tuple[Tensor, Tensor]:
    """Returns the two tensors of the preprocessing."""
    if set(tensors) != {"mean", "std"}:
        raise WeightsError(f"{path} holds {', '.join(sorted(tensors))}, expected mean and std.")
    check_values(path, tensors)
    mean, std = tensors["mean"].float(), tensors["std"].float()
    if mean.dim() != 3 or std.shape != (len(mean), 1, 1) or (std <= 0).any():
        raise WeightsError(
            f"{path} does not fit: expected a mean (C, 1, 1) or (C, H, W) and deviations (C, 1, 1)"
            " above 0."
        )
    return mean, std


def model_folder_files(network: TrainedNetwork) -> dict[str, bytes]:
    """Returns the files of a folder that holds all that is known of a network."""
    facts = {
        "architecture": known_as(network.architecture) or "a residual network",
        "layers": asdict(network.architecture),
        "class_names": list(network.class_names),
        "image_size": list(network.image_size),
        "shown": network.shown,
        "data": {"name": network.data},
        "origin": network.origin,
    }
    return {
        "config.json": json_bytes(facts),
        "model.safetensors": safetensors_bytes(network.model.state_dict(), {}),
        "preprocessing.safetensors": safetensors_bytes(
            {"mean": network.mean, "std": network.std}, {}
        ),
    }
