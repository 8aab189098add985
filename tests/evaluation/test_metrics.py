"""Metrics against scikit-learn and against slow, obvious twins."""

import math
from dataclasses import fields

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from resnetkit.evaluation.metrics import (
    Floats,
    Integers,
    Outcomes,
    calibration_error,
    error_rate,
    measure,
    measure_outcomes,
    top_k_wrong,
)

NAMES = tuple("abcdefgh")


def predictions(count: int = 500, classes: int = 8, seed: int = 0) -> tuple[Floats, Integers]:
    """Returns probabilities that know something of the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    exponents = np.exp(logits)
    return exponents / exponents.sum(1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(5))
def test_all_agree_with_scikit_learn(seed: int) -> None:
    probabilities, labels = predictions(seed=seed)
    predicted = probabilities.argmax(1)
    found = measure(probabilities, labels, NAMES)
    accuracy = sklearn_metrics.accuracy_score(labels, predicted)
    top5 = sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5)
    assert found.top1.error == pytest.approx(100 * (1 - accuracy))
    assert found.top5.error == pytest.approx(100 * (1 - top5))
    assert found.loss == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))
    matrix = sklearn_metrics.confusion_matrix(labels, predicted)
    assert found.confusion == tuple(map(tuple, matrix.tolist()))
    recalls = sklearn_metrics.recall_score(labels, predicted, average=None)
    precisions = sklearn_metrics.precision_score(labels, predicted, average=None)
    for score, recall, precision in zip(found.classes, recalls, precisions, strict=True):
        assert score.error == pytest.approx(100 * (1 - recall))
        assert score.precision == pytest.approx(100 * precision)
    assert sum(score.images for score in found.classes) == found.images == 500


def sureness(probabilities: Floats, labels: Integers) -> tuple[Floats, np.ndarray]:
    """Returns the confidence of each prediction, and whether it is right."""
    return probabilities.max(1), probabilities.argmax(1) == labels


def slow_calibration_error(probabilities: Floats, labels: Integers, bins: int) -> float:
    """Returns the formula of Guo et al. 2017, eq. 3, bin by bin."""
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if low < row.max() <= high
        ]
        if members:
            confidence = math.fsum(c for c, _ in members) / len(members)
            accuracy = sum(right for _, right in members) / len(members)
            total += len(members) / len(labels) * abs(accuracy - confidence)
    return 100 * total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_the_formula(bins: int) -> None:
    probabilities, labels = predictions()
    expected = slow_calibration_error(probabilities, labels, bins)
    assert calibration_error(*sureness(probabilities, labels), bins) == pytest.approx(expected)
    assert expected > 1


def test_calibration_of_known_cases() -> None:
    sure = np.eye(4)[[0, 1, 2, 3]]
    assert calibration_error(*sureness(sure, np.array([0, 1, 2, 3]))) == pytest.approx(0)
    assert calibration_error(*sureness(sure, np.array([1, 2, 3, 0]))) == pytest.approx(100)
    guesses = np.full((4, 4), 0.25)
    assert calibration_error(*sureness(guesses, np.array([0, 1, 2, 3]))) == pytest.approx(0)


def test_the_interval_is_wilsons() -> None:
    found = error_rate(875, 10_000)
    share, count, z = 0.0875, 10_000, 1.959963984540054
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    assert found.error == pytest.approx(8.75)
    assert (found.low, found.high) == pytest.approx((100 * (center - half), 100 * (center + half)))


@pytest.mark.parametrize("wrong", [0, 3])
def test_an_interval_never_leaves_what_is_possible(wrong: int) -> None:
    found = error_rate(wrong, 3)
    assert 0 <= found.low <= found.error <= found.high <= 100
    assert found.high - found.low > 40


def test_up_to_five_classes_are_never_wrong_of_five() -> None:
    probabilities, labels = predictions(classes=5)
    assert top_k_wrong(probabilities, labels, 5) == 0
    assert top_k_wrong(probabilities, labels, 1) == (probabilities.argmax(1) != labels).sum()


def test_a_class_nobody_has_or_names_is_no_number() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    found = measure(probabilities, np.array([0, 1]), ("a", "b", "c"))
    assert math.isnan(found.classes[2].error)
    assert math.isnan(found.classes[2].precision)
    assert math.isnan(found.classes[1].precision)
    assert found.classes[1].error == 100


def test_certainty_of_the_wrong_class_stays_finite() -> None:
    found = measure(np.eye(2), np.array([1, 0]), ("a", "b"))
    assert math.isfinite(found.loss)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_outcomes_of_batches_are_those_of_all_images(size: int) -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.ones(9), 500).round(2)  # with ties
    labels = generator.integers(0, 9, 500)
    names = [str(label) for label in range(9)]
    parts = [
        Outcomes.of(probabilities[start : start + size], labels[start : start + size])
        for start in range(0, 500, size)
    ]
    together = Outcomes.joined(parts)
    assert measure_outcomes(together, names) == measure(probabilities, labels, names)
    kept = sum(getattr(together, field.name).nbytes for field in fields(Outcomes))
    assert kept == 500 * 33  # bytes, however many classes there are
