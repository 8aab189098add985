"""Trained networks for Python users: a module to call, and a folder to keep it in."""

from dataclasses import replace
from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.models.resnet import ResNet
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork, built

__all__ = ["from_pretrained", "save_pretrained"]


def from_pretrained(name_or_path: str | Path, *, variant: str = "") -> ResNet:
    """Returns a trained network as a module in evaluation mode; nothing is downloaded.

    Its attribute `trained` is the `TrainedNetwork`: how images are normalized, their size, the
    names of the classes, where it comes from.

    Args:
        name_or_path: a run folder, weights of another library, or the name of published ones.
        variant: where bottlenecks stride, v1 or v1.5, which some files do not say.

    Raises:
        WeightsError: as `load_network`.
        UsageError: likewise.
    """
    network = load_network(name_or_path, variant=variant)
    network.model.trained = network  # type: ignore[assignment]  # torch wants tensors and modules
    return network.model


def save_pretrained(network: ResNet, folder: str | Path) -> None:
    """Writes a module of `from_pretrained`, as it is now, to a folder that it reads again.

    Args:
        network: on any device, in training or evaluation mode; it stays as it is.
        folder: where nothing lies yet.

    Raises:
        WeightsError: when it is not of `from_pretrained`, or its layers are others by now.
        StorageError: when the folder cannot be written, or something is there already.
    """
    trained = getattr(network, "trained", None)
    if not isinstance(trained, TrainedNetwork):
        raise WeightsError(
            "this module does not know how its images are normalized, since it does not come from"
            " from_pretrained: make a TrainedNetwork of it, and export_weights writes that."
        )
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    model = built(Path(folder), trained.architecture, state)
    export_weights(replace(trained, model=model), Path(folder), "resnetkit")
