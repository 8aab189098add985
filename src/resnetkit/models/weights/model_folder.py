"""Our own format: the folder `model/` of a finished run."""

import json
from pathlib import Path
from typing import Any

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.weights.network import TrainedNetwork, built
from resnetkit.models.weights.tensors import Tensors, read_tensors
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
        architecture = Architecture(**tuples(dict(facts["layers"])))
        architecture.check_combination()
        height, width = facts["image_size"]
        return TrainedNetwork(
            model=built(weights, architecture, tensors),
            architecture=architecture,
            mean=mean,
            std=std,
            class_names=tuple(facts["class_names"]),
            image_size=(height, width),
            data=facts["data"]["name"],
            origin=f"{facts['architecture']} trained by resnetkit on {facts['data']['name']}",
        )
    except (KeyError, TypeError, ValueError, IndexError, ArchitectureError) as error:
        raise damaged(folder / "config.json", error) from error


def read_configuration(path: Path) -> dict[str, Any]:
    """Returns the mapping in a config.json."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError("it is not an object")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise damaged(path, error) from error
    return facts


def tuples(layers: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of an architecture with the tuples that JSON has turned into lists."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in layers.items()
    }


def mean_and_std(path: Path, tensors: Tensors) -> tuple[Any, Any]:
    """Returns the two tensors of the preprocessing."""
    if set(tensors) != {"mean", "std"}:
        raise WeightsError(f"{path} holds {', '.join(sorted(tensors))}, expected mean and std.")
    return tensors["mean"], tensors["std"]


def damaged(path: Path, error: Exception) -> WeightsError:
    """Returns the error for a configuration that no network can be built from."""
    return WeightsError(
        f"{path} is damaged ({type(error).__name__}: {error}). Train the recipe again, or put the"
        " file back."
    )
