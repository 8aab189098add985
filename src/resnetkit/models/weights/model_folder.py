"""Our own format: the folder `model/` of a finished run."""

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.weights.network import TrainedNetwork, built
from resnetkit.models.weights.tensors import Tensors, check_values, read_tensors
from resnetkit.models.zoo import Architecture

__all__ = ["load_model_folder"]


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
        name, class_names = facts["data"]["name"], tuple(facts["class_names"])
        if not all(isinstance(each, str) for each in (name, *class_names)):
            raise ValueError("a name is not a text")
        return TrainedNetwork(
            model=built(weights, architecture, tensors),
            architecture=architecture,
            mean=fitting(mean, architecture.in_channels, (height, width)),
            std=std,
            class_names=class_names,
            image_size=(height, width),
            data=name,
            origin=f"{facts['architecture']} trained by resnetkit on {name}",
        )
    except (*IMPOSSIBLE, ArchitectureError) as error:
        raise damaged(folder / "config.json", error) from error


IMPOSSIBLE = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    RuntimeError,
    ZeroDivisionError,
)
"""What building a network raises for values that no network has."""


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


def counts(values: Any) -> tuple[int, ...]:
    """Returns whole numbers from 1 to 100,000.

    Raises:
        ValueError: when something else is among them.
    """
    if not all(isinstance(each, int) and 1 <= each <= 10**5 for each in values):
        raise ValueError(f"{values} are not sizes or counts")
    return tuple(values)


def read_configuration(path: Path) -> dict[str, Any]:
    """Returns the mapping in a config.json."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError("it is not an object")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    return facts


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


def damaged(path: Path, error: Exception) -> WeightsError:
    """Returns the error for a configuration that no network can be built from."""
    return WeightsError(
        f"{path} is damaged ({type(error).__name__}: {error}). Train the recipe again, or put the"
        " file back."
    )
