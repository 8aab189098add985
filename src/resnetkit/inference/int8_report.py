"""What int8 costs a network and what it gains: the content of int8.json."""

from dataclasses import dataclass

from resnetkit.data.splits import Split
from resnetkit.errors import UsageError
from resnetkit.evaluation.metrics import error_rate
from resnetkit.evaluation.paired import ErrorDifference
from resnetkit.inference.exported import INT8_FILE, ExportedNetwork

__all__ = ["Accuracy", "Attempt", "Budget", "Int8Report", "Speedup", "read_int8"]

MOST_POINTS = 10
LARGEST_REPORT = 2**20  # bytes


@dataclass(frozen=True)
class Accuracy:
    """How the answers of int8 compare with those of float32 on the images of a split.

    Attributes:
        split: validation or test.
        images: their number.
        agreement: percentage with the same most probable class.
        error: of int8, in percent.
        float_error: of float32, in percent.
        difference: of the two errors, in points.
    """

    split: Split
    images: int
    agreement: float
    error: float
    float_error: float
    difference: ErrorDifference

    def __str__(self) -> str:
        more = self.difference
        return (
            f"{self.agreement:.2f} % of {self.images:,} {self.split} images get the class of"
            f" float32; error {self.error:.2f} % instead of {self.float_error:.2f} %:"
            f" {more.points:+.2f} points (95 % interval {more.low:+.2f} to {more.high:+.2f})"
        )


@dataclass(frozen=True)
class Budget:
    """What int8 may cost.

    Attributes:
        agreement: percentage of the images that must get the class of float32.
        points: of error that may be added, at the upper end of the interval.

    Raises:
        UsageError: when one of them is out of range.
    """

    agreement: float = 98.5
    points: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.points <= MOST_POINTS:
            raise UsageError(
                f"a budget of {self.points:g} points of error: expected more than 0 and at most"
                f" {MOST_POINTS}."
            )
        assert 0 <= self.agreement < 100

    def used(self, accuracy: Accuracy) -> float:
        """Returns the fraction of the budget that an accuracy uses: up to 1 it holds."""
        disagreement = (100 - accuracy.agreement) / (100 - self.agreement)
        return max(disagreement, accuracy.difference.high / self.points)

    def __str__(self) -> str:
        return (
            f"at least {self.agreement:g} % the same class, and an interval that ends at"
            f" {self.points:+g} points or below"
        )


@dataclass(frozen=True)
class Attempt:
    """A candidate and what came of it.

    Attributes:
        candidate: its description.
        accuracy: on the validation split; None if NNCF failed.
        problem: why NNCF failed.
    """

    candidate: str
    accuracy: Accuracy | None
    problem: str | None = None


@dataclass(frozen=True)
class Speedup:
    """How many times the images per second of float32 int8 computes on this machine.

    Attributes:
        best: each at its best size of batch; the median of several rounds.
        low: of the rounds.
        high: of the rounds.
        single: the median for batches of one image.
    """

    best: float
    low: float
    high: float
    single: float


@dataclass(frozen=True)
class Int8Report:
    """The content of int8.json.

    Attributes:
        data: name of the data set.
        calibration_images: from its training split.
        budget: that had to hold.
        attempts: candidates in the order in which they were tried; the last one was written.
        test: accuracy on the test split, of the candidate that was written; None without a test
            split.
        learned: number of validation images that the network was trained on, according to its run.
        speedup: against float32 on this machine.
        processor: its name: the accuracy is that of this file on this processor.
        processor_features: its instructions; see `processor_features`.
    """

    data: str
    calibration_images: int
    budget: Budget
    attempts: tuple[Attempt, ...]
    test: Accuracy | None
    learned: int
    speedup: Speedup
    processor: str
    processor_features: tuple[str, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Returns what speaks against the choice, as sentences."""
        validation, doubts = self.attempts[-1].accuracy, []
        if self.learned:
            doubts.append(
                f"The network was trained on {self.learned:,} of the validation images, so that"
                " they do not show what int8 costs on other images."
            )
        elif validation and self.test and is_familiar(validation, self.test):
            doubts.append(
                f"The error of float32 is {validation.float_error:.2f} % on validation images and"
                f" {self.test.float_error:.2f} % on test images: the network has probably been"
                " trained on the validation images, so that they do not show what int8 costs on"
                " other images."
            )
        if self.test and self.budget.used(self.test) > 1:
            doubts.append(f"On the test images the budget does not hold ({self.budget}).")
        return tuple(doubts)


def is_familiar(validation: Accuracy, test: Accuracy) -> bool:
    """Returns whether float32 makes surely fewer errors on validation than on test images."""
    ends = []
    for accuracy in (validation, test):
        wrong = round(accuracy.float_error * accuracy.images / 100)
        ends.append(error_rate(wrong, accuracy.images))
    return ends[0].high < ends[1].low


def read_int8(network: ExportedNetwork) -> Int8Report:
    """Reads how an exported int8 graph was chosen.

    Raises:
        WeightsError: when the file is missing or corrupt.
    """
    return network.record(INT8_FILE, Int8Report, LARGEST_REPORT)
