"""Muon: momentum with orthogonalized steps, for convolutions."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Muon", "orthogonal"]

# The quintic of Jordan et al. 2024: five rounds bring singular values between 0.7 and 1.2. Rounds
# of a group share the products with the wide matrix; in bfloat16, groups of three lose accuracy.
FIRST, THIRD, FIFTH = 3.4445, -4.7750, 2.0315
ROUNDS = (2, 2, 1)


class Muon(Optimizer):
    """Takes steps of equal size in all directions of a convolution, at a fixed norm of its weight.

    The momentum of a gradient has few large and many tiny singular values; here all become about
    one, so that rare directions are learned as fast as common ones. The weight keeps a norm of
    sqrt(outputs), which batch normalization makes irrelevant to the output.

    Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the
    fixed norm is that of the author's CIFAR-10 speed runs. `torch.optim.Muon` takes matrices only.
    Steps may be taken under autocast: the author's products are in bfloat16 too.

    Args:
        parameters: weights of convolutions (outputs, inputs, H, W), each followed by batch
            normalization with the statistics of the batch.
        lr: length of a step along each direction.
        momentum: factor of the previous step; steps are Nesterov's.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it has no closure
        """Takes a step with the gradients that the parameters hold."""
        for group in self.param_groups:
            for weights in grouped_by_shape(group["params"]):
                ahead = torch.stack([self.look_ahead(w, group["momentum"]) for w in weights])
                steps = orthogonal(ahead.flatten(2)).view_as(ahead)
                for weight, step in zip(weights, steps, strict=True):
                    weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_(step, alpha=group["lr"])

    def look_ahead(self, weight: Tensor, momentum: float) -> Tensor:
        """Adds a gradient to its momentum, and returns the Nesterov step."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity: Tensor = state["momentum_buffer"]
        velocity.mul_(momentum).add_(weight.grad)
        return weight.grad.add(velocity, alpha=momentum)


def grouped_by_shape(weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yields the weights that have a gradient, in lists of equal shape."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        if weight.grad is not None:
            shapes.setdefault(weight.shape, []).append(weight)
    yield from shapes.values()


def orthogonal(matrices: Tensor) -> Tensor:
    """Returns matrices with the same singular vectors, whose singular values are about one.

    Args:
        matrices: float (N, rows, columns).
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for rounds in ROUNDS:
        x = polynomial(x @ x.mT, rounds) @ x
    return x


def polynomial(square: Tensor, rounds: int) -> Tensor:
    """Returns the matrices p with which x becomes p @ x in some rounds of the quintic.

    All rounds multiply x from the left by polynomials of x @ x.mT, so they need x only once.

    Args:
        square: float (N, rows, rows), x @ x.mT.
        rounds: number of applications of the quintic.
    """
    identity = torch.eye(square.shape[1], dtype=square.dtype, device=square.device)
    once = FIRST * identity + THIRD * square + FIFTH * square @ square
    return once if rounds == 1 else polynomial(once @ square @ once, rounds - 1) @ once
