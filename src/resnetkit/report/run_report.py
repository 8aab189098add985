"""The report of one run: how it learned, its final errors, and the classes it confuses."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from resnetkit.data.splits import Split
from resnetkit.evaluation.metric_sums import Score
from resnetkit.evaluation.metrics import Mistake, mistakes
from resnetkit.report import charts
from resnetkit.report.confusion import MOST_CLASSES, confusion_chart
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import (
    SharedEnvironment,
    link,
    network_facts,
    render,
    shared_environments,
)
from resnetkit.report.series import axis_top, display_name, event_line
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.chart import Chart, Line, LineStyle
from resnetkit.studies.phrase import Phrase, phrase, plural_phrase
from resnetkit.studies.statistics import SPLIT_NAMES
from resnetkit.training.events import FinalEvent
from resnetkit.training.run_folder import LARGEST_RECORD, Run
from resnetkit.untrusted import read_record

__all__ = ["RunPage", "run_page", "write_run_report"]

MOST_MISTAKES = 8  # in words
FLIPPED = phrase("test, with horizontal flips averaged")


def write_run_report(run: Run, t: Language = ENGLISH) -> Path:
    """Writes report.html into the folder of a run, finished or not, in a language.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written; the run is untouched.
    """
    path = run.folder / "report.html"
    page = render("run.html.j2", run_page(run, t), t)
    with storage_errors(path, "The run is untouched: make room or permit writing, then try again."):
        write_file(path, page)
    return path


@dataclass(frozen=True)
class ScoreRow:
    """The final result on one split, for a single view or with horizontal flips averaged.

    Errors are in percent.
    """

    split: Split
    error: float
    top5_error: float
    loss: float
    count: int
    is_flipped: bool = False

    @property
    def split_name(self) -> Phrase:
        return FLIPPED if self.is_flipped else SPLIT_NAMES[self.split]

    @property
    def wrong(self) -> int:
        """Returns the number of images that were not recognized."""
        return round(self.error * self.count / 100)


@dataclass(frozen=True)
class Confusion:
    """Which classes the network mistakes for which, on the test split.

    Attributes:
        chart: of the matrix; None for more classes than can be drawn.
        mistakes: the most frequent ones.
        class_names: one per label.
        images: in the test split.
        wrong: how many of them were mistaken.
    """

    chart: Markup | None
    mistakes: list[Mistake]
    class_names: Sequence[str]
    images: int
    wrong: int


@dataclass(frozen=True)
class FileLink:
    """A file of the run.

    Attributes:
        name: of the file.
        address: relative to the page.
        meaning: what it holds.
    """

    name: str
    address: str
    meaning: Phrase


@dataclass(frozen=True)
class Failure:
    """Where a training diverged.

    Attributes:
        step: that was not taken, counted from 0.
        lr: its learning rate.
    """

    step: int
    lr: float


@dataclass(frozen=True)
class RunPage:
    """What the template shows of a run.

    Attributes:
        run: finished or not.
        network: its name, for display.
        is_finished: whether there are final errors and a network.
        failure: where training diverged, if it did.
        scores: final results, one per split.
        progress: how many epochs or steps are done.
        held_out: name of the split that is evaluated during training.
        charts: of the training.
        confusion: None before the run is finished.
        images_per_second: the median over the logged intervals; None before the first.
        environments: of the run, one entry.
        files: with the measurements.
    """

    run: Run
    network: str
    is_finished: bool
    failure: Failure | None
    scores: list[ScoreRow]
    progress: Phrase
    held_out: Phrase
    charts: list[Markup]
    confusion: Confusion | None
    images_per_second: float | None
    environments: list[SharedEnvironment]
    files: list[FileLink]


def read_failure(run: Run) -> Failure:
    """Returns what failure.json says.

    Raises:
        DataError: when it is corrupt.
    """
    return read_record(
        run.failure_path,
        Failure,
        LARGEST_RECORD,
        advice="Remove it, and the page is written without the step.",
    )


def run_page(run: Run, t: Language) -> RunPage:
    """Returns what the template shows of a run."""
    final = run.final
    return RunPage(
        run=run,
        network=display_name(run.recipe.model.name),
        is_finished=final is not None,
        failure=read_failure(run) if run.diverged else None,
        scores=scores(final) if final else [],
        progress=progress(run),
        held_out=SPLIT_NAMES[run.recipe.evaluation.split],
        charts=training_charts(run, t),
        confusion=confusion(run, final, t) if final else None,
        images_per_second=images_per_second(run),
        environments=shared_environments([run]),
        files=[
            FileLink(path.name, link(path, run.folder), meaning)
            for path, meaning in {
                run.folder / "recipe.yaml": phrase("what was trained"),
                run.metrics_path: phrase("every measured number, one event per line"),
                run.timing_path: phrase("how fast it went"),
                run.folder / "environment.json": phrase("what it ran on"),
                run.failure_path: phrase("the step and samples at which training diverged"),
            }.items()
            if path.is_file()
        ],
    )


def progress(run: Run) -> Phrase:
    """Returns how many epochs or steps of a run are done."""
    length = run.recipe.length
    if length.unit == "epochs":
        done = max((event.epoch for event in run.epochs), default=0)
        return plural_phrase(
            "{done} of {number} epoch done",
            "{done} of {number} epochs done",
            length.count,
            done=done,
        )
    steps = [event.step for event in run.events if not isinstance(event, FinalEvent)]
    done_text, total_text = f"{max(steps, default=0):,}", f"{length.count:,}"
    return plural_phrase(
        "{done} of {number} step done",
        "{done} of {number} steps done",
        length.count,
        done=done_text,
        number=total_text,
    )


def scores(final: FinalEvent) -> list[ScoreRow]:
    """Returns the final results on each split that was measured."""
    rows = [score_row(split, score) for split, score in final.scores.items()]
    if final.test_flipped is not None:
        rows.append(score_row("test", final.test_flipped, is_flipped=True))
    return rows


def score_row(split: Split, score: Score, *, is_flipped: bool = False) -> ScoreRow:
    """Returns the row of a result."""
    return ScoreRow(split, score.error, score.top5_error, score.loss, score.count, is_flipped)


def images_per_second(run: Run) -> float | None:
    """Returns the median over the logged intervals; None before the first."""
    rates = [timing.images_per_second for timing in run.timings]
    return statistics.median(rates) if rates else None


def training_charts(run: Run, t: Language) -> list[Markup]:
    """Returns the charts of a training; none before anything was measured."""
    shown = [
        epoch_chart(run, "error", phrase("Error"), unit="%"),
        epoch_chart(run, "loss", phrase("Loss (nats)")),
        step_chart(run, "lr", phrase("Learning rate")),
        step_chart(run, "gradient_norm", phrase("Gradient norm")),
    ]
    return [
        Markup(charts.line_chart(chart, name=f"curve{number}", t=t))
        for number, chart in enumerate(shown)
        if any(line.x for line in chart.lines)
    ]


def epoch_chart(
    run: Run, quantity: str, title: Phrase, *, unit: Literal["%"] | None = None
) -> Chart:
    """Returns a quantity against the epoch: in training thin and dashed, held out bold."""

    def split_line(split: Split, style: LineStyle) -> Line:
        name = SPLIT_NAMES[split]
        field = f"{split}_{quantity}"
        return event_line([run], "epoch", field, label=name, end_label=name, style=style)

    lines = split_line("train", "dashed"), split_line(run.recipe.evaluation.split, "solid")
    top = axis_top((line.highest for line in lines), limit=100.0 if unit == "%" else math.inf)
    return Chart(title, phrase("epoch"), title, lines, top=top, unit=unit, end_values=True)


def step_chart(run: Run, quantity: str, title: Phrase) -> Chart:
    """Returns a quantity of the logged intervals against the step."""
    line = event_line([run], "interval", quantity, label=title)
    return Chart(title, phrase("step"), title, (line,), top=axis_top([line.highest]))


def confusion(run: Run, final: FinalEvent, t: Language) -> Confusion | None:
    """Returns which classes were mistaken for which; None when it was not measured."""
    matrix = final.confusion
    if not matrix:
        return None
    facts = network_facts(run)
    names = facts.class_names if facts else tuple(map(str, range(len(matrix))))
    confused = mistakes(matrix)
    drawable = len(matrix) <= MOST_CLASSES
    return Confusion(
        Markup(confusion_chart(matrix, names, name="confusion", t=t)) if drawable else None,
        confused[:MOST_MISTAKES],
        names,
        sum(map(sum, matrix)),
        sum(mistake.count for mistake in confused),
    )
