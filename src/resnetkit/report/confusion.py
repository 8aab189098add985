"""The confusion matrix as a chart."""

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

    Correct predictions are on the diagonal; mistakes are tinted, the more frequent the stronger.
    """
    worst = most_frequent_mistake(matrix)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.19, 0.19, 0.79, 0.79))
        limits = (-0.5, len(matrix) - 0.5)
        axes.set(xlim=limits, ylim=limits[::-1], xlabel=t("predicted"), ylabel=t("true"))
        axes.grid(visible=False)
        for true, row in enumerate(matrix):
            for predicted, count in enumerate(row):
                if count:
                    whole = sum(row) if true == predicted else worst
                    paint_cell(axes, true, predicted, count / max(whole, 1))
                    if len(matrix) <= MOST_NUMBERS:
                        paint_count(axes, true, predicted, count)
        label_classes(axes, class_names[: len(matrix)])

    description = describe_confusion(matrix, t)
    return inline_svg(paint, size=(380.0, 380.0), name=name, description=description)


def most_frequent_mistake(matrix: Sequence[Sequence[int]]) -> int:
    """Returns the highest count off the diagonal."""
    return max(
        (
            count
            for true, row in enumerate(matrix)
            for predicted, count in enumerate(row)
            if true != predicted
        ),
        default=0,
    )


def paint_cell(axes: Axes, true: int, predicted: int, fraction: float) -> None:
    """Draws one cell; the tint is weak enough for a number in it to be readable."""
    role = "series-1" if true == predicted else "series-2"
    tint = 0.25 * fraction if true == predicted else 0.12 + 0.38 * fraction
    corner = (predicted - 0.48, true - 0.48)
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=color(role), alpha=tint))


def paint_count(axes: Axes, true: int, predicted: int, count: int) -> None:
    """Writes the number of images into a cell."""
    weight = "normal" if true == predicted else "bold"
    axes.text(
        predicted, true, str(count), ha="center", va="center", fontsize=11.5, fontweight=weight
    )


def label_classes(axes: Axes, class_names: Sequence[str]) -> None:
    """Names the rows and columns, or every tenth of many."""
    step = 1 if len(class_names) <= 2 * MOST_NUMBERS else 10
    ticks = range(0, len(class_names), step)
    names = [class_names[tick] for tick in ticks]
    short = [name if len(name) <= 9 else name[:8] + "\u2026" for name in names]
    upright = max(map(len, short)) * len(class_names) // step > 40
    axes.set_xticks(ticks, short, rotation=90 if upright else 0)
    axes.set_yticks(ticks, short)
    axes.tick_params(length=0, labelsize=11.5 if len(names) <= MOST_NUMBERS else 8)


def describe_confusion(matrix: Sequence[Sequence[int]], t: Language) -> str:
    """Describes what the matrix shows."""
    images = sum(map(sum, matrix))
    return " ".join(
        [
            t.plural(
                "Confusion matrix of {number} class.",
                "Confusion matrix of {number} classes.",
                len(matrix),
            ),
            t.plural(
                "{correct} of {number} image is on the diagonal, which means correct.",
                "{correct} of {number} images are on the diagonal, which means correct.",
                images,
                correct=sum(row[true] for true, row in enumerate(matrix)),
            ),
            t.plural(
                "The most frequent mistake occurs {number} time.",
                "The most frequent mistake occurs {number} times.",
                most_frequent_mistake(matrix),
            ),
        ]
    )
