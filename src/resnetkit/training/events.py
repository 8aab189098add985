"""The events of a training, as observers receive them and as JSON stores them."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from resnetkit.data.splits import Split
from resnetkit.evaluation.metric_sums import Score

__all__ = [
    "EpochEvent",
    "Event",
    "FinalEvent",
    "IntervalEvent",
    "Session",
    "SessionData",
    "Timing",
    "event_from_json",
    "event_to_json",
    "finite",
    "session_from_json",
    "timing_from_json",
]


def nan_from_null(value: object) -> object:
    """Returns NaN for null, which stands for a number that is not finite."""
    return math.nan if value is None else value


T = TypeVar("T")
Number = Annotated[float, BeforeValidator(nan_from_null)]


@dataclass(frozen=True)
class Timing:
    """How long an interval took.

    Attributes:
        step: the last step of the interval.
        seconds: since the end of the previous interval.
        images_per_second: during training steps, over all ranks.
    """

    step: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class IntervalEvent:
    """The averages over the steps since the previous interval.

    Attributes:
        step: steps done.
        lr: learning rate of the last step.
        loss: mean cross entropy, in nats.
        error: top-1 training error, in percent.
        gradient_norm: norm of the whole gradient in the last step, before clipping.
        timing: how long the interval took; None when read from metrics.jsonl, which holds no times.
    """

    step: int
    lr: Number
    loss: Number
    error: Number
    gradient_norm: Number
    timing: Timing | None = None


@dataclass(frozen=True)
class EpochEvent:
    """The averages over an epoch. Losses are in nats, errors in percent.

    Attributes:
        epoch: from 1.
        step: steps done.
        train_loss: during training, on augmented images.
        train_error: likewise.
        validation_loss: None where the validation split was not evaluated after this epoch.
        validation_error: likewise.
        test_loss: None where the test split was not evaluated after this epoch.
        test_error: likewise.
    """

    epoch: int
    step: int
    train_loss: Number
    train_error: Number
    validation_loss: float | None = None
    validation_error: float | None = None
    test_loss: float | None = None
    test_error: float | None = None

    @property
    def watched_error(self) -> float | None:
        """Returns the error on the split evaluated during training; None in other epochs."""
        return self.test_error if self.validation_error is None else self.validation_error

    def error(self, split: Split) -> float | None:
        """Returns the error on a split in percent; None where it was not measured."""
        errors = {
            "train": self.train_error,
            "validation": self.validation_error,
            "test": self.test_error,
        }
        return errors[split]


@dataclass(frozen=True)
class FinalEvent:
    """The results of a finished training.

    Attributes:
        step: steps done.
        test: scores on the test split.
        train: scores on the images trained on; None where the recipe does without them.
        validation: scores on the validation split; None where it was trained on.
        test_flipped: scores on the test split with horizontal flips averaged; None where the
            recipe does not ask for them.
        reached: whether training ended early.
        best_epoch: the epoch whose network was kept; None where the recipe has no patience.
        confusion: matrix (K, K) on the test split, true classes in rows, predictions in columns.
    """

    step: int
    test: Score
    train: Score | None = None
    validation: Score | None = None
    test_flipped: Score | None = None
    reached: bool = False
    best_epoch: int | None = None
    confusion: list[list[int]] = field(default_factory=list)

    @property
    def scores(self) -> dict[Split, Score]:
        """Returns the scores of the splits that were measured, with a single view."""
        scores: dict[Split, Score | None] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {split: score for split, score in scores.items() if score is not None}


@dataclass(frozen=True)
class SessionData:
    """The data of a session.

    Attributes:
        name: of the data set, or the path of custom images.
        sha256: digest of the data.
        classes: number and names of the classes, as readable text.
    """

    name: str
    sha256: str
    classes: str = ""


@dataclass(frozen=True)
class Session:
    """One start of a training, and its environment.

    Attributes:
        started: date and time, in UTC.
        from_step: steps done before this session.
        total_steps: of the whole training.
        versions: of Python and the libraries.
        hardware: the machine, and the resources in use.
        precision: its name and the reason for it.
        kernels: likewise.
        data: what is trained on.
    """

    started: str
    from_step: int
    total_steps: int
    versions: dict[str, str]
    hardware: dict[str, str | int]
    precision: dict[str, str]
    kernels: dict[str, str]
    data: SessionData

    @property
    def facts(self) -> dict[str, dict[str, object]]:
        """Returns the fields that describe the environment, by name: all but date and steps."""
        return {key: value for key, value in asdict(self).items() if isinstance(value, dict)}


Event = Session | IntervalEvent | EpochEvent | FinalEvent
"""An event that an observer of a training receives."""

StoredEvent = IntervalEvent | EpochEvent | FinalEvent
KINDS: dict[str, TypeAdapter[Any]] = {
    "interval": TypeAdapter(IntervalEvent),
    "epoch": TypeAdapter(EpochEvent),
    "final": TypeAdapter(FinalEvent),
}
SESSION = TypeAdapter(Session)
TIMING = TypeAdapter(Timing)


def event_to_json(event: StoredEvent) -> dict[str, object]:
    """Returns an event as a line of metrics.jsonl holds it: without times and missing values."""
    if isinstance(event, FinalEvent):
        return final_to_json(event)
    kind = "interval" if isinstance(event, IntervalEvent) else "epoch"
    values = {
        key: value for key, value in asdict(event).items() if value is not None and key != "timing"
    }
    return {"event": kind, **values}


def final_to_json(event: FinalEvent) -> dict[str, object]:
    """Returns the final event as a line of metrics.jsonl holds it."""
    values: dict[str, object] = {"event": "final", "step": event.step, "reached": event.reached}
    if event.best_epoch is not None:
        values["best_epoch"] = event.best_epoch
    values |= {split: asdict(score) for split, score in event.scores.items()}
    values["test"] = {**asdict(event.test), "confusion": event.confusion}
    if event.test_flipped is not None:
        values["test_flipped"] = asdict(event.test_flipped)
    return values


def event_from_json(values: object) -> StoredEvent:
    """Returns the event that a line of metrics.jsonl holds.

    Raises:
        ValueError: if a value is missing, has another type, or the kind of event is unknown.
    """
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    kind = values.get("event")
    if kind not in KINDS:
        raise ValueError(f"unknown event {kind!r}: expected {', '.join(KINDS)}")
    if kind == "final":
        values = {**values, **final_scores(values)}
    event: StoredEvent = validated(KINDS[kind], values)
    return event


def final_scores(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the scores of a final event without NaN as null, and its confusion matrix."""
    scores: dict[str, Any] = {}
    for name in (*get_args(Split), "test_flipped"):
        score = values.get(name)
        if isinstance(score, dict):
            scores[name] = {key: nan_from_null(value) for key, value in score.items()}
    return {**scores, "confusion": scores.get("test", {}).pop("confusion", [])}


def session_from_json(values: object) -> Session:
    """Returns the session that an entry of environment.json holds.

    Raises:
        ValueError: if a value is missing or has another type.
    """
    return validated(SESSION, values)


def timing_from_json(values: object) -> Timing:
    """Returns the timing that a line of timing.jsonl holds.

    Raises:
        ValueError: if a value is missing or has another type.
    """
    return validated(TIMING, values)


def validated(adapter: TypeAdapter[T], values: object) -> T:
    """Validates values against the type of an adapter.

    Raises:
        ValueError: naming the first value that does not fit.
    """
    try:
        return adapter.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def finite(value: Any) -> Any:
    """Returns values that strict JSON can hold: null stands for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
