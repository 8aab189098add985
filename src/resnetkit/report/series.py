"""From the events of runs to the numbers that charts and tables show."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from resnetkit.data.splits import Split
from resnetkit.training.run_folder import Run

__all__ = [
    "Band",
    "Curve",
    "Ending",
    "band",
    "curve",
    "families",
    "final_values",
    "heading",
    "label",
]


@dataclass(frozen=True)
class Band:
    """A quantity against x: its mean over runs, and the range from the lowest to the highest run.

    Attributes:
        x: such as epochs, ascending.
        mean: one value an x, over the runs that have one there.
        low: of the lowest run.
        high: of the highest run.
    """

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def last(self) -> float:
        """Returns the mean at the last x; nan when there is none."""
        return self.mean[-1] if self.mean else math.nan

    @property
    def highest(self) -> float:
        """Returns the highest value; 0 when there is none."""
        return max(self.high, default=0.0)


@dataclass(frozen=True)
class Curve:
    """The error of one network along training, in percent.

    Attributes:
        label: name of the network, for people.
        train: on the images that are learned from, as trained.
        held_out: on the part that the recipe watches; empty when it watches none.
    """

    label: str
    train: Band
    held_out: Band

    @property
    def last(self) -> float:
        """Returns the last error on the held-out part, or in training where none is watched."""
        return self.held_out.last if self.held_out.x else self.train.last

    @property
    def highest(self) -> float:
        return max(self.train.highest, self.held_out.highest)


@dataclass(frozen=True)
class Ending:
    """The final errors of one network, in percent.

    Attributes:
        label: name of the network, for people.
        x: its depth, or its place where depth is not what is compared.
        values: one a seed.
    """

    label: str
    x: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)


def band(runs: Iterable[Run], kind: str, x: str, y: str) -> Band:
    """Returns the field `y` of the events of a kind that have it against their field `x`."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for event in run.epochs if kind == "epoch" else run.intervals:
            value = getattr(event, y)
            if value is not None and math.isfinite(value):
                values.setdefault(getattr(event, x), []).append(value)
    rows = [(at, statistics.fmean(v), min(v), max(v)) for at, v in sorted(values.items())]
    return Band(*zip(*rows, strict=True)) if rows else Band((), (), (), ())


def curve(label: str, runs: Sequence[Run]) -> Curve:
    """Returns the errors of runs that differ in their seed alone against the epoch."""
    held_out = runs[0].recipe.evaluation.split if runs else "test"
    return Curve(
        label,
        band(runs, "epoch", "epoch", "train_error"),
        band(runs, "epoch", "epoch", f"{held_out}_error"),
    )


def final_values(runs: Iterable[Run], split: Split) -> tuple[float, ...]:
    """Returns the final errors on a part of the data in percent, one a finished run."""
    finals = [run.final for run in runs]
    return tuple(final.scores[split].error for final in finals if final and split in final.scores)


GROUP = re.compile(r"([A-Za-z]+)(\d+)(.*)")


def families(groups: Iterable[str]) -> dict[str, dict[str, int]]:
    """Sorts groups into families of networks that differ in depth.

    Returns:
        For each family its groups with their depths, the shallowest first. When some family would
        have only one member, depth is not what is compared: then all groups are one family, named
        "", and the number of each is its place.
    """
    names = list(groups)
    found: dict[str, dict[str, int]] = {}
    for name in names:
        if match := GROUP.fullmatch(name):
            found.setdefault(match[1] + match[3], {})[name] = int(match[2])
    complete = sum(map(len, found.values())) == len(names)
    if not found or not complete or any(len(members) < 2 for members in found.values()):
        return {"": {name: place for place, name in enumerate(names, start=1)}}
    return {
        family: dict(sorted(m.items(), key=lambda item: item[1])) for family, m in found.items()
    }


def label(group: str) -> str:
    """Returns the name of a group as the paper writes it: plain-56 for plain56."""
    match = GROUP.fullmatch(group)
    return f"{match[1]}-{match[2]}{match[3]}" if match else group


def heading(family: str) -> str:
    """Returns what to call a family of networks."""
    known = {"": "All networks", "plain": "Plain networks", "resnet": "Residual networks"}
    return known.get(family, f"{family} networks")
