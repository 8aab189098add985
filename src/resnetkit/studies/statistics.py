"""From runs to samples: one value per training of a group."""

import math
import statistics

from resnetkit.data.splits import Split
from resnetkit.studies.chart import Line, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.studies.study import Sample
from resnetkit.training.run_folder import Run

__all__ = [
    "CHANCE",
    "ERROR_MARGIN",
    "SPLIT_NAMES",
    "Runs",
    "by_depth",
    "error_sample",
    "limit",
    "line_along",
    "measured_line",
    "measured_sample",
]

Runs = dict[str, list[Run]]

SPLIT_NAMES: dict[Split, Phrase] = {
    "train": phrase("training"),
    "validation": phrase("validation"),
    "test": phrase("test"),
}
CHANCE = 90.0  # percent of wrong guesses among ten classes
ERROR_MARGIN = 1.0  # percentage points; not adjusted to the runs: docs/log.md, 2026-11-20


def error_sample(runs: Runs, group: str, split: Split) -> Sample:
    """Returns the final errors of a group on a split; chance where training diverged."""
    errors = [final_error(run, split) for run in runs[group]]
    label = phrase("{split} error of {group}", split=SPLIT_NAMES[split], group=group)
    values = tuple(error for error in errors if math.isfinite(error))
    return Sample(label, values, chance=CHANCE)


def final_error(run: Run, split: Split) -> float:
    """Returns the final error of a run in percent; nan when it was not measured."""
    if run.diverged:
        return CHANCE
    final = run.final
    return final.scores[split].error if final and split in final.scores else math.nan


def measured_sample(runs: Runs, group: str, measurement: str, key: str, label: str) -> Sample:
    """Returns one plain number per training, the mean of a measured list.

    Args:
        runs: of the study.
        group: one of its groups.
        measurement: key of `MEASUREMENTS`.
        key: of its lists.
        label: of the sample.
    """
    values = [statistics.fmean(measured(run, measurement)[key]) for run in runs[group]]
    return Sample(label, tuple(values), "")


def measured_line(
    runs: Runs, group: str, measurement: str, key: str, *, label: str | None = None
) -> Line:
    """Returns a measured list against 1, 2, ..., as a line with the range over seeds.

    Args:
        runs: of the study.
        group: one of its groups.
        measurement: key of `MEASUREMENTS`.
        key: of its lists.
        label: of the line; the group by default.
    """
    seeds = [measured(run, measurement)[key] for run in runs[group]]
    return line(group if label is None else label, seeds)


def line_along(runs: Runs, group: str, measurement: str, key: str, *, label: str) -> Line:
    """Returns a number that was measured at the snapshots of each training, against the step.

    Args:
        runs: of the study.
        group: one of its groups.
        measurement: key of `MEASUREMENTS`, with a list of `steps`.
        key: of its lists.
        label: of the line.
    """
    seeds = [measured(run, measurement) for run in runs[group]]
    seeds = [values for values in seeds if values["steps"]] or seeds[:1]  # not of diverged ones
    return line(label, [values[key] for values in seeds], seeds[0]["steps"])


def limit(label: str, value: float, like: Sample) -> Sample:
    """Returns a number to compare a sample with, as if every seed had measured it."""
    return Sample(label, (value,) * len(like.values), like.unit)


def by_depth(runs: Runs, family: str) -> list[str]:
    """Returns the groups of a family, such as resnet, the shallowest network first."""
    groups = [group for group in runs if group.removeprefix(family).isdecimal()]
    return sorted(groups, key=lambda group: int(group.removeprefix(family)))
