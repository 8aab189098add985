"""A trained network, with all that is needed to use it, from whatever file it comes."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.table import read_list
from resnetkit.data.normalization import Normalization
from resnetkit.data.splits import Split
from resnetkit.errors import WeightsError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import Architecture
from resnetkit.resizing import BILINEAR, Resize
from resnetkit.weights.checkpoints import State
from resnetkit.weights.tensors import Tensors, check_names, check_values

__all__ = ["RunImages", "TrainedNetwork", "built", "check_head", "with_remarks"]


@dataclass(frozen=True)
class RunImages:
    """A user's images, as the run that trained a network has listed them.

    Attributes:
        path: of the list, in the folder of the run.
        root: the folder or table they came from.
        learned: the splits that the network has learned from.
    """

    path: Path
    root: Path
    learned: frozenset[Split]

    def read(self) -> ImageList:
        """Returns the images with their splits; they need not be there any longer.

        Raises:
            DataError: when the list cannot be read.
        """
        return read_list(self.path, self.root)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that is ready to be asked.

    Attributes:
        model: images (B, C, H, W) -> logits (B, K), in evaluation mode, on the CPU.
        architecture: of the model.
        normalization: of pixels of 0 to 255.
        class_names: in the order of the logits; empty where the file does not say.
        image_size: height and width in pixels that it was trained on.
        data: name of the data set it was trained on; empty where the file does not say.
        origin: what the file was recognized as and how it is read, in words.
        format: of the file, a name of `formats.FORMATS`.
        crop_pct: share of the shorter side that is shown of an image of any size: 1 shows all of
            it, 0.875 is 224 of 256 pixels (He et al. 2015, sec. 3.4).
        resize: how an image of any size is resized before its middle is shown.
        has_head: whether it answers at all; else it can be started from, and gives features.
        images: of the user, which its run has listed: where they lie is a fact of the run, and is
            written into no file of weights.
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


def check_head(network: TrainedNetwork) -> None:
    """Raises WeightsError for a network that cannot answer, because its file had no head."""
    if not network.has_head:
        raise WeightsError(
            f"the network ({network.origin}) has no head, so that it tells no classes apart. Train"
            " one with 'resnet train --weights', or take its features with 'resnet features'."
        )


def with_remarks(network: TrainedNetwork, state: State) -> TrainedNetwork:
    """Returns a network that says what was taken off its tensors, and that it has no head."""
    words = [*filter(None, [state.found]), *([] if network.has_head else ["without a head"])]
    return replace(network, origin=f"{network.origin} ({', '.join(words)})") if words else network


def built(path: Path, architecture: Architecture, tensors: Tensors) -> ResNet:
    """Returns the network with the weights of a file, every tensor of which finds its place.

    Raises:
        WeightsError: when one is missing, left over, of another shape, or holds what is no number.
    """
    with torch.device("meta"):  # shapes without values: nothing large is built in vain
        model = architecture.build()
    expected = model.state_dict()
    check_names(path, tensors, expected)
    check_values(path, tensors)
    own = {
        name: tensor.to(expected[name].dtype, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(own, strict=True, assign=True)
    return model.eval()
