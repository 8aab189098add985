"""Metrics of a classifier, from its probabilities and the labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from resnetkit.evaluation.metric_sums import TOP, outside_top_k

__all__ = [
    "CONFIDENCE_BINS",
    "ClassScore",
    "ErrorRate",
    "Floats",
    "Metrics",
    "Mistake",
    "calibration_error",
    "class_scores",
    "error_rate",
    "measure",
    "mistakes",
    "top_k_wrong",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CONFIDENCE_LEVEL = 0.95
CONFIDENCE_BINS = 15  # Guo et al. 2017


@dataclass(frozen=True)
class ErrorRate:
    """An error in percent, with its 95 % confidence interval.

    Attributes:
        error: on these images.
        low: lower end of the interval by Wilson 1927, which also holds for small counts.
        high: its upper end.
    """

    error: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """The results for one class.

    Attributes:
        name: of the class.
        images: number of images with this label.
        error: percentage of them with another prediction; NaN without images.
        precision: percentage of correct predictions among the predictions of this class; NaN
            without predictions.
    """

    name: str
    images: int
    error: float
    precision: float


@dataclass(frozen=True)
class Metrics:
    """The metrics of a classifier on some images.

    Attributes:
        images: their number.
        top1: error of the most probable class.
        top5: error of the five most probable classes; 0 with up to five classes.
        loss: mean cross entropy, in nats.
        calibration_error: expected calibration error in percent; see `calibration_error`.
        classes: one entry for each class.
        confusion: images by true class (rows) and predicted class (columns).
    """

    images: int
    top1: ErrorRate
    top5: ErrorRate
    loss: float
    calibration_error: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]


def measure(probabilities: Floats, labels: Integers, class_names: Sequence[str]) -> Metrics:
    """Computes the metrics of a network's predictions.

    Args:
        probabilities: float64 (N, K), each row adding up to 1.
        labels: int64 (N,), from 0.
        class_names: K names.
    """
    from sklearn.metrics import confusion_matrix

    predicted = probabilities.argmax(1)
    matrix = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    return Metrics(
        images=len(labels),
        top1=error_rate(int((predicted != labels).sum()), len(labels)),
        top5=error_rate(top_k_wrong(probabilities, labels, TOP), len(labels)),
        loss=cross_entropy(probabilities, labels),
        calibration_error=calibration_error(probabilities, labels),
        classes=class_scores(matrix, class_names),
        confusion=tuple(tuple(map(int, row)) for row in matrix),
    )


def error_rate(wrong: int, count: int) -> ErrorRate:
    """Returns an error with its confidence interval."""
    from scipy.stats import binomtest

    interval = binomtest(wrong, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return ErrorRate(100 * wrong / count, 100 * float(interval.low), 100 * float(interval.high))


def top_k_wrong(probabilities: Floats, labels: Integers, k: int) -> int:
    """Returns the number of images whose class is not among the k most probable."""
    wrong = outside_top_k(torch.from_numpy(probabilities), torch.from_numpy(labels), k)
    return int(wrong.sum())


def cross_entropy(probabilities: Floats, labels: Integers) -> float:
    """Returns the mean of -log(probability of the true class), in nats."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(of_label.clip(np.finfo(np.float64).tiny)).mean())


def calibration_error(
    probabilities: Floats, labels: Integers, bins: int = CONFIDENCE_BINS
) -> float:
    """Returns the expected calibration error in percent: Guo et al. 2017, eq. 3.

    Images are binned by the probability of their most probable class; the error is the distance
    between mean confidence and accuracy of a bin, averaged over images.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bin_of = np.ceil(confidence * bins).astype(np.int64).clip(1, bins) - 1
    gaps = np.bincount(bin_of, weights=confidence - correct, minlength=bins)  # sums of bins
    return float(100 * np.abs(gaps).sum() / len(labels))


def class_scores(matrix: Integers, class_names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Returns the scores of each class, from the confusion matrix (K, K)."""
    correct, images, predictions = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return tuple(
        ClassScore(
            name=name,
            images=int(images[k]),
            error=percent(int(images[k] - correct[k]), int(images[k])),
            precision=percent(int(correct[k]), int(predictions[k])),
        )
        for k, name in enumerate(class_names)
    )


def percent(count: int, total: int) -> float:
    """Returns a fraction in percent; NaN for a total of 0."""
    return 100 * count / total if total else float("nan")


@dataclass(frozen=True)
class Mistake:
    """How often images of one class were predicted as another.

    Attributes:
        true: label of the class.
        predicted: label of the prediction.
        count: number of these images.
        total: images of the true class.
    """

    true: int
    predicted: int
    count: int
    total: int


def mistakes(confusion: Sequence[Sequence[int]]) -> list[Mistake]:
    """Returns the mistakes in a matrix (true class, predicted class), the most frequent first."""
    counts = [
        Mistake(true, predicted, count, sum(row))
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(counts, key=lambda mistake: -mistake.count)
