"""From a path to a trained network, whatever the format."""

from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.models.weights.akamaster import is_akamaster, load_akamaster
from resnetkit.models.weights.model_folder import load_model_folder
from resnetkit.models.weights.network import TrainedNetwork
from resnetkit.models.weights.tensors import read_file

__all__ = ["load_network"]


def load_network(path: Path) -> TrainedNetwork:
    """Loads a trained network; the format is recognised by what is there, not by the name.

    Args:
        path: of a run folder, of its `model` folder, or of a file of weights.

    Raises:
        WeightsError: when there is nothing, or not exactly the weights of a known network.
    """
    if not path.exists():
        raise WeightsError(f"there is no {path}: expected a run folder or a file of weights.")
    if path.is_file():
        return load_file(path)
    if not path.is_dir():
        raise WeightsError(f"{path} is neither a file nor a folder.")
    folder = path / "model" if (path / "recipe.yaml").is_file() else path
    if (folder / "config.json").is_file():
        return load_model_folder(folder)
    if folder != path:
        raise WeightsError(
            f"the run in {path} is not finished: it has no model yet. 'resnet train' with its"
            " recipe goes on with it."
        )
    raise WeightsError(f"{path} holds no network: it has neither recipe.yaml nor config.json.")


def load_file(path: Path) -> TrainedNetwork:
    """Loads a single file of weights."""
    content = read_file(path)
    if is_akamaster(content):
        return load_akamaster(path, content)
    raise WeightsError(
        f"{path} holds weights of no format that resnetkit knows: it reads its own model folders"
        " and the .th files of akamaster/pytorch_resnet_cifar10."
    )
