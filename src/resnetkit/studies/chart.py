"""Charts as data: lines with their range over runs, on common axes."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Chart", "Line", "LineStyle", "line", "over_runs"]

LineStyle = Literal["marked", "solid", "dashed"]


@dataclass(frozen=True)
class Line:
    """A quantity against another: its mean over runs and the range from lowest to highest run.

    Attributes:
        label: name of the line.
        x: ascending, such as epochs.
        mean: one value per x, over the runs that have one there.
        low: of the lowest run.
        high: of the highest run.
        end_label: written at the end of the line; None for a line without one.
        style: `marked` marks every point, `solid` only the last, `dashed` is thin and has no marks.
        color: index into the palette; None takes the index of the line in its chart.
    """

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    end_label: str | None = None
    style: LineStyle = "marked"
    color: int | None = None

    @property
    def last(self) -> float:
        """Returns the mean at the last x; nan for an empty line."""
        return self.mean[-1] if self.mean else math.nan

    @property
    def highest(self) -> float:
        """Returns the highest value of any run; 0 for an empty line."""
        return max(self.high, default=0.0)


@dataclass(frozen=True)
class Chart:
    """Lines on common axes.

    Attributes:
        title: what is shown.
        x: label of the x axis.
        y: label of the y axis, with the unit unless `unit` gives it.
        lines: in drawing order.
        logarithmic: whether the y axis is.
        top: end of the y axis, which then starts at 0; None fits the axis to the lines.
        unit: written after every number; None for plain numbers.
        end_values: whether the last value is written after each end label.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    logarithmic: bool = False
    top: float | None = None
    unit: Literal["%"] | None = None
    end_values: bool = False


def over_runs(
    label: str,
    values: Mapping[float, Iterable[float]],
    *,
    end_label: str | None = None,
    style: LineStyle = "marked",
    color: int | None = None,
) -> Line:
    """Returns the line of values that several runs have at each x.

    Values that are not finite are left out, and so is an x without any finite value. The other
    arguments are those of `Line`.
    """
    finite = {x: [v for v in values[x] if math.isfinite(v)] for x in sorted(values)}
    points = {float(x): numbers for x, numbers in finite.items() if numbers}
    return Line(
        label,
        tuple(points),
        tuple(map(statistics.fmean, points.values())),
        tuple(map(min, points.values())),
        tuple(map(max, points.values())),
        end_label,
        style,
        color,
    )


def line(label: str, seeds: Sequence[Sequence[float]], x: Sequence[float] | None = None) -> Line:
    """Returns the line of a quantity that every seed measured at the same x.

    Args:
        label: name of the line, also written at its end.
        seeds: the values of each seed; those that are not finite are left out.
        x: ascending; 1, 2, ... by default.
    """
    columns = list(zip(*seeds, strict=True))
    xs = range(1, len(columns) + 1) if x is None else x
    return over_runs(label, dict(zip(xs, columns, strict=True)), end_label=label)
