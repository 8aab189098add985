"""From a function that paints to SVG text, for a page with other drawings or a separate file.

Text stays text: it is small, can be searched and selected, and takes the font of the page. Inside a
page the colors become CSS variables, so that one drawing serves light and dark; in a
separate file they stay as they are.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from resnetkit.report.colors import COLORS
from resnetkit.untrusted import markup_text

__all__ = [
    "FONT",
    "LineEnd",
    "color",
    "inline_svg",
    "label_ends",
    "opening",
    "spread_out",
    "standalone_svg",
]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def color(role: str) -> str:
    """Returns the light color of a role, which a page replaces by its CSS variable."""
    return COLORS[role][0]


STYLE: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # for measuring; comes with matplotlib, wider than most
    "font.size": 12,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.color": color("ink"),
    "axes.edgecolor": color("muted"),
    "axes.labelcolor": color("muted"),
    "axes.titlecolor": color("ink"),
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 13,
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": color("line"),
    "xtick.color": color("muted"),
    "ytick.color": color("muted"),
    "ytick.major.size": 0,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
}

Paint = Callable[[Figure], None]


def inline_svg(paint: Paint, *, size: tuple[float, float], name: str, description: str) -> str:
    """Returns a drawing for use inside a page.

    Args:
        paint: draws on an empty figure.
        size: width and height, in the units in which a font of 12 is readable.
        name: prefix of every id, so it must differ between the drawings of a page.
        description: for screen readers.
    """
    body = tidy(raw_svg(paint, size, name), name)
    body = re.sub(r"<style.*?</style>", "", body)  # would style the whole page
    for role, (light, _) in COLORS.items():
        body = body.replace(light, f"var(--{role})")
    return opening(size, description) + body


def standalone_svg(paint: Paint, *, size: tuple[float, float], name: str, description: str) -> str:
    """Returns a drawing for a separate file, on a solid background; see `inline_svg`."""

    def on_solid(figure: Figure) -> None:
        figure.set_facecolor(color("surface"))
        paint(figure)

    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    extent = f'{names} width="{size[0]:g}" height="{size[1]:g}"'
    return opening(size, description, attributes=extent) + tidy(raw_svg(on_solid, size, name), name)


def opening(size: tuple[float, float], description: str, *, attributes: str | None = None) -> str:
    """Returns the start tag of a drawing, which screen readers read out as its description."""
    box = f'viewBox="0 0 {size[0]:g} {size[1]:g}"'
    label = markup_text(escape(description))
    start = f'<svg class="chart" role="img" aria-label="{label}" {box}'
    return f"{start}>" if attributes is None else f"{start} {attributes}>"


def raw_svg(paint: Paint, size: tuple[float, float], name: str) -> str:
    """Returns what matplotlib writes, whatever the settings of its user."""
    unset = {"backend", "backend_fallback", "interactive", "toolbar", "timezone", "date.epoch"}
    settings: dict[Any, Any] = {
        key: matplotlib.rcParamsDefault[key] for key in matplotlib.rcParams if key not in unset
    }
    settings |= {**STYLE, "svg.hashsalt": name}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's font has it
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), facecolor="none")
        paint(figure)
        for text in figure.findobj(Text):  # matplotlib cannot measure a lone surrogate
            assert isinstance(text, Text)
            text.set_text(markup_text(text.get_text()))
        empty = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        figure.savefig(buffer, format="svg", metadata=empty)
    return markup_text(buffer.getvalue())


def tidy(drawing: str, name: str) -> str:
    """Returns what follows the start tag, with only the ids in use, each unique to the drawing."""
    body = drawing[drawing.index(">", drawing.index("<svg")) + 1 :]
    referred = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", body))

    def new_id(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in referred else ""

    def new_tag(match: re.Match[str]) -> str:
        tag = re.sub(r" id=\"([^\"]+)\"", new_id, match[0])
        tag = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{name}-", tag)
        tag = re.sub(r"font-family: [^;\"]+", f"font-family: {FONT}", tag)
        return re.sub(r" transform=\"rotate\(-0 [^\"]*\"", "", tag)

    return re.sub(r"\s*\n\s*", " ", re.sub(r"<[^>]+>", new_tag, body)).strip()


def spread_out(heights: list[float], *, gap: float, low: float, high: float) -> list[float]:
    """Moves heights until neighbors are `gap` apart, in the same order, in bounds if they fit."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved, lowest, highest = list(heights), low, high
    for index in order:
        moved[index] = max(moved[index], lowest)
        lowest = moved[index] + gap
    for index in reversed(order):
        moved[index] = min(moved[index], highest)
        highest = moved[index] - gap
    return moved


@dataclass(frozen=True)
class LineEnd:
    """The end of a line and what is written next to it.

    Attributes:
        label: name of the line.
        x: in units of the data.
        y: likewise.
        role: of the color.
    """

    label: str
    x: float
    y: float
    role: str


def label_ends(axes: Axes, ends: Sequence[LineEnd], *, right: float = 1.0) -> None:
    """Writes labels to the right of the axes, next to the ends of their lines, without overlap.

    The axes, whose limits must be final, become narrower where the labels would not end before
    `right`, a fraction of the figure's width.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((end.x, end.y))[1]) for end in ends]
    spread = spread_out(heights, gap=0.075, low=0.0, high=1.0)
    make_room(axes, [end.label for end in ends], right)
    for end, height, label_height in zip(ends, heights, spread, strict=True):
        ink, frame = color(end.role), axes.transAxes
        wire = [1.015, 1.05], [height, label_height]
        axes.plot(*wire, linewidth=1, color=ink, clip_on=False, transform=frame)
        axes.text(
            LABEL_START,
            label_height,
            end.label,
            fontweight="bold",
            va="center",
            color=ink,
            transform=frame,
        )


LABEL_START = 1.06  # in widths of the axes


def make_room(axes: Axes, labels: Sequence[str], right: float) -> None:
    """Makes the axes so narrow that the labels end before `right`, a fraction of the figure."""
    bold = FontProperties(family="DejaVu Sans", weight="bold")
    widths = [
        TextPath((0, 0), markup_text(text), size=12, prop=bold).get_extents().width
        for text in labels
    ]
    figure = axes.get_figure(root=True)
    assert figure is not None
    left, bottom, width, height = axes.get_position().bounds
    longest = (max(widths, default=0) + 4) / (72 * figure.get_figwidth())
    narrow = (right - longest - left) / LABEL_START
    axes.set_position((left, bottom, max(min(width, narrow), 0.1 * width), height))
