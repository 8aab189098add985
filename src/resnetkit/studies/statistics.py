"""From runs to samples: one value a training of a group."""

import math
import statistics

from resnetkit.data.splits import Split
from resnetkit.studies.chart import Line, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.study import Sample
from resnetkit.training.run_folder import Run

__all__ = [
    "PARTS",
    "Runs",
    "by_depth",
    "error_sample",
    "limit",
    "line_along",
    "measured_line",
    "measured_sample",
]

Runs = dict[str, list[Run]]

PARTS: dict[Split, str] = {"train": "training", "test": "test"}
CHANCE = 90.0  # percent of wrong guesses among ten classes


def error_sample(runs: Runs, group: str, split: Split) -> Sample:
    """Returns the final errors of a group on a part of the data; chance where training diverged."""
    values = [final_error(run, split) for run in runs[group]]
    known = tuple(value for value in values if math.isfinite(value))
    return Sample(phrase("{split} error of {group}", split=PARTS[split], group=group), known)


def final_error(run: Run, split: Split) -> float:
    """Returns the final error of a run in percent; nan when it has none yet."""
    if run.diverged:
        return CHANCE
    final = run.final
    return final.scores[split].error if final else math.nan


def measured_sample(
    runs: Runs,
    group: str,
    measurement: str,
    key: str,
    what: str,
    *,
    unit: str = "",
) -> Sample:
    """Returns one number a training, the mean of a measured list.

    Args:
        runs: of the study.
        group: whose.
        measurement: key of `MEASUREMENTS`.
        key: of its lists.
        what: words for the number, with {group} for the group's name.
        unit: of the number.
    """
    values = [statistics.fmean(measured(run, measurement)[key]) for run in runs[group]]
    return Sample(phrase(what, group=group), tuple(values), unit)


def measured_line(runs: Runs, group: str, measurement: str, key: str, *, label: str = "") -> Line:
    """Returns a measured list over its places, as a line with the range over seeds.

    Args:
        runs: of the study.
        group: whose.
        measurement: key of `MEASUREMENTS`.
        key: of its lists.
        label: what to call the line; the group by default.
    """
    return line(label or group, [measured(run, measurement)[key] for run in runs[group]])


def line_along(runs: Runs, group: str, measurement: str, key: str, *, label: str) -> Line:
    """Returns a number that was measured at the snapshots of each training, over its steps.

    Args:
        runs: of the study.
        group: whose.
        measurement: key of `MEASUREMENTS`, with a list of `steps`.
        key: of its lists.
        label: what to call the line.
    """
    found = [measured(run, measurement) for run in runs[group]]
    return line(label, [each[key] for each in found], found[0]["steps"])


def limit(what: str, value: float, like: Sample) -> Sample:
    """Returns a number to compare a sample with, as if every seed had measured it."""
    return Sample(what, (value,) * len(like.values), like.unit)


def by_depth(runs: Runs, family: str) -> list[str]:
    """Returns the groups of a family, such as resnet, the shallowest network first."""
    groups = [group for group in runs if group.removeprefix(family).isdecimal()]
    return sorted(groups, key=lambda group: int(group.removeprefix(family)))
