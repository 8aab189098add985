"""Losses and errors against scikit-learn, and sums that are the same for any number of ranks."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnetkit.evaluation import metrics
from resnetkit.evaluation.metric_sums import MetricSums, Score, batch_sums, outside_top_k, score
from resnetkit.models.zoo import create_model
from resnetkit.runtime.precision import choose_precision
from resnetkit.runtime.process_group import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
EXACT = choose_precision("float32", CPU)


@dataclass(frozen=True)
class FakeWorld(World):
    """A world whose other ranks have counted nothing but what is given."""

    others: tuple[Tensor, ...] = ()

    def gather(self, values: Tensor) -> Tensor:
        return torch.stack([values, *self.others])


def random_logits(classes: int, samples: int = 997) -> tuple[Tensor, Tensor]:
    """Returns logits that are right about half of the time, and labels."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (samples,), generator=generator)
    logits = torch.randn(samples, classes, generator=generator)
    logits[torch.arange(samples), labels] += 1.5
    return logits, labels


def measure(logits: Tensor, labels: Tensor, batch_size: int = 100) -> tuple[Score, Tensor]:
    batches = zip(logits.split(batch_size), labels.split(batch_size), strict=True)
    measured = score(nn.Identity(), batches, logits.shape[1], world=ALONE, precision=EXACT)
    assert measured.flipped is None
    return measured.single, measured.confusion


@pytest.mark.parametrize("classes", [6, 10, 100])
def test_scores_are_those_of_scikit_learn(classes: int) -> None:
    logits, labels = random_logits(classes)
    ours, confusion = measure(logits, labels)
    known, names = labels.numpy(), range(classes)
    shares = logits.double().softmax(1).numpy()
    assert ours.count == 997
    assert ours.loss == pytest.approx(log_loss(known, shares, labels=names), rel=1e-6)
    guessed = logits.argmax(1).numpy()
    assert ours.error == pytest.approx(100 * (1 - accuracy_score(known, guessed)))
    top5 = top_k_accuracy_score(known, logits.numpy(), k=5, labels=names)
    assert ours.top5_error == pytest.approx(100 * (1 - top5))
    np.testing.assert_array_equal(confusion, confusion_matrix(known, guessed, labels=names))


@pytest.mark.parametrize("classes", [2, 5])
def test_of_five_classes_or_less_the_top_five_are_never_wrong(classes: int) -> None:
    assert measure(*random_logits(classes))[0].top5_error == 0


@pytest.mark.parametrize("batch_size", [1, 7, 997])
def test_the_size_of_batches_changes_nothing(batch_size: int) -> None:
    logits, labels = random_logits(10)
    ours, confusion = measure(logits, labels, batch_size)
    whole, whole_confusion = measure(logits, labels, 997)
    assert ours.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (ours.error, ours.top5_error, ours.count) == (whole.error, whole.top5_error, 997)
    assert torch.equal(confusion, whole_confusion)


class Allocations(TorchDispatchMode):
    """Counts the tensors that operations make, rather than change, by their number of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not any(made is argument for argument in args):
            self.elements[made.numel()] += 1
        return made


def test_a_batch_costs_nothing_for_pairs_of_classes_that_it_lacks() -> None:
    """Else a batch of ImageNet would pass over a million cells of the confusion matrix."""
    counts = []
    for batch_size in (997, 90):
        with Allocations() as allocations:
            measure(*random_logits(100), batch_size)
        counts.append(allocations.elements[100 * 100])
    assert counts[0] == counts[1] > 0


def test_the_error_and_the_confusion_matrix_agree_when_logits_are_equal() -> None:
    logits, labels = random_logits(10)
    ours, confusion = measure(logits.round(), labels)
    assert ours.error == pytest.approx(100 * (1 - confusion.trace().item() / ours.count))


def test_two_ranks_together_count_what_one_does() -> None:
    logits, labels = random_logits(10)
    halves = [(logits[rank::2], labels[rank::2]) for rank in range(2)]
    first, second = (batch_sums(*half) for half in halves)
    sums = MetricSums(CPU)
    sums.add(first)
    together = sums.score(FakeWorld(0, 2, CPU, (second,)))
    alone, _ = measure(logits, labels)
    assert together.loss == pytest.approx(alone.loss, rel=1e-6)
    assert (together.error, together.top5_error) == (alone.error, alone.top5_error)
    assert together.count == 997


def test_sums_add_and_clear() -> None:
    logits, labels = random_logits(10)
    sums = MetricSums(CPU)
    for part, known in zip(logits.split(100), labels.split(100), strict=True):
        sums.add(batch_sums(part, known))
    assert sums.score(ALONE).count == 997
    sums.clear()
    sums.add(batch_sums(logits[:3], labels[:3]))
    assert sums.score(ALONE).count == 3


def test_counts_stay_exact_beyond_the_whole_numbers_of_float32() -> None:
    sums = MetricSums(CPU)
    sums.add(torch.tensor([0.0, 2.0**24, 0.0, 2.0**25], dtype=torch.float64))
    sums.add(batch_sums(torch.tensor([[0.0, 9.0]]), torch.tensor([0])))
    assert sums.sums[1:].tolist() == [2**24 + 1, 0, 2**25 + 1]


def test_with_flips_both_errors_are_those_of_their_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 1, 2, 5, generator=generator)
    labels = torch.randint(5, (60,), generator=generator)
    model = nn.Sequential(nn.AdaptiveMaxPool2d((1, 5)), nn.Flatten())
    batches = zip(images.split(16), labels.split(16), strict=True)
    measured = score(model, batches, 5, world=ALONE, precision=EXACT, flip=True)
    logits = images.amax(2).flatten(1).double()
    shares = ((logits.softmax(1) + logits.flip(1).softmax(1)) / 2).numpy()
    known, guessed = labels.numpy(), shares.argmax(1)
    assert measured.flipped is not None
    assert measured.flipped.error == pytest.approx(100 * (1 - accuracy_score(known, guessed)))
    assert measured.flipped.loss == pytest.approx(log_loss(known, shares), rel=1e-6)
    assert measured.single.loss == pytest.approx(log_loss(known, logits.softmax(1).numpy()))
    alone = logits.argmax(1).numpy()
    np.testing.assert_array_equal(measured.confusion, confusion_matrix(known, alone))
    assert measured.single.error != measured.flipped.error


def test_measuring_changes_nothing_in_the_model() -> None:
    model = create_model("resnet20").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.randn(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64)

    score(model, batches(), 10, world=ALONE, precision=EXACT)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_measuring_uses_running_statistics_and_not_those_of_the_batch() -> None:
    model = create_model("resnet20").train()
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    together = score(model, [(images, labels)], 10, world=ALONE, precision=EXACT).single
    batches = zip(images.split(1), labels.split(1), strict=True)
    alone = score(model, batches, 10, world=ALONE, precision=EXACT).single
    assert alone.loss == pytest.approx(together.loss, rel=1e-5)


@pytest.mark.parametrize("classes", [4, 5, 6, 10])
def test_training_and_evaluation_count_the_same_errors_also_of_equal_scores(classes: int) -> None:
    logits, labels = random_logits(classes)
    logits = logits.round()  # whole numbers: many are equal
    ours, _ = measure(logits, labels)
    names = [str(k) for k in range(classes)]
    theirs = metrics.measure(logits.double().softmax(1).numpy(), labels.numpy(), names)
    assert ours.error == theirs.top1.error
    assert ours.top5_error == theirs.top5.error


def test_scores_that_are_not_numbers_are_no_success() -> None:
    logits, labels = torch.full((3, 10), torch.nan), torch.tensor([0, 4, 9])
    assert outside_top_k(logits, labels, 5).all()
