"""What a network mistakes for what: the confusion matrix as a chart."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from resnetkit.report.drawing import color, inline_svg
from resnetkit.report.language import ENGLISH, Language

__all__ = ["MOST_CLASSES", "confusion_chart"]


MOST_CLASSES = 100  # more would be too fine to see
MOST_NUMBERS = 15  # beyond that, numbers would be too small to read


def confusion_chart(
    matrix: Sequence[Sequence[int]],
    class_names: Sequence[str],
    *,
    name: str,
    t: Language = ENGLISH,
) -> str:
    """Draws a confusion matrix: a row for each true class, a column for each prediction.

    What is right stands on the diagonal; mistakes are tinted, the more frequent the stronger.
    """
    count = len(matrix)
    worst = max(
        (n for row, line in enumerate(matrix) for col, n in enumerate(line) if row != col),
        default=0,
    )

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.19, 0.19, 0.79, 0.79))
        axes.set(
            xlim=(-0.5, count - 0.5),
            ylim=(count - 0.5, -0.5),
            xlabel=t("predicted"),
            ylabel=t("true"),
        )
        axes.grid(visible=False)
        for row, line in enumerate(matrix):
            for col, number in enumerate(line):
                if number:
                    paint_cell(
                        axes,
                        row,
                        col,
                        number,
                        number / max(sum(line) if row == col else worst, 1),
                        count,
                    )
        step = 1 if count <= 2 * MOST_NUMBERS else 10
        ticks = range(0, count, step)
        names = [class_names[tick] for tick in ticks]
        short = [text if len(text) <= 9 else text[:8] + "\u2026" for text in names]
        upright = max(map(len, short)) * count // step > 40
        axes.set_xticks(ticks, short, rotation=90 if upright else 0)
        axes.set_yticks(ticks, short)
        axes.tick_params(length=0, labelsize=11.5 if count // step <= MOST_NUMBERS else 8)

    right = sum(line[row] for row, line in enumerate(matrix))
    description = t(
        "Confusion matrix of {classes} classes: {right} of {images} images are on the diagonal,"
        " which means right; the most frequent mistake occurs {worst} times.",
        classes=count,
        right=right,
        images=sum(map(sum, matrix)),
        worst=worst,
    )
    return inline_svg(paint, size=(380.0, 380.0), name=name, description=description)


def paint_cell(axes: Axes, row: int, col: int, number: int, share: float, count: int) -> None:
    """Draws one cell; the tint is weak enough for the number in it to read well."""
    role = "series-1" if row == col else "series-2"
    tint = 0.25 * share if row == col else 0.12 + 0.38 * share
    axes.add_patch(
        Rectangle((col - 0.48, row - 0.48), 0.96, 0.96, facecolor=color(role), alpha=tint)
    )
    if count <= MOST_NUMBERS:
        weight = "normal" if row == col else "bold"
        axes.text(col, row, str(number), ha="center", va="center", fontsize=11.5, fontweight=weight)
