"""A trained network with everything needed to use it, independent of the format of its file."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.table import read_list
from resnetkit.data.normalization import Normalization
from resnetkit.data.splits import Split
from resnetkit.errors import WeightsError, headless
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import Architecture
from resnetkit.resizing import BILINEAR, Resize
from resnetkit.weights.checkpoints import State
from resnetkit.weights.tensors import Tensors, check_names, check_values

__all__ = ["RunImages", "TrainedNetwork", "built", "check_head", "with_remarks"]


@dataclass(frozen=True)
class RunImages:
    """A user's images, as listed by the run that trained a network on them.

    Attributes:
        path: path of the list, in the run folder.
        root: folder or table that the images came from.
        learned: splits that the network was trained on.
    """

    path: Path
    root: Path
    learned: frozenset[Split]

    def read(self) -> ImageList:
        """Returns the list of images with their splits; the images need not exist any longer.

        Raises:
            DataError: if the list cannot be read.
        """
        return read_list(self.path, self.root)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network ready for inference.

    Attributes:
        model: images (B, C, H, W) -> logits (B, K), in evaluation mode, on the CPU.
        architecture: architecture of the model.
        normalization: normalization of pixels of 0 to 255.
        class_names: names in the order of the logits; empty if unknown.
        image_size: height and width of its input in pixels.
        data: name of the data set that it was trained on; empty if unknown.
        origin: what the file was recognized as and how it was read, for messages.
        format: format of the file, a name of `formats.FORMATS`.
        crop_pct: fraction of the shorter side of an image that the center crop keeps: 1 is all of
            it, 0.875 is 224 of 256 pixels (He et al. 2015, sec. 3.4).
        resize: how an image is resized before its center is cropped.
        has_head: whether it classifies; without a head it gives features and initial weights.
        images: the user's images that its run has listed. Their location is a fact of the run and
            is written to no file of weights.
    """

    model: ResNet
    architecture: Architecture
    normalization: Normalization
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    data: str
    origin: str
    format: str = "resnetkit"
    crop_pct: float = 0.875
    resize: Resize = BILINEAR
    has_head: bool = True
    images: RunImages | None = None

    @property
    def num_classes(self) -> int:
        """Returns K, the number of logits."""
        return self.architecture.num_classes

    @property
    def in_channels(self) -> int:
        """Returns 3 for RGB, 1 for gray."""
        return self.architecture.in_channels


def check_head(network: TrainedNetwork) -> None:
    """Raises WeightsError for a network without a head, which cannot classify."""
    if not network.has_head:
        raise headless(network.origin)


def with_remarks(network: TrainedNetwork, state: State) -> TrainedNetwork:
    """Returns a network whose origin names what was removed from its file, and a missing head."""
    remarks = [*filter(None, [state.remarks]), *([] if network.has_head else ["without a head"])]
    if not remarks:
        return network
    return replace(network, origin=f"{network.origin} ({', '.join(remarks)})")


MOST_BLOCKS = 5_000  # ResNet-1202 has 600; more would take minutes and gigabytes to build


def built(path: Path, architecture: Architecture, tensors: Tensors) -> ResNet:
    """Builds a network with the tensors of a file, all of which must be used.

    Raises:
        WeightsError: if a tensor is missing, unused, of another shape, or not of finite numbers.
    """
    if sum(architecture.depths) > MOST_BLOCKS:
        raise WeightsError(
            f"{path} names {sum(architecture.depths):,} blocks: expected at most {MOST_BLOCKS:,}."
        )
    with torch.device("meta"):  # shapes alone, before anything large is allocated
        model = architecture.build()
    expected = model.state_dict()
    check_names(path, tensors, expected)
    check_values(path, tensors)
    state = {
        name: tensor.to(expected[name].dtype, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()
