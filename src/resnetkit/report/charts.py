"""Charts: functions from numbers to SVG text that comes with a description of what is seen."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resnetkit.report.drawing import color, inline_svg, label_ends, standalone_svg
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.series import Band, Curve, Ending, label
from resnetkit.studies.study import Chart, Line

__all__ = [
    "error_curves",
    "error_curves_sheet",
    "errors_by_depth",
    "errors_by_network",
    "lines",
    "measured_lines",
]

PANEL = (380.0, 290.0)
AREA = (0.12, 0.16, 0.55, 0.73)  # of the axes: left, bottom, width, height; labels to the right
PERCENT = " %"
DASHES = (0, (4, 2.2))
MARKERS = "os^DvP"  # so that color is not the only cue


def error_curves(
    curves: Sequence[Curve],
    *,
    title: str,
    top: float,
    part: str,
    name: str,
    t: Language = ENGLISH,
) -> str:
    """Draws errors against the epoch: training thin and dashed, the held-out part bold.

    The band around a line goes from the lowest to the highest seed.

    Args:
        curves: one a network; the same place in two charts has the same color.
        title: of the panel.
        top: end of the axis in percent, so that panels can be compared.
        part: name of the held-out part, such as test.
        name: see `inline_svg`.
        t: of the words.
    """

    def paint(figure: Figure) -> None:
        paint_curves(figure.add_axes(AREA), curves, t(title), top, t=t)

    description = describe_curves(curves, t(title), part, t)
    return inline_svg(paint, size=PANEL, name=name, description=description)


def error_curves_sheet(
    panels: Mapping[str, Sequence[Curve]], *, top: float, part: str, name: str
) -> str:
    """Draws the panels of `error_curves` side by side, with a legend, for a file of its own."""
    size = PANEL[0] * len(panels), PANEL[1] + 40

    def paint(figure: Figure) -> None:
        for place, (title, curves) in enumerate(panels.items()):
            left, width = (place + AREA[0]) / len(panels), AREA[2] / len(panels)
            axes = figure.add_axes((left, 0.255, width, 0.645))
            paint_curves(axes, curves, title, top, right=(place + 1) / len(panels))
        paint_legend(figure, part)

    sentences = [describe_curves(curves, title, part) for title, curves in panels.items()]
    return standalone_svg(paint, size=size, name=name, description=" ".join(sentences))


def paint_curves(
    axes: Axes,
    curves: Sequence[Curve],
    title: str,
    top: float,
    *,
    right: float = 1.0,
    t: Language = ENGLISH,
) -> None:
    """Draws one panel of error curves."""
    looks = [curve_look(place) for place in range(len(curves))]
    shown = [
        (curve, *look)
        for curve, look in zip(curves, looks, strict=True)
        if curve.train.x or curve.held_out.x
    ]
    for curve, role, marker in shown:
        paint_band(axes, curve.train, role, bold=False)
        paint_band(axes, curve.held_out, role, bold=True, marker=marker)
    percent_axis(axes, title, top)
    axes.set_xlabel(t("epoch"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    epochs = [x for curve, _, _ in shown for x in (*curve.train.x, *curve.held_out.x)]
    axes.set_xlim(min(epochs, default=1), max([2, *epochs]))
    ends = [curve.last for curve, _, _ in shown]
    labels = [f"{curve.label} {curve.last:.1f}{PERCENT}" for curve, _, _ in shown]
    label_ends(axes, labels, ends, [role for _, role, _ in shown], right=right)


def curve_look(place: int) -> tuple[str, str]:
    """Returns color and marker of a network within its family."""
    return f"series-{place % 6 + 1}", MARKERS[place % 6]


def paint_band(axes: Axes, band: Band, role: str, *, bold: bool, marker: str = "") -> None:
    """Draws a mean and the range around it: bold with a marker at its end, or thin and dashed."""
    shade = 0.18 if bold else 0.10
    axes.fill_between(band.x, band.low, band.high, color=color(role), alpha=shade, linewidth=0)
    width, dashes = (2.4, "solid") if bold else (1.2, DASHES)
    axes.plot(band.x, band.mean, color=color(role), linewidth=width, linestyle=dashes)
    if marker:
        end: dict[str, Any] = {"marker": marker, "markersize": 6.5, "clip_on": False}
        axes.plot(band.x[-1:], band.mean[-1:], color=color(role), **end)


def percent_axis(axes: Axes, title: str, top: float) -> None:
    """Labels the axis of an error, from nothing to `top` percent."""
    axes.set_title(title)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{PERCENT}"))


def paint_legend(figure: Figure, part: str) -> None:
    """Explains the kinds of line below a sheet."""
    axes = figure.add_axes((0, 0, 1, 0.1))
    axes.set_axis_off()
    axes.set(xlim=(0, 100), ylim=(0, 1))
    ink = color("muted")
    axes.plot([6, 10], [0.5, 0.5], color=ink, linewidth=1.2, linestyle=DASHES)
    axes.text(11, 0.5, "training error", va="center", color=ink)
    axes.plot([31, 35], [0.5, 0.5], color=ink, linewidth=2.4)
    axes.text(36, 0.5, f"{part} error", va="center", color=ink)
    axes.add_patch(Rectangle((52, 0.25), 4, 0.5, facecolor=ink, alpha=0.25))
    axes.text(57, 0.5, "lowest to highest seed; the line is their mean", va="center", color=ink)


def describe_curves(curves: Sequence[Curve], title: str, part: str, t: Language = ENGLISH) -> str:
    """Returns in words where the curves of a panel end."""
    ends = [describe_curve(curve, part, t) for curve in curves if curve.train.x]
    begin = t("{title}: error against epoch.", title=title)
    return f"{begin} " + ("; ".join(ends) or t("No epoch is finished yet")) + "."


def describe_curve(curve: Curve, part: str, t: Language) -> str:
    """Returns in words where one curve ends."""
    trained = t(
        "{network} at {error} % training error after epoch {epoch}",
        network=curve.label,
        error=f"{curve.train.last:.1f}",
        epoch=f"{curve.train.x[-1]:g}",
    )
    if not curve.held_out.x:
        return trained
    held_out = t("{error} % {part} error", error=f"{curve.held_out.last:.1f}", part=part)
    return f"{trained}, {held_out}"


def errors_by_depth(
    families: Mapping[str, Sequence[Ending]],
    *,
    title: str,
    top: float,
    name: str,
    t: Language = ENGLISH,
) -> str:
    """Draws final errors against depth: each seed a mark, the means of a family connected.

    Args:
        families: the networks of each family, the shallowest first.
        title: of the panel.
        top: end of the axis in percent, so that panels can be compared.
        name: see `inline_svg`.
        t: of the words.
    """
    measured = {
        family: [each for each in found if each.values] for family, found in families.items()
    }
    looks = {family: family_look(place) for place, family in enumerate(families)}
    shown = {family: found for family, found in measured.items() if found}

    def paint(figure: Figure) -> None:
        axes = figure.add_axes(AREA)
        percent_axis(axes, t(title), top)
        for family, found in shown.items():
            paint_family(axes, found, *looks[family])
        depths = sorted({each.x for found in shown.values() for each in found})
        axes.set_xlabel(t("depth in layers"))
        axes.set_xticks(depths, [f"{depth:g}" for depth in depths])
        margin = 0.06 * (depths[-1] - depths[0]) or 1 if depths else 1
        axes.set_xlim(min(depths, default=0) - margin, max(depths, default=0) + margin)
        ends = [found[-1].mean for found in shown.values()]
        labels = [f"{family} {end:.1f}{PERCENT}" for family, end in zip(shown, ends, strict=True)]
        label_ends(axes, labels, ends, [looks[family][0] for family in shown])

    description = describe_endings(
        [each for found in shown.values() for each in found], t(title), t
    )
    return inline_svg(paint, size=PANEL, name=name, description=description)


def family_look(place: int) -> tuple[str, str]:
    """Returns color and marker of a family: other colors than those of the depths."""
    return f"series-{(place + 3) % 6 + 1}", MARKERS[place % 6]


def paint_family(axes: Axes, found: Sequence[Ending], role: str, marker: str) -> None:
    """Draws one family of `errors_by_depth`."""
    means = [each.mean for each in found]
    axes.plot([each.x for each in found], means, color=color(role), linewidth=2.2)
    for each in found:
        paint_marks(axes, [each.x] * len(each.values), each.values, role, marker)


def paint_marks(axes: Axes, x: Sequence[float], y: Sequence[float], role: str, marker: str) -> None:
    """Draws one mark a seed."""
    look: dict[str, Any] = {"color": color(role), "marker": marker, "markersize": 6}
    axes.plot(x, y, linestyle="none", alpha=0.7, clip_on=False, **look)


def errors_by_network(
    endings: Sequence[Ending], *, title: str, top: float, name: str, t: Language = ENGLISH
) -> str:
    """Draws final errors of networks that do not differ in depth: a line each, each seed a mark."""
    shown = [each for each in endings if each.values]
    height = 90.0 + 30.0 * len(shown)
    longest = max((len(each.label) for each in shown), default=0)
    left = min(0.6, max(0.2, 0.04 + 6.3 * longest / PANEL[0]))  # of the figure, for the names

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left, 50 / height, 0.95 - left, 1 - 90 / height))
        axes.set(title=t(title), xlim=(0, top), ylim=(max(len(shown), 1) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{PERCENT}"))
        axes.set_yticks(range(len(shown)), [each.label for each in shown])
        for place, each in enumerate(shown):
            paint_marks(axes, each.values, [place] * len(each.values), "series-1", MARKERS[0])
            axes.plot([each.mean] * 2, [place - 0.3, place + 0.3], color=color("ink"), linewidth=2)

    description = describe_endings(shown, t(title), t)
    return inline_svg(paint, size=(PANEL[0], height), name=name, description=description)


def describe_endings(endings: Sequence[Ending], title: str, t: Language = ENGLISH) -> str:
    """Returns the means in words."""
    means = [f"{each.label} {each.mean:.1f} % (n = {len(each.values)})" for each in endings]
    found = "; ".join(means) or t("no training is finished yet")
    return f"{title}. {t('Means:')} {found}."


def lines(
    series: Mapping[str, Band],
    *,
    title: str,
    x_label: str,
    unit: str = "",
    name: str,
    t: Language = ENGLISH,
) -> str:
    """Draws quantities of one run, such as the learning rate against the step.

    Args:
        series: by label; the last one is drawn bold, those before it thin and dashed.
        title: of the chart.
        x_label: what x counts.
        unit: written after each number, such as " %".
        name: see `inline_svg`.
        t: of the words.
    """
    shown = {t(what): band for what, band in series.items() if band.x}
    title, x_label = t(title), t(x_label)
    role = "series-1"

    def say(value: float) -> str:
        return f"{value:.1f}{unit}" if unit == PERCENT else f"{value:.3g}{unit}"

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.15, 0.16, 0.52 if len(shown) > 1 else 0.8, 0.73))
        axes.set(title=title, xlabel=x_label)
        for what, band in shown.items():
            last = what == list(shown)[-1]
            paint_band(axes, band, role, bold=last, marker="o" if last else "")
        axes.set_ylim(0, 1.06 * max((band.highest for band in shown.values()), default=0) or 1)
        places = [x for band in shown.values() for x in band.x]
        axes.set_xlim(min(places, default=0), max(places, default=0) + (len(set(places)) < 2))
        axes.xaxis.set_major_locator(
            MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
        if len(shown) > 1:
            ends = [band.last for band in shown.values()]
            labels = [f"{what} {say(end)}" for what, end in zip(shown, ends, strict=True)]
            label_ends(axes, labels, ends, [role] * len(ends))

    sentences = [
        t(
            "{what} from {first} to {last}, at most {highest}",
            what=what,
            first=say(band.mean[0]),
            last=say(band.last),
            highest=say(band.highest),
        )
        for what, band in shown.items()
    ]
    begin = t("{y} against {x}:", y=title, x=x_label)
    description = f"{begin} {'; '.join(sentences) or t('nothing measured yet')}."
    return inline_svg(paint, size=PANEL, name=name, description=description)


def measured_lines(chart: Chart, *, name: str, t: Language = ENGLISH) -> str:
    """Draws what a study measured: a line for each group, with the range over seeds.

    Args:
        chart: what is drawn.
        name: see `inline_svg`.
        t: of the words.
    """
    shown = [each for each in chart.lines if each.x]

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.19, AREA[1], AREA[2] - 0.07, AREA[3]))
        axes.set(title=t(chart.title), xlabel=t(chart.x), ylabel=t(chart.y))
        if chart.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
        for place, each in enumerate(shown):
            role, marker = curve_look(place)
            low, high = each.low, each.high
            axes.fill_between(each.x, low, high, color=color(role), alpha=0.18, linewidth=0)
            look: dict[str, Any] = {"marker": marker, "markersize": 4.5, "linewidth": 2}
            axes.plot(each.x, each.mean, color=color(role), **look)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        roles = [curve_look(place)[0] for place in range(len(shown))]
        label_lines(axes, [label(t(each.label)) for each in shown], shown, roles)

    description = describe_lines(chart, shown, t)
    return inline_svg(paint, size=PANEL, name=name, description=description)


def power_of_ten(value: float) -> str:
    """Returns a power of ten with its exponent raised."""
    superscripts = str.maketrans(
        "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
    )
    return "10" + str(round(math.log10(value))).translate(superscripts)


def label_lines(
    axes: Axes, labels: Sequence[str], shown: Sequence[Line], roles: Sequence[str]
) -> None:
    """Names the lines at their ends, on axes of either kind."""
    to_axes = axes.transData + axes.transAxes.inverted()
    axes.autoscale_view()
    ends = [float(to_axes.transform((each.x[-1], each.mean[-1]))[1]) for each in shown]
    bottom, top = axes.get_ylim()
    if axes.get_yscale() == "log":
        bottom, top = 0.0, 1.0
        values = ends
    else:
        values = [bottom + end * (top - bottom) for end in ends]
    label_ends(axes, list(labels), values, list(roles), span=(bottom, top))


def describe_lines(chart: Chart, shown: Sequence[Line], t: Language = ENGLISH) -> str:
    """Returns in words where the lines of a chart begin and end."""
    ends = [
        t(
            "{line} from {first} to {last}",
            line=label(t(each.label)),
            first=f"{each.mean[0]:.3g}",
            last=f"{each.mean[-1]:.3g}",
        )
        for each in shown
    ]
    begin = t("{y} against {x}:", y=chart.y, x=chart.x)
    return f"{t(chart.title)}: {begin} " + ("; ".join(ends) or t("nothing measured yet")) + "."
