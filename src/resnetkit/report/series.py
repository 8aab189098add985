"""From the events of runs to the numbers that charts and tables show."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from resnetkit.data.splits import Split
from resnetkit.studies.chart import Line, LineStyle, over_runs
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.studies.statistics import SPLIT_NAMES
from resnetkit.training.run_folder import Run

__all__ = [
    "FinalErrors",
    "axis_top",
    "display_name",
    "error_lines",
    "event_line",
    "families",
    "family_name",
    "final_values",
]


@dataclass(frozen=True)
class FinalErrors:
    """The final errors of one network, in percent.

    Attributes:
        label: name of the network, for display.
        depth: in layers.
        values: one per seed.
    """

    label: str
    depth: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)


def event_line(
    runs: Iterable[Run],
    kind: Literal["epoch", "interval"],
    field: str,
    *,
    label: str,
    end_label: str | None = None,
    style: LineStyle = "solid",
) -> Line:
    """Returns a field of the events of a kind: against the epoch, or of intervals the step.

    Args:
        runs: that differ in their seed alone.
        kind: of the events.
        field: of the events, such as train_error; events without it are left out.
        label: see `Line`.
        end_label: see `Line`.
        style: see `Line`.
    """
    values: dict[float, list[float]] = {}
    for run in runs:
        points = (
            [(event.epoch, getattr(event, field)) for event in run.epochs]
            if kind == "epoch"
            else [(event.step, getattr(event, field)) for event in run.intervals]
        )
        for x, value in points:
            values.setdefault(x, []).append(math.nan if value is None else value)
    return over_runs(label, values, end_label=end_label, style=style, color=0)


def error_lines(group: str, runs: Sequence[Run], color: int) -> tuple[Line, Line]:
    """Returns the errors of a network during training: on training images, and held out.

    The second line is empty when the recipe measures no held-out split during training; then the
    first one has the name of the network at its end.
    """
    name = display_name(group)
    held_out: Split = runs[0].recipe.evaluation.split if runs else "test"

    def errors(split: Split, style: LineStyle, end_label: str | None) -> Line:
        label = phrase("{split} error of {group}", split=SPLIT_NAMES[split], group=name)
        line = event_line(
            runs, "epoch", f"{split}_error", label=label, end_label=end_label, style=style
        )
        return replace(line, color=color)

    watched = errors(held_out, "solid", name)
    return errors("train", "dashed", None if watched.x else name), watched


def axis_top(values: Iterable[float], *, limit: float = math.inf) -> float:
    """Returns the end of an axis that starts at 0: a little above the highest value."""
    return min(limit, 1.06 * max(values, default=0.0)) or 1.0


def final_values(runs: Iterable[Run], split: Split) -> tuple[float, ...]:
    """Returns the final errors on a split in percent, one per finished run."""
    finals = [run.final for run in runs]
    return tuple(final.scores[split].error for final in finals if final and split in final.scores)


GROUP = re.compile(r"([A-Za-z]+)(\d+)(.*)")


def families(groups: Iterable[str]) -> dict[str, dict[str, int]]:
    """Sorts groups into families of networks that differ in depth.

    Returns:
        The groups of each family with their depths in layers, the shallowest first. Empty when
        depth is not what is compared: some group has no depth, or some family only one member.
    """
    members: dict[str, dict[str, int]] = {}
    for group in groups:
        match = GROUP.fullmatch(group)
        if match is None:
            return {}
        members.setdefault(match[1] + match[3], {})[group] = int(match[2])
    if any(len(depths) < 2 for depths in members.values()):
        return {}
    return {
        family: dict(sorted(depths.items(), key=lambda item: item[1]))
        for family, depths in members.items()
    }


def display_name(group: str) -> str:
    """Returns the name of a group as the paper writes it: plain-56 for plain56."""
    match = GROUP.fullmatch(group)
    return f"{match[1]}-{match[2]}{match[3]}" if match else group


def family_name(family: str) -> Phrase:
    """Returns the display name of a family of networks."""
    return FAMILY_NAMES.get(family) or phrase("{family} networks", family=family)


FAMILY_NAMES = {"plain": phrase("Plain networks"), "resnet": phrase("Residual networks")}
