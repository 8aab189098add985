"""Charts: functions from numbers to SVG text with a description of what it shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resnetkit.report.drawing import LineEnd, color, inline_svg, label_ends, standalone_svg
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.series import FinalErrors, display_name
from resnetkit.studies.chart import Chart, Line, LineStyle

__all__ = ["errors_by_depth", "errors_by_network", "line_chart", "line_sheet"]

PANEL = (380.0, 290.0)
AREA = (0.15, 0.16, 0.52, 0.73)  # of the axes: left, bottom, width, height; labels to the right
AXIS_LABEL_WIDTH = 0.04  # of the figure, for the label of the y axis
WIDTH_WITHOUT_LABELS = 0.8
PERCENT = " %"
MARKERS = "os^DvP"  # so that color is not the only cue
SUPERSCRIPTS = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


@dataclass(frozen=True)
class LineLook:
    """How lines of one style are drawn.

    Attributes:
        width: of the line, in points.
        dashes: as in matplotlib.
        shade: opacity of the range over runs.
        marker_size: in points; 0 for none.
        marked: index of the points with a marker; None for all.
    """

    width: float
    dashes: str | tuple[int, tuple[float, ...]]
    shade: float
    marker_size: float
    marked: list[int] | None


LOOKS: dict[LineStyle, LineLook] = {
    "marked": LineLook(2.0, "solid", 0.18, 4.5, None),
    "solid": LineLook(2.4, "solid", 0.18, 6.5, [-1]),
    "dashed": LineLook(1.2, (0, (4, 2.2)), 0.10, 0.0, []),
}


def line_chart(chart: Chart, *, name: str, t: Language = ENGLISH) -> str:
    """Draws lines with their range over runs, for use inside a page.

    Args:
        chart: what is drawn.
        name: see `inline_svg`.
        t: language of the words.
    """

    def paint(figure: Figure) -> None:
        paint_lines(figure.add_axes(chart_area(chart)), chart, t=t)

    return inline_svg(paint, size=PANEL, name=name, description=describe_lines(chart, t))


def chart_area(chart: Chart) -> tuple[float, float, float, float]:
    """Returns left, bottom, width and height of the axes, as fractions of the figure."""
    left, bottom, width, height = AREA
    if not any(line.end_label for line in chart.lines):
        width = WIDTH_WITHOUT_LABELS
    shift = 0.0 if chart.y == chart.title else AXIS_LABEL_WIDTH
    return left + shift, bottom, width - shift, height


def line_sheet(charts: Sequence[Chart], *, held_out: str, name: str) -> str:
    """Draws charts of errors during training side by side, with a legend, for a separate file.

    Args:
        charts: from left to right.
        held_out: name of the split behind the solid lines, such as test.
        name: see `inline_svg`.
    """
    count = len(charts)

    def paint(figure: Figure) -> None:
        for index, chart in enumerate(charts):
            left, _, width, _ = chart_area(chart)
            axes = figure.add_axes(((index + left) / count, 0.255, width / count, 0.645))
            paint_lines(axes, chart, right=(index + 1) / count)
        paint_legend(figure, held_out)

    size = PANEL[0] * count, PANEL[1] + 40
    description = " ".join(describe_lines(chart, ENGLISH) for chart in charts)
    return standalone_svg(paint, size=size, name=name, description=description)


def paint_lines(axes: Axes, chart: Chart, *, right: float = 1.0, t: Language = ENGLISH) -> None:
    """Draws a chart whose end labels end before `right`, a fraction of the figure's width."""
    shown = [(line, *series_look(line, index)) for index, line in enumerate(chart.lines) if line.x]
    for line, role, marker in shown:
        paint_line(axes, line, role, marker)
    axes.set(xlabel=t(chart.x))
    fit_title(axes, title_text(chart, t), right=right)
    if chart.y != chart.title:
        axes.set_ylabel(t(chart.y))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    set_scale(axes, chart)
    axes.autoscale_view()
    ends = [
        LineEnd(end_label(chart, line.end_label, line.last, t), line.x[-1], line.last, role)
        for line, role, _ in shown
        if line.end_label is not None
    ]
    label_ends(axes, ends, right=right)


def fit_title(axes: Axes, text: str, *, right: float) -> None:
    """Sets a title, in smaller letters if it would not end before `right`; see `paint_lines`."""
    title = axes.set_title(text)
    extent = title.get_window_extent()
    room = 0.99 * right * axes.figure.bbox.width - extent.x0
    title.set_fontsize(title.get_fontsize() * min(1.0, room / max(extent.width, 1.0)))


def series_look(line: Line, index: int) -> tuple[str, str]:
    """Returns the color role and the marker of a line at an index of its chart."""
    series = index if line.color is None else line.color
    return f"series-{series % len(MARKERS) + 1}", MARKERS[series % len(MARKERS)]


def paint_line(axes: Axes, line: Line, role: str, marker: str) -> None:
    """Draws a mean and the range around it."""
    look, ink = LOOKS[line.style], color(role)
    axes.fill_between(line.x, line.low, line.high, color=ink, alpha=look.shade, linewidth=0)
    axes.plot(
        line.x,
        line.mean,
        color=ink,
        linewidth=look.width,
        linestyle=look.dashes,
        marker=marker if look.marker_size else "none",
        markersize=look.marker_size,
        markevery=look.marked,
        clip_on=look.marked is None,
    )


def set_scale(axes: Axes, chart: Chart) -> None:
    """Sets limits and ticks of the axes; without a top, matplotlib fits them to the lines."""
    if chart.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
        return
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ending = unit_ending(chart)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{ending}"))
    if chart.top is not None:
        axes.set_ylim(0, chart.top)
        x = [x for line in chart.lines for x in line.x]
        axes.set_xlim(min(x, default=0), max(x, default=0) + (len(set(x)) < 2))


def power_of_ten(value: float) -> str:
    """Returns a power of ten with its exponent raised."""
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPTS)


def unit_ending(chart: Chart) -> str:
    """Returns what follows every number of a chart."""
    return "" if chart.unit is None else f" {chart.unit}"


def number_text(chart: Chart, value: float) -> str:
    """Returns a value of a chart: one decimal in percent, three digits otherwise."""
    return f"{value:.1f}{PERCENT}" if chart.unit == "%" else f"{value:.3g}"


def title_text(chart: Chart, t: Language) -> str:
    """Returns the title of a chart, with networks named as the paper names them."""
    return " ".join(map(display_name, t(chart.title).split(" ")))


def end_label(chart: Chart, label: str, value: float, t: Language) -> str:
    """Returns what is written at the end of a line that ends at a value."""
    name = display_name(t(label))
    return f"{name} {number_text(chart, value)}" if chart.end_values else name


def paint_legend(figure: Figure, held_out: str) -> None:
    """Explains the line styles below a sheet."""
    axes = figure.add_axes((0, 0, 1, 0.1))
    axes.set_axis_off()
    axes.set(xlim=(0, 100), ylim=(0, 1))
    ink = color("muted")
    looks = (LOOKS["dashed"], "training error"), (LOOKS["solid"], f"{held_out} error")
    for x, (look, label) in zip((6, 31), looks, strict=True):
        axes.plot([x, x + 4], [0.5] * 2, color=ink, linewidth=look.width, linestyle=look.dashes)
        axes.text(x + 5, 0.5, label, va="center", color=ink)
    axes.add_patch(Rectangle((52, 0.25), 4, 0.5, facecolor=ink, alpha=0.25))
    axes.text(57, 0.5, "lowest to highest seed; the line is their mean", va="center", color=ink)


def describe_lines(chart: Chart, t: Language) -> str:
    """Describes where the lines of a chart begin and end."""
    title, y = title_text(chart, t), t(chart.y)
    axes = t("{y} against {x}:", y=y, x=chart.x)
    sentences = [
        t(
            "{line} from {first} to {last}, at most {highest}",
            line=display_name(t(line.label)),
            first=number_text(chart, line.mean[0]),
            last=number_text(chart, line.last),
            highest=number_text(chart, line.highest),
        )
        for line in chart.lines
        if line.x
    ]
    start = axes if y == title else f"{title}: {axes}"
    nothing = t("nothing measured yet")
    return f"{start} {'; '.join(sentences) or nothing}."


def percent_axis(axes: Axes, title: str, top: float) -> None:
    """Labels the axis of an error, from 0 to `top` percent."""
    axes.set_title(title)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{PERCENT}"))


def errors_by_depth(
    families: Mapping[str, Sequence[FinalErrors]],
    *,
    title: str,
    top: float,
    name: str,
    t: Language = ENGLISH,
) -> str:
    """Draws final errors against depth: each seed a mark, the means of a family connected.

    Args:
        families: the networks of each family, the shallowest first.
        title: of the chart.
        top: end of the axis in percent, so that charts can be compared.
        name: see `inline_svg`.
        t: language of the words.
    """
    measured = {
        family: [network for network in networks if network.values]
        for family, networks in families.items()
    }
    looks = {family: family_look(index) for index, family in enumerate(families)}
    shown = {family: networks for family, networks in measured.items() if networks}
    finished = [network for networks in shown.values() for network in networks]

    def paint(figure: Figure) -> None:
        axes = figure.add_axes(AREA)
        percent_axis(axes, t(title), top)
        for family, networks in shown.items():
            paint_family(axes, networks, *looks[family])
        depths = sorted({network.depth for network in finished}) or [0]
        axes.set_xlabel(t("depth in layers"))
        axes.set_xticks(depths, list(map(str, depths)))
        margin = 0.06 * (depths[-1] - depths[0]) or 1
        axes.set_xlim(depths[0] - margin, depths[-1] + margin)
        label_ends(
            axes, [family_end(family, shown[family][-1], looks[family][0]) for family in shown]
        )

    description = describe_final(finished, t(title), t)
    return inline_svg(paint, size=PANEL, name=name, description=description)


def family_look(index: int) -> tuple[str, str]:
    """Returns color role and marker of a family: other colors than those of the depths."""
    return f"series-{(index + 3) % 6 + 1}", MARKERS[index % 6]


def family_end(family: str, deepest: FinalErrors, role: str) -> LineEnd:
    """Returns the end of a family's line, with the mean error of its deepest network."""
    label = f"{family} {deepest.mean:.1f}{PERCENT}"
    return LineEnd(label, deepest.depth, deepest.mean, role)


def paint_family(axes: Axes, networks: Sequence[FinalErrors], role: str, marker: str) -> None:
    """Draws one family of `errors_by_depth`."""
    depths, means = [n.depth for n in networks], [n.mean for n in networks]
    axes.plot(depths, means, color=color(role), linewidth=2.2)
    for network in networks:
        paint_marks(axes, [network.depth] * len(network.values), network.values, role, marker)


def paint_marks(axes: Axes, x: Sequence[float], y: Sequence[float], role: str, marker: str) -> None:
    """Draws one mark per seed."""
    axes.plot(
        x,
        y,
        linestyle="none",
        color=color(role),
        marker=marker,
        markersize=6,
        alpha=0.7,
        clip_on=False,
    )


def errors_by_network(
    networks: Sequence[FinalErrors], *, title: str, top: float, name: str, t: Language = ENGLISH
) -> str:
    """Draws final errors of networks that are not compared by depth: one row each.

    Every seed is a mark, and the mean a vertical stroke. The arguments are those of
    `errors_by_depth`.
    """
    shown = [network for network in networks if network.values]
    height = 90.0 + 30.0 * len(shown)
    longest = max((len(network.label) for network in shown), default=0)
    left = min(0.6, max(0.2, 0.04 + 6.3 * longest / PANEL[0]))  # of the figure, for the names

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left, 50 / height, 0.95 - left, 1 - 90 / height))
        axes.set(title=t(title), xlim=(0, top), ylim=(max(len(shown), 1) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{PERCENT}"))
        axes.set_yticks(range(len(shown)), [network.label for network in shown])
        for row, network in enumerate(shown):
            values, mean = network.values, network.mean
            paint_marks(axes, values, [row] * len(values), "series-1", MARKERS[0])
            axes.plot([mean] * 2, [row - 0.3, row + 0.3], color=color("ink"), linewidth=2)

    description = describe_final(shown, t(title), t)
    return inline_svg(paint, size=(PANEL[0], height), name=name, description=description)


def describe_final(networks: Sequence[FinalErrors], title: str, t: Language) -> str:
    """Describes the mean of each network."""
    means = [f"{n.label} {n.mean:.1f}{PERCENT} (n = {len(n.values)})" for n in networks]
    heading, nothing = t("Means:"), t("no training is finished yet")
    return f"{title}. {heading} {'; '.join(means) or nothing}."
