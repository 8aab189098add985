"""Lesions: the error of a trained network whose blocks are removed or exchanged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from resnetkit.data.dataset import Dataset
from resnetkit.errors import ArchitectureError, UsageError
from resnetkit.evaluation.evaluate import predict_probabilities
from resnetkit.evaluation.metrics import top_k_wrong
from resnetkit.models.blocks import Block
from resnetkit.probes.hooks import blocks_of, replaced_modules
from resnetkit.runtime.precision import choose_precision
from resnetkit.weights.network import TrainedNetwork

__all__ = ["neighbors", "removable_blocks", "swapped", "top1_test_error", "without_blocks"]


class Bypass(nn.Module):
    """A block without F: its shortcut and relu, or only relu in a plain network."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.shortcut = block.downsample or nn.Identity()
        self.relu_out = block.relu_out

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_out(self.shortcut(x))  # type: ignore[no-any-return]


def removable_blocks(model: nn.Module) -> list[str]:
    """Returns the blocks that keep channels and size, in order.

    They can be removed from plain and residual networks alike.

    Raises:
        ArchitectureError: when the network is pre-activated or not a `ResNet`.
    """
    return [name for name, block in blocks_of(model).items() if keeps_shape(block)]


def neighbors(blocks: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the pairs of blocks that follow each other in one stage."""
    return [pair for pair in pairwise(blocks) if len({name.split(".")[0] for name in pair}) == 1]


def top1_test_error(network: TrainedNetwork, dataset: Dataset) -> float:
    """Returns the top-1 error on the test split, in percent; it costs an evaluation."""
    sample_ids = dataset.splits["test"]
    precision = choose_precision("float32", torch.device("cpu"))
    probabilities = predict_probabilities(network, dataset, sample_ids, precision=precision)
    labels = dataset.labels[sample_ids].numpy()
    return 100 * top_k_wrong(probabilities, labels, 1) / len(labels)


def keeps_shape(block: Block) -> bool:
    """Returns whether a block keeps channels and size."""
    convolutions = [layer for layer, _ in block.layers() if isinstance(layer, nn.Conv2d)]
    strides = {layer.stride for layer in convolutions}
    return strides == {(1, 1)} and convolutions[0].in_channels == convolutions[-1].out_channels


@contextmanager
def without_blocks(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Removes blocks while the context is active: their input becomes their output.

    Source: Veit, Wilber and Belongie 2016, sec. 4.1 and 4.2.

    Raises:
        ArchitectureError: for a block that does not exist or changes the shape.
    """
    blocks = selected_blocks(model, names)
    with replaced_modules(model, {name: Bypass(block) for name, block in blocks.items()}):
        yield


@contextmanager
def swapped(model: nn.Module, first: str, second: str) -> Iterator[None]:
    """Exchanges two blocks while the context is active.

    Source: Veit, Wilber and Belongie 2016, sec. 4.3.

    Raises:
        ArchitectureError: for a block that does not exist or changes the shape.
        UsageError: when they are of different stages.
    """
    blocks = selected_blocks(model, (first, second))
    stages = {name.split(".")[0] for name in blocks}
    if len(stages) > 1:
        raise UsageError(
            f"{first} and {second} are in different stages, whose shapes differ: choose two blocks"
            " of one stage."
        )
    with replaced_modules(model, {first: blocks[second], second: blocks[first]}):
        yield


def selected_blocks(model: nn.Module, names: Sequence[str]) -> dict[str, Block]:
    """Returns blocks that can be removed, by name."""
    blocks, removable = blocks_of(model), removable_blocks(model)
    for name in names:
        if name not in removable:
            raise ArchitectureError(
                f"the block '{name}' cannot be removed: expected one of {', '.join(removable)}."
            )
    return {name: blocks[name] for name in names}
