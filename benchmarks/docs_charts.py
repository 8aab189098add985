"""Draws the charts of docs/learn from finished studies, in English and in Korean.

Each chart is a file of its own, narrow enough for a telephone, on a white card that can be read on
a dark page. The studies are those of `resnet study all`; nothing is trained here. Only the chart of
the last chapter is measured by this script: nearest neighbors by the feature maps of finished runs.

    python benchmarks/docs_charts.py --studies studies --out docs/images

The tables of claims in the chapters are those of studies_tables.py:

    python benchmarks/studies_tables.py studies/all-quick --document docs/learn/block.md
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from gettext import NullTranslations
from pathlib import Path

import torch

from resnetkit.data.datasets import open_dataset
from resnetkit.errors import ResnetkitError
from resnetkit.models.outline import outline
from resnetkit.models.zoo import find_architecture
from resnetkit.report.charts import line_chart
from resnetkit.report.colors import COLORS
from resnetkit.report.diagram import block_drawing
from resnetkit.report.language import ENGLISH, Language, find_language
from resnetkit.report.series import display_name
from resnetkit.report.study_report import StudyCharts, study_page
from resnetkit.storage import write_file
from resnetkit.studies.chart import Chart, Line, over_runs
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.studies.runner import read_outcome
from resnetkit.studies.statistics import by_depth
from resnetkit.studies.study import Outcome
from resnetkit.studies.table import find_study
from resnetkit.training.run_folder import Run
from resnetkit.weights.load import load_network

SCALE = "quick"
WIDTH = 360  # in pixels of a page: two fit side by side, one fits on a telephone
OPENING = re.compile(
    r'<svg class="chart" role="img" aria-label="([^"]*)" viewBox="0 0 (\S+) (\S+)">'
)
KOREAN = {
    "What the argument allows, and what is measured": "논증이 허용하는 값과 측정한 값",
    "measured": "측정값",
    "allowed": "허용값",
    "Nearest neighbor by each feature map": "특징 맵별 최근접 이웃",
    "feature map, from the input": "특징 맵(입력부터)",
}
"""What the catalog of the reports lacks."""


class OwnWords(NullTranslations):
    """The words of this script, before those of the catalog that it falls back to."""

    def gettext(self, message: str) -> str:
        return KOREAN.get(message) or super().gettext(message)


def korean() -> Language:
    """Returns Korean with the words of this script."""
    words = OwnWords()
    words.add_fallback(find_language("ko").catalog)
    return Language("ko", words)


Draw = Callable[[Outcome, StudyCharts, Language], str]
"""Returns a chart as it stands inside a report, from a finished study and what its report shows."""


@dataclass(frozen=True)
class Drawing:
    """A chart of the documentation.

    Attributes:
        name: of the file, without extension.
        study: whose runs it shows.
        draw: see `Draw`.
    """

    name: str
    study: str
    draw: Draw


def of_report(charts: str, index: int) -> Draw:
    """Returns a function that picks a chart of the report.

    Args:
        charts: a field of `StudyCharts`.
        index: among these charts.
    """
    return lambda outcome, shown, t: getattr(shown, charts)[index]


def block(network: str) -> Draw:
    """Returns a function that draws the second block of a network, which keeps the shape."""

    def draw_block(outcome: Outcome, shown: StudyCharts, t: Language) -> str:
        stage = outline(find_architecture(network))[1]
        return block_drawing(stage.blocks[1], title=display_name(network), t=t)

    return draw_block


def argument(outcome: Outcome, shown: StudyCharts, t: Language) -> str:
    """Draws the training error of plain networks by depth, and the most that it had to be."""
    groups = by_depth(outcome.runs, "plain")
    errors = {
        float(group.removeprefix("plain")): train_errors(outcome.runs[group]) for group in groups
    }
    shallow = errors[min(errors)]
    most = sum(shallow) / len(shallow)
    lines = (
        over_runs("measured", errors, end_label=phrase("measured"), color=1),
        over_runs(
            "allowed",
            {depth: [most] for depth in errors},
            end_label=phrase("allowed"),
            style="dashed",
            color=5,
        ),
    )
    return errors_chart(
        phrase("What the argument allows, and what is measured"),
        lines,
        x=phrase("depth in layers"),
        y=phrase("training error"),
        name="argument",
        t=t,
    )


def train_errors(runs: list[Run]) -> list[float]:
    """Returns the final training errors of runs, in percent."""
    return [run.final.scores["train"].error for run in runs if run.final]


def neighbors(outcome: Outcome, shown: StudyCharts, t: Language) -> str:
    """Draws how often the nearest training image by each feature map is of another class."""
    groups = ("resnet20", "resnet56")
    return errors_chart(
        phrase("Nearest neighbor by each feature map"),
        tuple(neighbor_line(group, outcome.runs[group]) for group in groups),
        x=phrase("feature map, from the input"),
        y=phrase("test error"),
        name="neighbors",
        t=t,
    )


def errors_chart(
    title: Phrase, lines: tuple[Line, ...], *, x: Phrase, y: Phrase, name: str, t: Language
) -> str:
    """Draws errors in percent that no report shows."""
    chart = Chart(title=title, x=x, y=y, lines=lines, top=100.0, unit="%", end_values=True)
    return line_chart(chart, name=name, t=t)


def neighbor_line(group: str, runs: list[Run]) -> Line:
    """Returns the errors of the runs of a group against the number of the map, 1 for the stem."""
    columns = zip(*(neighbor_errors(run) for run in runs), strict=True)
    values = {float(number): column for number, column in enumerate(columns, start=1)}
    return over_runs(group, values, end_label=display_name(group))


@torch.no_grad()
def neighbor_errors(run: Run) -> list[float]:
    """Returns the test error of the nearest training image by each feature map, in percent.

    The maps are averaged over space and compared by cosine similarity, as by `resnet nearest`.
    """
    network, dataset = load_network(run.folder), open_dataset(run.recipe.data.name)
    train, test = dataset.splits["train"], dataset.splits["test"]
    maps = network.model.eval().features(network.normalization(dataset.images))
    errors = []
    for feature in maps.values():
        vectors = torch.nn.functional.normalize(feature.mean(dim=(2, 3)).double())
        nearest = train[(vectors[test] @ vectors[train].T).argmax(dim=1)]
        wrong = dataset.labels[nearest] != dataset.labels[test]
        errors.append(100 * wrong.double().mean().item())
    return errors


DRAWINGS = (
    Drawing("depth-argument", "degradation", argument),
    Drawing("degradation-plain", "degradation", of_report("along_training", 0)),
    Drawing("degradation-residual", "degradation", of_report("along_training", 1)),
    Drawing("gradients-plain-without-norm", "gradients", of_report("measured", 0)),
    Drawing("gradients-plain-with-norm", "gradients", of_report("measured", 1)),
    Drawing("gradients-residual-without-norm", "gradients", of_report("measured", 2)),
    Drawing("gradients-residual-with-norm", "gradients", of_report("measured", 3)),
    Drawing("initialization-training-error", "initialization", of_report("final", 0)),
    Drawing("residuals-by-block", "residuals", of_report("measured", 0)),
    Drawing("responses-sorted", "responses", of_report("measured", 1)),
    Drawing("lesion-one-block", "lesion", of_report("measured", 0)),
    Drawing("block-plain", "degradation", block("plain20")),
    Drawing("block-residual", "degradation", block("resnet20")),
    Drawing("block-basic", "degradation", block("resnet34")),
    Drawing("block-bottleneck", "degradation", block("resnet50")),
    Drawing("shortcuts-training-error", "shortcuts", of_report("final", 0)),
    Drawing("shortcuts-test-error", "shortcuts", of_report("final", 1)),
    Drawing("bottleneck-training-error", "bottleneck", of_report("final", 0)),
    Drawing("bottleneck-test-error", "bottleneck", of_report("final", 1)),
    Drawing("deep-training-error", "depth", of_report("final", 0)),
    Drawing("deep-test-error", "depth", of_report("final", 1)),
    Drawing("deep-time", "depth", of_report("measured", 0)),
    Drawing("deep-memory", "depth", of_report("measured", 1)),
    Drawing("backbone-neighbors", "degradation", neighbors),
)


def as_file(chart: str, *, name: str, language: str) -> str:
    """Returns a chart of a page as a file of its own: on a white card, with title and description.

    Args:
        chart: made by `inline_svg`.
        name: of the file.
        language: code of the language of its words.
    """
    opening = OPENING.match(chart)
    assert opening is not None, "inline_svg opens a chart with its description and its size"
    description, width, height = opening.groups()
    body = chart[opening.end() :].rsplit("</svg>", 1)[0]
    for role, (light, _) in COLORS.items():
        body = body.replace(f"var(--{role})", light)
    surface, edge = COLORS["surface"][0], COLORS["line"][0]
    title = re.split(r"[:.] ", description)[0]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' role="img" aria-labelledby="{name}-title {name}-description" lang="{language}"'
        f' width="{WIDTH}" height="{WIDTH * float(height) / float(width):.0f}"'
        f' viewBox="0 0 {width} {height}" stroke-linejoin="round">'
        f'<title id="{name}-title">{title}</title>'
        f'<desc id="{name}-description">{description}</desc>'
        f'<rect x="0.5" y="0.5" width="{float(width) - 1:g}" height="{float(height) - 1:g}" rx="8"'
        f' fill="{surface}" stroke="{edge}"/>'
        f"{body}</svg>\n"
    )


def draw(studies: Path, out: Path) -> list[Path]:
    """Draws every chart in both languages.

    Args:
        studies: folder of finished studies.
        out: folder of the files.

    Returns:
        The files that were written.

    Raises:
        ResnetkitError: when a study is not finished, or the folder cannot be written.
    """
    written = []
    names = dict.fromkeys(drawing.study for drawing in DRAWINGS)
    outcomes = {name: read_outcome(find_study(name), SCALE, studies) for name in names}
    for t, ending in ((ENGLISH, ".svg"), (korean(), ".ko.svg")):
        shown = {name: study_page(outcome, t).charts for name, outcome in outcomes.items()}
        for drawing in DRAWINGS:
            chart = drawing.draw(outcomes[drawing.study], shown[drawing.study], t)
            path = out / f"{drawing.name}{ending}"
            write_file(path, as_file(chart, name=drawing.name, language=t.code))
            written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, default=Path("studies"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    try:
        for path in draw(options.studies, options.out):
            print(path)
    except ResnetkitError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
