"""Trained networks for Python users: as a module, as a backbone, and saved to a folder."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.backbone import OUT, Backbone
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import Architecture, find_architecture
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork, built

__all__ = ["backbone", "from_pretrained", "save_pretrained"]

IDENTITY = {
    *("block", "depths", "widths", "stem", "preactivation", "groups", "base_width", "shortcut")
}
"""Fields of an architecture that its name determines; the weights determine the others."""


def from_pretrained(name_or_path: str | Path, *, variant: str | None = None) -> ResNet:
    """Returns a trained network as a module in evaluation mode, without downloading anything.

    Its attribute `trained` is the `TrainedNetwork`, which holds the normalization and size of
    images, the class names and the origin.

    Args:
        name_or_path: run folder, weights of another library, or name of published weights.
        variant: v1 or v1.5, for a file that does not state where its bottlenecks stride.

    Raises:
        WeightsError: as in `load_network`.
        UsageError: likewise.
    """
    network = load_network(name_or_path, variant=variant)
    network.model.trained = network  # type: ignore[assignment]  # torch wants tensors and modules
    return network.model


def save_pretrained(network: ResNet, folder: str | Path) -> None:
    """Saves a module of `from_pretrained`, in its present state, to a folder.

    Args:
        network: module on any device, in training or evaluation mode; it is not changed.
        folder: folder to create; `from_pretrained` reads it.

    Raises:
        WeightsError: if the module is not from `from_pretrained`, or its layers were changed.
        StorageError: if the folder cannot be written, or exists already.
    """
    trained = getattr(network, "trained", None)
    if not isinstance(trained, TrainedNetwork):
        raise WeightsError(
            "this module does not come from from_pretrained, so that the normalization of its"
            " images is unknown: make a TrainedNetwork of it, and save that with export_weights."
        )
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    model = built(Path(folder), trained.architecture, state)
    export_weights(replace(trained, model=model), Path(folder), "resnetkit")


def backbone(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    variant: str | None = None,
    out: Iterable[str] = OUT,
    freeze: str | None = None,
    frozen_norm: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Backbone:
    """Returns a network without its head, with random or trained weights.

    Args:
        name: key of `ARCHITECTURES`; optional with weights, which must then be of that network.
        weights: run folder or file that `load_network` reads; None for random weights.
        variant: v1 or v1.5, for a file that does not state it.
        out: names of the feature maps: stem, stage2, ...; the paper's networks have five.
        freeze: last feature map whose layers are frozen; see `ResNet.freeze`.
        frozen_norm: whether to freeze the batch normalization of all layers, whose statistics are
            poor for the few images of a detector's batch.
        generator: random generator of random weights.
        **options: options of the architecture, as for `create_model`, such as
            `replace_stride_with_dilation=(False, False, True)`.

    Raises:
        ArchitectureError: for an unknown network, option or feature map, or an option that trained
            weights do not fit.
        WeightsError: if the weights cannot be read, or are of another network.
    """
    if weights is None:
        architecture = find_architecture(name or "").with_options(**options)
        network: ResNet = architecture.build(generator)
        constants: dict[str, tuple[float, ...]] = {}
    else:
        network, constants = trained_model(name, Path(weights), variant, options)
    body = Backbone(network, out, **constants)
    last = body.names[-1]
    if freeze and freeze not in network.feature_maps:
        raise ArchitectureError(f"freeze is '{freeze}', but the backbone ends with {last}.")
    network.freeze(freeze, norms=frozen_norm)
    return body


def trained_model(
    name: str | None, path: Path, variant: str | None, options: Mapping[str, Any]
) -> tuple[ResNet, dict[str, tuple[float, ...]]]:
    """Returns a trained network in training mode, and mean and std of pixels of 0 to 1."""
    loaded = load_network(path, variant=variant)
    if name and IDENTITY & set(find_architecture(name).differences(loaded.architecture)):
        raise ArchitectureError(
            f"{path} is not a {name}: it is {loaded.origin}. Leave out the name, or give the right"
            " one."
        )
    architecture: Architecture = loaded.architecture.with_options(**options)
    check_fit(path, loaded.architecture, options)
    network = architecture.build()
    network.load_state_dict(loaded.model.state_dict(), strict=True)
    normalization = loaded.normalization
    constants = {
        key: tuple((pixels.flatten(1).mean(1) / 255).tolist())
        for key, pixels in {"mean": normalization.mean, "std": normalization.std}.items()
    }
    return network, constants


def check_fit(path: Path, trained: Architecture, options: Mapping[str, Any]) -> None:
    """Checks that trained weights fit the network that options make of their own.

    Raises:
        ArchitectureError: with the options that change the shapes of the weights.
    """
    shapes = shapes_of(trained)
    changing = [
        name
        for name, value in options.items()
        if getattr(trained, name) != value
        and shapes_of(trained.with_options(**{name: value})) != shapes
    ]
    if changing:
        asked = ", ".join(f"{name}={options[name]!r}" for name in changing)
        actual = ", ".join(f"{name}={getattr(trained, name)!r}" for name in changing)
        raise ArchitectureError(
            f"the weights of {path} do not fit {asked}: they were trained with {actual}. Leave out"
            " these options, or the weights."
        )


def shapes_of(architecture: Architecture) -> dict[str, torch.Size]:
    """Returns the shapes of a network's weights by name."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in architecture.build().state_dict().items()}
