"""A trained network, with all that is needed to use it, from whatever file it comes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.models.resnet import ResNet
from resnetkit.models.weights.tensors import Tensors, check_names
from resnetkit.models.zoo import Architecture

__all__ = ["TrainedNetwork", "built"]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that is ready to be asked.

    Attributes:
        model: images (B, C, H, W) -> logits (B, K), in evaluation mode, on the CPU.
        architecture: of the model.
        mean: what is subtracted from pixels of 0 to 255: float32 (C, 1, 1) or (C, H, W).
        std: what they are divided by then: float32 (C, 1, 1).
        class_names: in the order of the logits; empty where the file does not say.
        image_size: height and width in pixels that it was trained on.
        data: name of the data set it was trained on; empty where the file does not say.
        origin: what the file was recognised as and how it is read, in words.
    """

    model: ResNet
    architecture: Architecture
    mean: Tensor
    std: Tensor
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    data: str
    origin: str


def built(path: Path, architecture: Architecture, tensors: Tensors) -> ResNet:
    """Returns the network with the weights of a file, every tensor of which finds its place.

    Raises:
        WeightsError: when one is missing, left over or of another shape.
    """
    model = architecture.build(torch.Generator())
    check_names(path, tensors, model.state_dict())
    model.load_state_dict(tensors, strict=True)
    return model.eval()
