"""Residual magnitude: the size of F(x) relative to the shortcut, and of the change by a block."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetkit.probes.hooks import blocks_of, inputs_and_outputs, unchanged

__all__ = ["BlockResidual", "residual_magnitudes"]


@dataclass(frozen=True)
class BlockResidual:
    """The residual of a block.

    Attributes:
        name: of the block.
        ratio: ||F(x)|| / ||shortcut(x)||, the mean over images.
        change: ||block(x) - x|| / ||x||, the mean over images: zero for the identity; NaN if the
            block changes the shape.
    """

    name: str
    ratio: float
    change: float


def residual_magnitudes(model: nn.Module, images: Tensor) -> list[BlockResidual]:
    """Measures every block of a residual network in evaluation mode.

    It costs a forward pass, a second one of the blocks, and the memory of the inputs of all blocks.

    Args:
        model: a `ResNet` with shortcuts, whose blocks end with addition and relu.
        images: float (B, C, H, W), normalized.

    Raises:
        ArchitectureError: when the network is plain, pre-activated or not a `ResNet`.
    """
    blocks = blocks_of(model, with_shortcuts=True)
    measured = []
    with unchanged(model, training=False), torch.no_grad():
        with inputs_and_outputs(model, list(blocks)) as activations:
            model(images)
        for name, block in blocks.items():
            x, output = activations[name]
            assert block.downsample is not None
            residual, shortcut = block.residual(x), block.downsample(x)
            change = relative(output - x, x) if output.shape == x.shape else float("nan")
            measured.append(BlockResidual(name, relative(residual, shortcut), change))
    return measured


def relative(values: Tensor, reference: Tensor) -> float:
    """Returns the mean over images of ||values|| / ||reference||."""
    norms, references = (x.double().flatten(1).norm(dim=1) for x in (values, reference))
    smallest = torch.finfo(torch.float64).tiny
    return float((norms / references.clamp_min(smallest)).mean())
