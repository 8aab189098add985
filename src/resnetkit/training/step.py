"""One step of a training: the gradient of a batch, and the optimizers' update."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resnetkit.evaluation.metric_sums import batch_sums
from resnetkit.training.setup import TrainingSetup
from resnetkit.training.state import TrainingState

__all__ = ["NotFinite", "Step", "apply_gradient", "take_gradient", "train_step"]


@dataclass(frozen=True)
class Step:
    """A step that was taken, or refused.

    Attributes:
        lr: learning rate.
        loss: mean cross entropy of this rank's images, in nats, with label smoothing.
        gradient_norm: norm of the whole gradient, before clipping.
    """

    lr: float
    loss: Tensor
    gradient_norm: Tensor


class NotFinite(Exception):
    """The loss or the gradient of a step is infinite or NaN on some rank.

    Attributes:
        step: that was not taken.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.step = step


def train_step(
    setup: TrainingSetup, state: TrainingState, images: Tensor, labels: Tensor
) -> tuple[TrainingState, Step]:
    """Takes a step of the training.

    Args:
        setup: of the training.
        state: before the step; its tensors are updated in place.
        images: float32 (B, C, H, W), normalized, this rank's images of the batch.
        labels: int64 (B,), or float32 (B, K) of mixed images.

    Returns:
        The state after the step, and the step.

    Raises:
        NotFinite: before anything but the metrics is changed.
    """
    lr = setup.learning_rate.lr(state.step, state.schedule)
    loss, norm = take_gradient(setup, state, images, labels)
    step = Step(lr, loss, norm)
    if setup.world.any(not bool(torch.isfinite(loss + norm)))[0]:
        raise NotFinite(step)
    apply_gradient(setup, state, lr, norm)
    return replace(state, step=state.step + 1), step


def take_gradient(
    setup: TrainingSetup, state: TrainingState, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Runs a batch forward and backward; returns the loss and the norm of the whole gradient."""
    state.model.zero_grad(set_to_none=True)
    total_weight = mean_weight(setup, labels)
    losses = []
    for micro_images, micro_labels, is_last in micro_batches(setup, images, labels):
        scale = weight_of(setup, micro_labels) / total_weight
        with setup.world.no_sync(state.parallel, last=is_last):
            losses.append(add_gradient(setup, state, micro_images, micro_labels, scale))
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    return torch.stack(losses).sum(), get_total_norm(gradients)


def micro_batches(
    setup: TrainingSetup, images: Tensor, labels: Tensor
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yields the micro-batches of a batch, and whether each is the last."""
    size = setup.recipe.micro_batch or len(labels)
    for first in range(0, len(labels), size):
        end = first + size
        yield images[first:end], labels[first:end], end >= len(labels)


def add_gradient(
    setup: TrainingSetup, state: TrainingState, images: Tensor, labels: Tensor, scale: float
) -> Tensor:
    """Adds the scaled gradient of a micro-batch, counts its errors, and returns its scaled loss."""
    with setup.precision.autocast():
        logits = state.parallel(images)
    logits = logits.float()
    smoothing = setup.recipe.label_smoothing
    mean = functional.cross_entropy(logits, labels, setup.class_weights, label_smoothing=smoothing)
    loss = mean * scale
    loss.backward()
    is_mixed = labels.dim() == 2
    classes = labels.argmax(1) if is_mixed else labels  # the class of the largest weight
    counts = batch_sums(logits.detach(), classes)
    state.epoch.add(counts)
    state.interval.add(counts)
    return loss.detach()


def mean_weight(setup: TrainingSetup, labels: Tensor) -> float:
    """Returns the weight of a rank's images, averaged over ranks, whose gradients are averaged."""
    weight = weight_of(setup, labels)
    if setup.class_weights is None or setup.world.size == 1:
        return weight
    summed = setup.world.sum(torch.tensor(weight, dtype=torch.float64, device=labels.device))
    return summed.item() / setup.world.size


def weight_of(setup: TrainingSetup, labels: Tensor) -> float:
    """Returns the weight of images in the mean of the loss: their number, or by their classes."""
    if setup.class_weights is None:
        return float(len(labels))
    return setup.class_weights[labels].sum().item()


def apply_gradient(setup: TrainingSetup, state: TrainingState, lr: float, norm: Tensor) -> None:
    """Updates the parameters with the gradient they hold.

    Args:
        setup: of the training.
        state: whose tensors are updated.
        lr: learning rate of the groups whose `lr_scale` is 1.
        norm: of the whole gradient, by which it is clipped where the recipe asks for that.
    """
    if setup.recipe.gradient_clip:
        clip_grads_with_norm_(state.model.parameters(), setup.recipe.gradient_clip, norm)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        with setup.precision.autocast():  # for the matrix products of Muon
            optimizer.step()
    if state.averaged is not None:
        state.averaged.update_parameters(state.model)
