"""The report of one run: how it learned, how well it ended, and what it mistakes for what."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from resnetkit.evaluation.metrics import Mistake, mistakes
from resnetkit.report import charts
from resnetkit.report.confusion import MOST_CLASSES, confusion_chart
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import link, model_facts, render, surroundings
from resnetkit.report.series import axis_top, display_name, event_line
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.chart import Chart, LineStyle
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.training.events import FinalEvent
from resnetkit.training.run_folder import Run

__all__ = ["write_run_report"]

MOST_MISTAKES = 8  # in words


def write_run_report(run: Run, t: Language = ENGLISH) -> Path:
    """Writes report.html into the folder of a run, finished or not, in a language.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written; the run is untouched.
    """
    path = run.folder / "report.html"
    page = run_page(run, t)
    with storage_errors(path, "The run is untouched: make room or permit writing, then try again."):
        write_file(path, page)
    return path


def run_page(run: Run, t: Language) -> str:
    """Returns the page."""
    final = run.final
    return render(
        "run.html.j2",
        t,
        run=run,
        network=display_name(run.recipe.model.name),
        final=final,
        scores=scores(final) if final else [],
        progress=progress(run),
        curves=curve_charts(run, t),
        confusion=confusion(run, t),
        seconds=run.seconds,
        images_per_second=images_per_second(run),
        sessions=run.sessions,
        surroundings=surroundings([run]),
        files=[
            (path.name, link(path, run.folder), meaning)
            for path, meaning in {
                run.folder / "recipe.yaml": "what was trained",
                run.metrics_path: "every measured number, one event a line",
                run.timing_path: "how fast it went",
                run.folder / "environment.json": "what it ran on",
            }.items()
            if path.is_file()
        ],
    )


def progress(run: Run) -> Phrase:
    """Returns how far the run is, in words."""
    steps = [event.step for event in run.events if not isinstance(event, FinalEvent)]
    epochs = [event.epoch for event in run.epochs]
    length = run.recipe.length
    if length.unit == "epochs":
        return phrase(
            "{done} of {total} epochs done", done=max(epochs, default=0), total=length.count
        )
    done = f"{max(steps, default=0):,}"
    return phrase("{done} of {total} steps done", done=done, total=f"{length.count:,}")


@dataclass(frozen=True)
class ScoreRow:
    """The final result on one part of the data; errors in percent."""

    part: str
    error: float
    top5_error: float
    loss: float
    count: int

    @property
    def wrong(self) -> int:
        """Returns the number of images that were not recognized."""
        return round(self.error * self.count / 100)


def scores(final: FinalEvent) -> list[ScoreRow]:
    """Returns the final results of each part of the data that was measured."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    return [
        ScoreRow(names[split], score.error, score.top5_error, score.loss, score.count)
        for split, score in final.scores.items()
    ]


def images_per_second(run: Run) -> float | None:
    """Returns the median over the logged intervals; None before the first."""
    rates = [timing.images_per_second for timing in run.timings]
    return statistics.median(rates) if rates else None


def curve_charts(run: Run, t: Language) -> list[Markup]:
    """Returns the charts along training; none before anything was measured."""
    shown = [
        epoch_chart(run, "error", "Error", unit="%"),
        epoch_chart(run, "loss", "Loss (nats)"),
        step_chart(run, "lr", "Learning rate"),
        step_chart(run, "gradient_norm", "Gradient norm"),
    ]
    return [
        Markup(charts.line_chart(chart, name=f"curve{number}", t=t))
        for number, chart in enumerate(shown)
        if any(line.x for line in chart.lines)
    ]


def epoch_chart(run: Run, quantity: str, title: str, *, unit: Literal["%"] | None = None) -> Chart:
    """Returns a quantity against the epoch: in training thin and dashed, held out bold."""
    held_out = run.recipe.evaluation.split
    styles: dict[str, tuple[str, LineStyle]] = {
        "train": ("training", "dashed"),
        held_out: (held_out, "solid"),
    }
    lines = tuple(
        event_line([run], "epoch", f"{split}_{quantity}", label=words, end_label=words, style=style)
        for split, (words, style) in styles.items()
    )
    top = axis_top((line.highest for line in lines), limit=100.0 if unit == "%" else math.inf)
    return Chart(title, "epoch", title, lines, top=top, unit=unit, end_values=True)


def step_chart(run: Run, quantity: str, title: str) -> Chart:
    """Returns a quantity of the logged intervals against the step."""
    line = event_line([run], "interval", quantity, label=title)
    return Chart(title, "step", title, (line,), top=axis_top([line.highest]))


@dataclass(frozen=True)
class Confusion:
    """What was mistaken for what on the test part.

    Attributes:
        chart: of the matrix; None for more classes than can be drawn.
        mistakes: the most frequent ones.
        class_names: one a label.
        images: of the test part.
        wrong: how many of them were mistaken.
    """

    chart: Markup | None
    mistakes: list[Mistake]
    class_names: list[str]
    images: int
    wrong: int


def confusion(run: Run, t: Language) -> Confusion | None:
    """Returns what was mistaken for what; None before the run is finished."""
    final = run.final
    if final is None or not final.confusion:
        return None
    matrix = final.confusion
    names = model_facts(run).get("class_names") or [str(place) for place in range(len(matrix))]
    found = mistakes(matrix)
    drawable = len(matrix) <= MOST_CLASSES
    return Confusion(
        Markup(confusion_chart(matrix, names, name="confusion", t=t)) if drawable else None,
        found[:MOST_MISTAKES],
        names,
        sum(map(sum, matrix)),
        sum(mistake.count for mistake in found),
    )
