"""Metrics of a classifier, from its probabilities and the labels."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

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
    "Outcomes",
    "calibration_error",
    "class_scores",
    "error_rate",
    "measure",
    "measure_outcomes",
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


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the metrics need of the probabilities of N images: five numbers each, whatever K is.

    Attributes:
        labels: int64 (N,), from 0.
        predicted: the most probable classes, int64 (N,).
        confidence: their probabilities, float64 (N,).
        of_label: probabilities of the labels, float64 (N,).
        outside_top5: whether a label is not among the five most probable classes, bool (N,).
    """

    labels: Integers
    predicted: Integers
    confidence: Floats
    of_label: Floats
    outside_top5: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, probabilities: Floats, labels: Integers) -> "Outcomes":
        """Returns the outcomes of probabilities, float64 (N, K), each row adding up to 1."""
        return cls(
            labels=labels,
            predicted=probabilities.argmax(1),
            confidence=probabilities.max(1),
            of_label=probabilities[np.arange(len(labels)), labels],
            outside_top5=wrong_at(probabilities, labels, TOP),
        )

    @classmethod
    def joined(cls, parts: Sequence["Outcomes"]) -> "Outcomes":
        """Returns the outcomes of several batches."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def measure(probabilities: Floats, labels: Integers, class_names: Sequence[str]) -> Metrics:
    """Computes the metrics of a network's predictions.

    Args:
        probabilities: float64 (N, K), each row adding up to 1.
        labels: int64 (N,), from 0.
        class_names: K names.
    """
    return measure_outcomes(Outcomes.of(probabilities, labels), class_names)


def measure_outcomes(outcomes: Outcomes, class_names: Sequence[str]) -> Metrics:
    """Computes the metrics of outcomes; see `measure`."""
    from sklearn.metrics import confusion_matrix

    labels, predicted = outcomes.labels, outcomes.predicted
    matrix = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    return Metrics(
        images=len(labels),
        top1=error_rate(int((predicted != labels).sum()), len(labels)),
        top5=error_rate(int(outcomes.outside_top5.sum()), len(labels)),
        loss=cross_entropy(outcomes.of_label),
        calibration_error=calibration_error(outcomes.confidence, predicted == labels),
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
    return int(wrong_at(probabilities, labels, k).sum())


def wrong_at(probabilities: Floats, labels: Integers, k: int) -> npt.NDArray[np.bool_]:
    """Returns whether the class of an image is not among the k most probable: bool (N,)."""
    return outside_top_k(torch.from_numpy(probabilities), torch.from_numpy(labels), k).numpy()


def cross_entropy(of_label: Floats) -> float:
    """Returns the mean of -log(probability of the true class), in nats."""
    return float(-np.log(of_label.clip(np.finfo(np.float64).tiny)).mean())


def calibration_error(
    confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = CONFIDENCE_BINS
) -> float:
    """Returns the expected calibration error in percent: Guo et al. 2017, eq. 3.

    Images are binned by the probability of their most probable class; the error is the distance
    between mean confidence and accuracy of a bin, averaged over images.

    Args:
        confidence: probabilities of the predicted classes, (N,).
        correct: whether the predictions are right, (N,).
        bins: their number.
    """
    bin_of = np.ceil(confidence * bins).astype(np.int64).clip(1, bins) - 1
    gaps = np.bincount(bin_of, weights=confidence - correct, minlength=bins)  # sums of bins
    return float(100 * np.abs(gaps).sum() / len(confidence))


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
