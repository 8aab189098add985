"""Paths: a residual network as an ensemble of paths of many lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.models.blocks import Block
from resnetkit.probes.hooks import blocks_of, replaced_modules, unchanged

__all__ = ["PathLength", "path_gradients"]

DRAWS = 8


@dataclass(frozen=True)
class PathLength:
    """The paths of one length: through F of so many blocks, and the shortcuts of all others.

    Attributes:
        blocks: the length, a number of blocks.
        paths: number of paths of this length.
        gradient: norm of the gradient at the input of the first block along one path, the mean over
            random paths.
    """

    blocks: int
    paths: int
    gradient: float

    @property
    def total(self) -> float:
        """Returns the gradient of one path times the number of paths."""
        return self.paths * self.gradient


class OneWay(nn.Module):
    """A block with the usual output, whose gradient flows through F or the shortcut only."""

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
    """Measures the gradient along paths of each length.

    Source: Veit, Wilber and Belongie 2016, sec. 5: the forward pass uses the whole network, the
    backward pass a random path of k blocks. It costs `draws` training steps for each length.

    Args:
        model: a `ResNet` with shortcuts, whose blocks end with addition and relu.
        images: float (B, C, H, W), normalized.
        labels: int64 (B,).
        lengths: numbers of blocks; all of them by default.
        draws: number of random paths of each length.
        seed: of the random paths.

    Raises:
        ArchitectureError: when the network is plain, pre-activated or not a `ResNet`.
    """
    blocks = blocks_of(model, with_shortcuts=True)
    names = list(blocks)
    generator = torch.Generator().manual_seed(seed)
    measured = []
    with unchanged(model, training=False), torch.enable_grad():
        for length in lengths or range(len(blocks) + 1):
            norms = []
            for _ in range(1 if length in (0, len(blocks)) else draws):
                order = torch.randperm(len(blocks), generator=generator)
                path = {names[index] for index in order[:length]}
                norms.append(gradient_along(model, blocks, path, images, labels))
            mean = sum(norms) / len(norms)
            measured.append(PathLength(length, comb(len(blocks), length), mean))
    return measured


def gradient_along(
    model: nn.Module, blocks: dict[str, Block], path: set[str], images: Tensor, labels: Tensor
) -> float:
    """Returns the norm of the gradient at the input of the first block, along one path."""
    one_way = {name: OneWay(block, through_residual=name in path) for name, block in blocks.items()}
    first_inputs: list[Tensor] = []
    first = one_way[next(iter(one_way))]
    first.register_forward_pre_hook(lambda _, inputs: first_inputs.append(inputs[0]))
    with replaced_modules(model, dict(one_way)):
        loss = functional.cross_entropy(model(images.detach().requires_grad_()), labels)
        (gradient,) = torch.autograd.grad(loss, first_inputs)
    return float(gradient.double().norm())
