"""Trained networks for Python users: a module to call, a backbone, and a folder to keep them in."""

from collections.abc import Iterable
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
"""What the name of a network says of it; the rest are options, which come with its weights."""


def from_pretrained(name_or_path: str | Path, *, variant: str | None = None) -> ResNet:
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
    """Returns a network without its head, fresh or with what it has learned.

    Args:
        name: a key of `ARCHITECTURES`; with weights it may be left out, or must be theirs.
        weights: a run folder or a file that `load_network` reads; None for fresh weights.
        variant: v1 or v1.5, where the file does not say.
        out: names of feature maps: stem, stage2, ... ; the paper's networks have five.
        freeze: the last feature map whose layers are not to be learned; see `ResNet.freeze`.
        frozen_norm: fix the batch normalization of all layers, which the few images of a detector's
            batch would spoil.
        generator: of fresh weights.
        **options: as for `create_model`, such as
            `replace_stride_with_dilation=(False, False, True)`.

    Raises:
        ArchitectureError: for an unknown network, option or feature map.
        WeightsError: when the weights cannot be trusted or are of another network.
    """
    if weights is None:
        architecture = find_architecture(name or "").with_options(**options)
        network: ResNet = architecture.build(generator)
        constants: dict[str, Any] = {}
    else:
        network, constants = learned(name, Path(weights), variant, options)
    body = Backbone(network, out, **constants)
    last = body.names[-1]
    if freeze and freeze not in network.feature_maps:
        raise ArchitectureError(f"freeze is '{freeze}', but the backbone ends with {last}.")
    network.freeze(freeze, norms=frozen_norm)
    return body


def learned(
    name: str | None, path: Path, variant: str | None, options: dict[str, Any]
) -> tuple[ResNet, dict[str, Any]]:
    """Returns a network with what it has learned, in training mode, and its images' constants."""
    loaded = load_network(path, variant=variant)
    if name and IDENTITY & set(find_architecture(name).differences(loaded.architecture)):
        raise ArchitectureError(
            f"{path} is not a {name}: it is {loaded.origin}. Leave the name out, or name the one it"
            " is."
        )
    architecture: Architecture = loaded.architecture.with_options(**options)
    network = architecture.build()
    network.load_state_dict(loaded.model.state_dict(), strict=True)
    normalization = loaded.normalization
    constants = {
        key: tuple((pixels.flatten(1).mean(1) / 255).tolist())
        for key, pixels in {"mean": normalization.mean, "std": normalization.std}.items()
    }
    return network, constants
