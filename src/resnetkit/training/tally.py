"""Exact sums of loss and errors, kept on the device until someone reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.training.world import ChosenPrecision, World

__all__ = ["Score", "Tally", "score"]

TOP = 5


@dataclass(frozen=True)
class Score:
    """Averages over some samples.

    Attributes:
        loss: mean cross entropy, in nats, without label smoothing.
        error: top-1 error in percent.
        top5_error: in percent; of fewer than six classes it is 0.
        count: samples.
    """

    loss: float
    error: float
    top5_error: float
    count: int


class Tally:
    """Sums of loss, top-1 errors, top-5 errors and samples.

    Attributes:
        sums: float64 (4,); counts in it are exact up to 2**53.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch.

        Args:
            logits: float32 (B, K).
            labels: int64 (B,).
        """
        logits = logits.detach()
        losses = functional.cross_entropy(logits, labels, reduction="sum")
        hits = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
        wrong, wrong5 = len(labels) - hits[:, 0].sum(), len(labels) - hits.sum()
        self.sums += torch.stack([losses, wrong, wrong5, torch.full_like(losses, len(labels))])

    def score(self, world: World) -> Score:
        """Returns the averages over the samples that all ranks have counted."""
        loss, wrong, wrong5, count = world.sum(self.sums).tolist()
        return Score(loss / count, 100 * wrong / count, 100 * wrong5 / count, int(count))

    def clear(self) -> None:
        """Forgets everything counted."""
        self.sums.zero_()


@torch.inference_mode()
def score(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    world: World,
    precision: ChosenPrecision,
) -> tuple[Score, Tensor]:
    """Measures a model without changing it: single view, running statistics of batch normalisation.

    Args:
        model: images (B, C, H, W) -> logits (B, K).
        batches: this rank's images, float (B, C, H, W), and labels, int64 (B,).
        num_classes: K.
        world: whose ranks' counts are added.
        precision: of the forward pass.

    Returns:
        The averages, and the confusion matrix: int64 (K, K), true classes in rows, predicted in columns.
    """
    was_training = model.training
    model.eval()
    tally = Tally(world.device)
    cells = torch.zeros(num_classes**2, dtype=torch.int64, device=world.device)
    for images, labels in batches:
        with precision.autocast():
            logits = model(images)
        tally.add(logits.float(), labels)
        cells += torch.bincount(labels * num_classes + logits.argmax(1), minlength=len(cells))
    model.train(was_training)
    return tally.score(world), world.sum(cells).reshape(num_classes, num_classes)
