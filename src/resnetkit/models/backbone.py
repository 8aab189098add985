"""Backbones: feature maps of a network without its head, for detectors and segmentation."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn

from resnetkit.errors import ArchitectureError, did_you_mean
from resnetkit.models.resnet import ResNet

__all__ = ["OUT", "Backbone"]

OUT = ("stage2", "stage3", "stage4", "stage5")  # the paper's conv2_x to conv5_x
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A network without its head: images (B, C, H, W) -> feature maps (B, C', H', W') by name.

    Attributes:
        network: the layers, up to the last requested map.
        channels: of each map.
        strides: of each map, pixels of the image from one cell to the next.
        mean: of images from 0 to 1, by which the input is normalized; one value for each channel.
        std: standard deviation, likewise.

    Raises:
        ArchitectureError: for an unknown feature map, no map, or a map that is named twice.
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
        requested = list(out)
        maps = network.feature_maps
        for name in requested:
            if name not in maps:
                raise ArchitectureError(
                    f"unknown feature map '{name}': expected {', '.join(maps)}."
                    + did_you_mean(name, maps)
                )
        if not requested or len(set(requested)) < len(requested):
            raise ArchitectureError(f"out is {requested}: expected one or more maps, each once.")
        self.names = [name for name in maps if name in requested]
        self.channels = {name: maps[name].channels for name in self.names}
        self.strides = {name: maps[name].stride for name in self.names}
        self.mean, self.std = mean, std
        self.network = network
        cut(network, self.names[-1])

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """Returns the maps of normalized images, in the order of the network."""
        maps = self.network.features(images, self.names)
        return OrderedDict((name, maps[name]) for name in self.names)


def cut(network: ResNet, last: str) -> None:
    """Removes the layers after a feature map, which would use memory and get no gradient."""
    network.fc = nn.Identity()  # type: ignore[assignment]
    names = list(network.feature_maps)
    after = names[names.index(last) + 1 :]
    if isinstance(network.bn_out, nn.BatchNorm2d) and after:
        return  # the map of a pre-activated network's last stage needs bn_out and relu_out
    for name in after:
        del network.feature_maps[name]
        delattr(network, f"layer{names.index(name)}")
