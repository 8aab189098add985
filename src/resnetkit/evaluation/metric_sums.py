"""Sums of loss and errors, which stay on the device until they are read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.runtime.precision import ChosenPrecision
from resnetkit.runtime.process_group import World

__all__ = ["TOP", "MetricSums", "Score", "SplitScore", "batch_sums", "outside_top_k", "score"]

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


@dataclass(frozen=True)
class SplitScore:
    """A network measured on a split.

    Attributes:
        single: averages for a single view of each image.
        confusion: int64 (K, K), for a single view: true classes in rows, predicted in columns.
        flipped: averages where the probabilities of an image and its horizontal flip are averaged;
            None where flips were not measured.
    """

    single: Score
    confusion: Tensor
    flipped: Score | None = None


def batch_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the sums over a batch of loss, top-1 errors, top-5 errors and samples: float64 (4,).

    Args:
        logits: float32 (B, K).
        labels: int64 (B,).
    """
    losses = functional.cross_entropy(logits, labels, reduction="sum")
    wrong = (logits.argmax(1) != labels).sum()  # as in the confusion matrix, also for ties
    top5_wrong = outside_top_k(logits, labels, TOP).sum()
    samples = torch.full_like(losses, len(labels))
    return torch.stack([losses, wrong, top5_wrong, samples]).double()


def outside_top_k(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Returns whether at least k classes have a higher score than the label's: bool (B,).

    A score that is NaN counts as higher, so that a network that outputs NaN is never right.

    Args:
        scores: logits or probabilities, float (B, K).
        labels: int64 (B,).
        k: such as 5.
    """
    of_label = scores.gather(1, labels[:, None])
    return (~(scores <= of_label)).sum(1) >= k


class MetricSums:
    """The metric sums of one rank, on the device; counts up to 2**53 are exact.

    Attributes:
        sums: float64 (4,), as `batch_sums` returns them.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, counts: Tensor) -> None:
        """Adds the sums that `batch_sums` returns for a batch."""
        self.sums += counts

    def score(self, world: World) -> Score:
        """Returns the averages over the samples of all ranks."""
        loss, wrong, top5_wrong, samples = world.sum(self.sums).tolist()
        return Score(
            loss / samples, 100 * wrong / samples, 100 * top5_wrong / samples, int(samples)
        )

    def load(self, sums: Sequence[float]) -> None:
        """Replaces the sums by saved ones."""
        self.sums.copy_(torch.tensor(sums, dtype=torch.float64))

    def clear(self) -> None:
        """Sets all sums to zero."""
        self.sums.zero_()


@torch.inference_mode()
def score(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    world: World,
    precision: ChosenPrecision,
    flip: bool = False,
) -> SplitScore:
    """Evaluates a model in evaluation mode.

    Args:
        model: images (B, C, H, W) -> logits (B, K).
        batches: this rank's images, float (B, C, H, W), and labels, int64 (B,).
        num_classes: K.
        world: the ranks whose sums are added.
        precision: of the forward pass.
        flip: whether the error with horizontal flips averaged is measured too.
    """
    was_training = model.training
    model.eval()
    single, flipped = MetricSums(world.device), MetricSums(world.device)
    cells = torch.zeros(num_classes**2, dtype=torch.int64, device=world.device)
    for images, labels in batches:
        with precision.autocast():
            views = [model(view) for view in ([images, images.flip(3)] if flip else [images])]
        logits = views[0].float()
        single.add(batch_sums(logits, labels))
        cells.index_add_(0, labels * num_classes + logits.argmax(1), torch.ones_like(labels))
        if flip:
            flipped.add(batch_sums(averaged(views), labels))
    model.train(was_training)
    confusion = world.sum(cells).reshape(num_classes, num_classes)
    return SplitScore(single.score(world), confusion, flipped.score(world) if flip else None)


def averaged(views: Sequence[Tensor]) -> Tensor:
    """Returns logits (B, K) whose probabilities are the mean of those of the views (B, K)."""
    return torch.stack([view.double().softmax(1) for view in views]).mean(0).log().float()
