"""The chart of `resnet export bench`, as a separate file."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnetkit.inference.bench import BatchRate, BenchRow
from resnetkit.report.drawing import color, standalone_svg

__all__ = ["bench_chart"]

WIDTH = 640.0
ROW_HEIGHT = 62.0
MARGINS = 96.0  # above and below the rows
LETTER = 6.3  # width of a letter of the names
BAR = 0.36


def bench_chart(rows: Sequence[BenchRow]) -> str:
    """Draws the images per second of each network, with one image at a time and at its best.

    A bar ends at the median of the processes, and a stroke reaches from the lowest to the highest.
    """
    height = MARGINS + ROW_HEIGHT * len(rows)
    names = [f"{row.name}\n{row.engine} {row.precision}" for row in rows]
    longest = max(len(line) for name in names for line in name.split("\n"))
    left = min(0.6, 0.04 + LETTER * longest / WIDTH)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((left, 52 / height, 0.88 - left, 1 - MARGINS / height))
        axes.set(title="Images per second", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(rows)), names)
        for number, row in enumerate(rows):
            paint_bar(axes, number - BAR / 2, row.rates[0], "series-1")
            paint_bar(axes, number + BAR / 2, row.best, "series-2")
        axes.set_xlim(left=0)
        axes.set_xlabel("blue: one image at a time; orange: the best size of batch, up to 32")

    return standalone_svg(paint, size=(WIDTH, height), name="bench", description=describe(rows))


def paint_bar(axes: Axes, y: float, rate: BatchRate, role: str) -> None:
    """Draws one rate with its range."""
    speed = rate.images_per_second
    axes.barh(y, speed.median, height=BAR, color=color(role))
    axes.plot([speed.low, speed.high], [y, y], color=color("ink"), linewidth=1.2)
    batch = f" (batch {rate.batch})" if rate.batch > 1 else ""
    axes.annotate(
        f"{speed.median:,.1f}{batch}",
        (max(speed.high, speed.median), y),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=10.5,
        annotation_clip=False,
    )


def describe(rows: Sequence[BenchRow]) -> str:
    """Returns the figures as a sentence for each network."""
    return " ".join(
        f"{row.name} with {row.engine} in {row.precision}:"
        f" {row.rates[0].images_per_second.median:.1f} images per second one at a time,"
        f" {row.best.images_per_second.median:.1f} in batches of {row.best.batch}."
        for row in rows
    )
