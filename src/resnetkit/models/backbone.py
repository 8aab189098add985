"""backbone(name) -> feature maps, for detectors and whatever else stands on a ResNet."""

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.errors import ArchitectureError, did_you_mean
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import Architecture, find_architecture
from resnetkit.weights.load import load_network

__all__ = ["Backbone", "backbone"]

OUT = ("stage2", "stage3", "stage4", "stage5")  # the paper's conv2_x to conv5_x
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A network without its head: images (B, C, H, W) -> feature maps (B, C', H', W') by name.

    Attributes:
        network: the layers, up to the last map that is asked for.
        channels: of each map.
        strides: of each map, pixels of the image from one cell to the next.
        mean: that images of 0 to 1 are to be normalized with, one a channel.
        std: likewise.
    """

    def __init__(
        self,
        network: ResNet,
        out: Iterable[str],
        *,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        wanted = list(out)
        maps = network.feature_maps
        for name in wanted:
            if name not in maps:
                raise ArchitectureError(
                    f"unknown feature map '{name}': expected {', '.join(maps)}."
                    + did_you_mean(name, maps)
                )
        if not wanted or len(set(wanted)) < len(wanted):
            raise ArchitectureError(f"out is {wanted}: expected one or more maps, each once.")
        self.names = [name for name in maps if name in wanted]
        self.channels = {name: maps[name].channels for name in self.names}
        self.strides = {name: maps[name].stride for name in self.names}
        self.mean, self.std = mean, std
        self.network = network
        cut(network, self.names[-1])

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """Returns the maps in the order of the network, normalized images given."""
        found = self.network.features(images, self.names)
        return OrderedDict((name, found[name]) for name in self.names)


def cut(network: ResNet, last: str) -> None:
    """Removes what comes after a feature map: nothing is kept, trained or shared in vain."""
    network.fc = nn.Identity()  # type: ignore[assignment]
    names = list(network.feature_maps)
    after = names[names.index(last) + 1 :]
    if isinstance(network.bn_out, nn.BatchNorm2d) and after:
        return  # the last stage of a pre-activated network ends with layers of its own
    for name in after:
        del network.feature_maps[name]
        delattr(network, f"layer{names.index(name)}")


def backbone(
    name: str = "",
    *,
    weights: str | Path = "",
    variant: str = "",
    out: Iterable[str] = OUT,
    freeze: str = "",
    frozen_norm: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Backbone:
    """Returns a network without its head, fresh or with what it has learned.

    Args:
        name: a key of `ARCHITECTURES`; with weights it may be left out, or must be theirs.
        weights: a run folder or a file that `load_network` reads; empty starts afresh.
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
    if not weights:
        architecture = find_architecture(name).with_options(**options)
        network: ResNet = architecture.build(generator)
        constants: dict[str, Any] = {}
    else:
        network, constants = learned(name, Path(weights), variant, options)
    found = Backbone(network, out, **constants)
    last = found.names[-1]
    if freeze and freeze not in network.feature_maps:
        raise ArchitectureError(f"freeze is '{freeze}', but the backbone ends with {last}.")
    network.freeze(freeze, norms=frozen_norm)
    return found


def layers_of(architecture: Architecture) -> tuple[object, ...]:
    """Returns what two networks of one name have in common."""
    return (
        architecture.block,
        architecture.depths,
        architecture.widths,
        architecture.stem,
        architecture.preactivation,
        architecture.groups,
        architecture.base_width,
        architecture.shortcut,
    )


def learned(
    name: str, path: Path, variant: str, options: dict[str, Any]
) -> tuple[ResNet, dict[str, Any]]:
    """Returns a network with what it has learned, in training mode, and its images' constants."""
    loaded = load_network(path, variant=variant)
    if name and layers_of(find_architecture(name)) != layers_of(loaded.architecture):
        raise ArchitectureError(
            f"{path} is not a {name}: it is {loaded.origin}. Leave the name out, or name the one it"
            " is."
        )
    architecture: Architecture = loaded.architecture.with_options(**options)
    network = architecture.build()
    network.load_state_dict(loaded.model.state_dict(), strict=True)
    constants = {
        key: tuple((each.flatten(1).mean(1) / 255).tolist())
        for key, each in {"mean": loaded.mean, "std": loaded.std}.items()
    }
    return network, constants
