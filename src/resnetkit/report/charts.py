"""The charts of the reports: functions from numbers to SVG text, each with a description of what is seen."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resnetkit.report.drawing import color, inline_svg, label_ends, standalone_svg
from resnetkit.report.series import Band, Curve

__all__ = ["confusion", "error_curves", "error_curves_sheet", "final_errors", "lines"]

PANEL = (400.0, 300.0)
MARKERS = "os^Dv P"  # so that colour is not the only cue


def error_curves(curves: Sequence[Curve], *, title: str, top: float, part: str, name: str) -> str:
    """Draws errors against the epoch: training thin and dashed, the held-out part bold, the range as a band.

    Args:
        curves: one a network; the same place in two charts has the same colour.
        title: of the panel.
        top: end of the axis in percent, so that panels can be compared.
        part: name of the held-out part, such as test.
        name: see `inline_svg`.
    """

    def paint(figure: Figure) -> None:
        paint_curves(figure.add_axes((0.115, 0.155, 0.575, 0.735)), curves, title, top)

    description = describe_curves(curves, title, part)
    return inline_svg(paint, size=PANEL, name=name, description=description)


def error_curves_sheet(
    panels: Mapping[str, Sequence[Curve]], *, top: float, part: str, name: str
) -> str:
    """Draws the panels of `error_curves` side by side, with a legend, for a file of its own."""
    width, height = PANEL[0] * len(panels), PANEL[1] + 40

    def paint(figure: Figure) -> None:
        for place, (title, curves) in enumerate(panels.items()):
            left = (place + 0.115) / len(panels)
            axes = figure.add_axes((left, 0.255, 0.575 / len(panels), 0.645))
            paint_curves(axes, curves, title, top)
        paint_legend(figure, part)

    sentences = [describe_curves(curves, title, part) for title, curves in panels.items()]
    return standalone_svg(paint, size=(width, height), name=name, description=" ".join(sentences))


def paint_curves(axes: Axes, curves: Sequence[Curve], title: str, top: float) -> None:
    """Draws one panel of error curves."""
    shown = [curve for curve in curves if curve.train.x or curve.held_out.x]
    for place, curve in enumerate(curves):
        paint_band(axes, curve.train, f"series-{place % 6 + 1}", bold=False)
        paint_band(axes, curve.held_out, f"series-{place % 6 + 1}", bold=True, marker=MARKERS[place % 6])
    percent_axis(axes, title, top)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    epochs = [x for curve in shown for x in (*curve.train.x, *curve.held_out.x)]
    axes.set_xlim(min(epochs, default=1), max([2, *epochs]))
    ends = [curve.held_out.last if curve.held_out.x else curve.train.last for curve in shown]
    labels = [f"{curve.label}  {end:.1f} %" for curve, end in zip(shown, ends, strict=True)]
    label_ends(axes, labels, ends, [f"series-{curves.index(curve) % 6 + 1}" for curve in shown])


def paint_band(axes: Axes, band: Band, role: str, *, bold: bool, marker: str = "") -> None:
    """Draws a mean and the range around it: bold with a marker at its end, or thin and dashed."""
    shade = 0.18 if bold else 0.10
    axes.fill_between(band.x, band.low, band.high, color=color(role), alpha=shade, linewidth=0)
    width, dashes = (2.4, "solid") if bold else (1.2, (0, (4, 2.2)))
    axes.plot(band.x, band.mean, color=color(role), linewidth=width, linestyle=dashes)
    if marker:
        axes.plot(
            band.x[-1:], band.mean[-1:], color=color(role), marker=marker, markersize=6.5, clip_on=False
        )


def percent_axis(axes: Axes, title: str, top: float) -> None:
    """Labels the axis of an error, from nothing to `top` percent."""
    axes.set_title(title)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def paint_legend(figure: Figure, part: str) -> None:
    """Explains the kinds of line below a sheet."""
    axes = figure.add_axes((0, 0, 1, 0.1))
    axes.set_axis_off()
    axes.set(xlim=(0, 100), ylim=(0, 1))
    ink = color("muted")
    axes.plot([6, 10], [0.5, 0.5], color=ink, linewidth=1.2, linestyle=(0, (4, 2.2)))
    axes.text(11, 0.5, "training error", va="center", color=ink)
    axes.plot([31, 35], [0.5, 0.5], color=ink, linewidth=2.4)
    axes.text(36, 0.5, f"{part} error", va="center", color=ink)
    axes.add_patch(Rectangle((52, 0.25), 4, 0.5, facecolor=ink, alpha=0.25))
    axes.text(57, 0.5, "lowest to highest seed; the line is their mean", va="center", color=ink)


def describe_curves(curves: Sequence[Curve], title: str, part: str) -> str:
    """Returns in words where the curves of a panel end."""
    ends = [
        f"{curve.label} at {curve.train.last:.1f} % training error"
        + (f" and {curve.held_out.last:.1f} % {part} error" if curve.held_out.x else "")
        + f" after epoch {curve.train.x[-1]:g}"
        for curve in curves
        if curve.train.x
    ]
    return f"{title}: error against epoch. " + ("; ".join(ends) or "No epoch is finished yet") + "."


def final_errors(
    members: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]],
    *,
    title: str,
    x_label: str,
    top: float,
    name: str,
) -> str:
    """Draws final errors against depth: each seed a dot, the means of a family connected.

    Args:
        members: for each family and each of its networks, by name, its x and one value a seed.
        title: of the panel.
        x_label: such as "depth in layers"; empty where x is a mere place, which the names then label.
        top: end of the axis in percent, so that panels can be compared.
        name: see `inline_svg`.
    """
    kept = {
        family: {label: (x, values) for label, (x, values) in networks.items() if values}
        for family, networks in members.items()
    }

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.115, 0.155, 0.575, 0.735))
        percent_axis(axes, title, top)
        for place, networks in enumerate(kept.values()):
            paint_family(axes, list(networks.values()), *family_look(place))
        shown = {family: networks for family, networks in kept.items() if networks}
        set_places(axes, shown, x_label)
        ends = [mean(list(networks.values())[-1][1]) for networks in shown.values()]
        labels = [f"{family}  {end:.1f} %" for family, end in zip(shown, ends, strict=True)]
        roles = [family_look(list(kept).index(family))[0] for family in shown]
        label_ends(axes, labels, ends, roles)

    means = [
        f"{label} {mean(values):.1f} % (n = {len(values)})"
        for networks in kept.values()
        for label, (_, values) in networks.items()
    ]
    description = f"{title}. Means: " + ("; ".join(means) or "no training is finished yet") + "."
    return inline_svg(paint, size=PANEL, name=name, description=description)


def family_look(place: int) -> tuple[str, str]:
    """Returns colour and marker of a family: other colours than those of the depths."""
    return f"series-{(place + 3) % 6 + 1}", MARKERS[place % 6]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def paint_family(
    axes: Axes, networks: list[tuple[float, Sequence[float]]], role: str, marker: str
) -> None:
    """Draws one family of `final_errors`."""
    places = [x for x, _ in networks]
    axes.plot(places, [mean(values) for _, values in networks], color=color(role), linewidth=2.2)
    dots = [(x, value) for x, values in networks for value in values]
    axes.plot(
        [x for x, _ in dots],
        [value for _, value in dots],
        color=color(role),
        marker=marker,
        markersize=6,
        linestyle="none",
        alpha=0.7,
        clip_on=False,
    )


def set_places(
    axes: Axes, shown: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]], x_label: str
) -> None:
    """Puts a tick at each network."""
    names = {x: label for networks in shown.values() for label, (x, _) in networks.items()}
    places = sorted(names)
    axes.set_xlabel(x_label)
    axes.set_xticks(places, [f"{x:g}" if x_label else names[x] for x in places])
    margin = 0.06 * (max(places) - min(places)) if len(places) > 1 else 1
    axes.set_xlim(min(places, default=0) - margin, max(places, default=1) + margin)


def lines(
    series: Mapping[str, Band], *, title: str, x_label: str, unit: str = "", place: int = 0, name: str
) -> str:
    """Draws quantities of one run, such as the learning rate against the step.

    Args:
        series: by label; the last one is drawn bold, those before it thin and dashed.
        title: of the chart.
        x_label: what x counts.
        unit: written after each number, such as " %".
        place: of the colour.
        name: see `inline_svg`.
    """
    shown = {label: band for label, band in series.items() if band.x}
    role = f"series-{place % 6 + 1}"

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.145, 0.155, 0.545 if len(shown) > 1 else 0.8, 0.735))
        axes.set(title=title, xlabel=x_label)
        for label, band in shown.items():
            last = label == list(shown)[-1]
            paint_band(axes, band, role, bold=last, marker="o" if last else "")
        axes.set_ylim(0, 1.06 * max((band.highest for band in shown.values()), default=0) or 1)
        places = [x for band in shown.values() for x in band.x]
        axes.set_xlim(min(places, default=0), max(places, default=0) + (len(set(places)) < 2))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
        if len(shown) > 1:
            ends = [band.last for band in shown.values()]
            labels = [f"{label}  {end:.3g}{unit}" for label, end in zip(shown, ends, strict=True)]
            label_ends(axes, labels, ends, [role] * len(ends))

    sentences = [
        f"{label} from {band.mean[0]:.3g}{unit} to {band.last:.3g}{unit}, at most {band.highest:.3g}{unit}"
        for label, band in shown.items()
    ]
    description = f"{title} against {x_label}: {'; '.join(sentences) or 'nothing measured yet'}."
    return inline_svg(paint, size=PANEL, name=name, description=description)


MOST_CLASSES = 100  # more would be too fine to see
MOST_NUMBERS = 15  # beyond that, numbers would be too small to read


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], *, name: str) -> str:
    """Draws a confusion matrix: a row for each true class, a column for each prediction.

    What is right stands on the diagonal; mistakes are tinted the stronger the more frequent they are.
    """
    count = len(matrix)
    worst = max((n for row, line in enumerate(matrix) for col, n in enumerate(line) if row != col), default=0)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.15, 0.15, 0.83, 0.83))
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        for row, line in enumerate(matrix):
            for col, number in enumerate(line):
                if number:
                    paint_cell(axes, row, col, number, number / max(sum(line) if row == col else worst, 1), count)
        step = 1 if count <= 2 * MOST_NUMBERS else 10
        ticks = range(0, count, step)
        names = [class_names[tick] for tick in ticks]
        short = [text if len(text) <= 9 else text[:8] + "\u2026" for text in names]
        upright = max(map(len, short)) * count // step > 40
        axes.set_xticks(ticks, short, rotation=90 if upright else 0)
        axes.set_yticks(ticks, short)
        axes.tick_params(length=0, labelsize=11.5 if count // step <= MOST_NUMBERS else 8)

    right = sum(line[row] for row, line in enumerate(matrix))
    description = (
        f"Confusion matrix of {count} classes: {right} of {sum(map(sum, matrix))} images are on the"
        f" diagonal, which means right; the most frequent mistake occurs {worst} times."
    )
    return inline_svg(paint, size=(400.0, 400.0), name=name, description=description)


def paint_cell(axes: Axes, row: int, col: int, number: int, share: float, count: int) -> None:
    """Draws one cell; the tint is weak enough for the number in it to read well."""
    role = "series-1" if row == col else "series-2"
    tint = 0.25 * share if row == col else 0.12 + 0.38 * share
    axes.add_patch(Rectangle((col - 0.48, row - 0.48), 0.96, 0.96, facecolor=color(role), alpha=tint))
    if count <= MOST_NUMBERS:
        weight = "normal" if row == col else "bold"
        axes.text(col, row, str(number), ha="center", va="center", fontsize=11.5, fontweight=weight)
