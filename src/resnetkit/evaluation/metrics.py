"""Metrics of a classifier, from its probabilities and the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
TOP = 5


@dataclass(frozen=True)
class ErrorRate:
    """A share of wrong answers, in percent, and where it could lie on other images of this kind.

    Attributes:
        error: of these images.
        low: lower end of the 95 % interval by Wilson 1927, which holds for small counts too.
        high: its upper end.
    """

    error: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """What became of one class.

    Attributes:
        name: of the class.
        images: that belong to it.
        error: share of them that were taken for another class, in percent; not a number without
            images.
        precision: share of right ones among the images that were taken for it, in percent; not a
            number when there were none.
    """

    name: str
    images: int
    error: float
    precision: float


@dataclass(frozen=True)
class Metrics:
    """All that is measured on some images.

    Attributes:
        images: how many.
        top1: error of the most probable class.
        top5: images whose class is not among the five most probable; with up to five classes 0.
        loss: mean cross entropy in nats.
        calibration_error: expected calibration error in percent; see `calibration_error`.
        classes: one entry a class.
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
    """Measures what a network said of some images.

    Args:
        probabilities: float64 (N, K), each row adding up to 1.
        labels: int64 (N,), from 0.
        class_names: K of them.
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
    """Returns the share of wrong answers with its interval."""
    from scipy.stats import binomtest

    interval = binomtest(wrong, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return ErrorRate(100 * wrong / count, 100 * float(interval.low), 100 * float(interval.high))


def top_k_wrong(probabilities: Floats, labels: Integers, k: int) -> int:
    """Returns how many images have at least k classes that are more probable than their own."""
    own = probabilities[np.arange(len(labels)), labels]
    return int(((probabilities > own[:, None]).sum(1) >= k).sum())


def cross_entropy(probabilities: Floats, labels: Integers) -> float:
    """Returns the mean of -log(probability of the true class), in nats."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(own.clip(np.finfo(np.float64).tiny)).mean())


def calibration_error(
    probabilities: Floats, labels: Integers, bins: int = CONFIDENCE_BINS
) -> float:
    """Returns the expected calibration error in percent: Guo et al. 2017, eq. 3.

    The images are put into bins by the probability of their most probable class; the error is the
    distance between mean confidence and share of right answers, averaged over images.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    places = np.ceil(confidence * bins).astype(np.int64).clip(1, bins) - 1
    gaps = np.bincount(places, weights=confidence - right, minlength=bins)  # summed a bin
    return float(100 * np.abs(gaps).sum() / len(labels))


def class_scores(matrix: Integers, class_names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Returns the scores of each class, from the confusion matrix (K, K)."""
    right, images, answers = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return tuple(
        ClassScore(
            name=name,
            images=int(images[k]),
            error=percent(int(images[k] - right[k]), int(images[k])),
            precision=percent(int(right[k]), int(answers[k])),
        )
        for k, name in enumerate(class_names)
    )


def percent(part: int, whole: int) -> float:
    """Returns a share in percent; not a number when there is no whole."""
    return 100 * part / whole if whole else float("nan")


@dataclass(frozen=True)
class Mistake:
    """How often images of one class were taken for another.

    Attributes:
        true: label of the class.
        predicted: label of what it was taken for.
        count: of images.
        total: images of the true class.
    """

    true: int
    predicted: int
    count: int
    total: int


def mistakes(confusion: Sequence[Sequence[int]]) -> list[Mistake]:
    """Returns the mistakes in a matrix (true class, predicted class), the most frequent first."""
    found = [
        Mistake(true, predicted, count, sum(row))
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda mistake: -mistake.count)
