"""Paths: a residual network as the sum of many ways through it, long and short."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.models.blocks import Block
from resnetkit.probes.hooks import blocks_of, put_in_place, unchanged

__all__ = ["PathLength", "path_gradients"]

DRAWS = 8


@dataclass(frozen=True)
class PathLength:
    """The paths that pass through so many blocks' F, and the shortcuts of all others.

    Attributes:
        blocks: how many F.
        paths: how many such paths there are.
        gradient: norm of the gradient that one of them carries to the first block's input, the
            mean over some drawn at random.
    """

    blocks: int
    paths: int
    gradient: float

    @property
    def total(self) -> float:
        """Returns what all paths of this length could carry together."""
        return self.paths * self.gradient


class OneWay(nn.Module):
    """A block whose values are whole and whose gradient takes one way: F, or the shortcut."""

    def __init__(self, block: Block, *, through_residual: bool) -> None:
        super().__init__()
        self.block, self.through_residual = block, through_residual

    def forward(self, x: Tensor) -> Tensor:
        assert self.block.downsample is not None
        residual, shortcut = self.block.residual(x), self.block.downsample(x)
        if self.through_residual:
            shortcut = shortcut.detach()
        else:
            residual = residual.detach()
        return self.block.relu_out(residual + shortcut)  # type: ignore[no-any-return]


def path_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    lengths: Sequence[int] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> list[PathLength]:
    """Measures the gradient that paths of each length carry.

    Source: Veit, Wilber and Belongie 2016, sec. 5: a batch goes through the whole network; on the
    way back a path of k blocks is followed alone. It costs `draws` steps of training for each
    length.

    Args:
        model: a `ResNet` with shortcuts, whose blocks end with addition and relu.
        images: float (B, C, H, W), normalized.
        labels: int64 (B,).
        lengths: which numbers of blocks; all of them by default.
        draws: paths of each length.
        seed: of the draws.

    Raises:
        ArchitectureError: when the network is plain or another one.
    """
    blocks = blocks_of(model, with_shortcuts=True)
    generator = torch.Generator().manual_seed(seed)
    found = []
    with unchanged(model, training=False), torch.enable_grad():
        for length in lengths or range(len(blocks) + 1):
            norms = []
            for _ in range(1 if length in (0, len(blocks)) else draws):
                order = torch.randperm(len(blocks), generator=generator)
                chosen = {list(blocks)[place] for place in order[:length]}
                norms.append(gradient_along(model, blocks, chosen, images, labels))
            mean = sum(norms) / len(norms)
            found.append(PathLength(length, comb(len(blocks), length), mean))
    return found


def gradient_along(
    model: nn.Module, blocks: dict[str, Block], chosen: set[str], images: Tensor, labels: Tensor
) -> float:
    """Returns the norm of the gradient at the first block's input, along one path."""
    ways = {name: OneWay(block, through_residual=name in chosen) for name, block in blocks.items()}
    entered: list[Tensor] = []
    first = ways[next(iter(ways))]
    first.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    with put_in_place(model, dict(ways)):
        loss = functional.cross_entropy(model(images.detach().requires_grad_()), labels)
        (gradient,) = torch.autograd.grad(loss, entered)
    return float(gradient.double().norm())
