"""The report of a study: the question, the findings, their reasons, and how to check them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from markupsafe import Markup

from resnetkit.data.splits import Split
from resnetkit.models.outline import outline
from resnetkit.report import charts
from resnetkit.report.diagram import block_drawing
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import (
    SharedEnvironment,
    network_facts,
    processors_of,
    render,
    shared_environments,
)
from resnetkit.report.results import (
    NextStep,
    Row,
    RunLink,
    architecture_of,
    describe_seeds,
    differing_keys,
    next_steps,
    published,
    rows,
    run_links,
)
from resnetkit.report.series import (
    FinalErrors,
    axis_top,
    display_name,
    error_lines,
    families,
    family_name,
    final_values,
)
from resnetkit.report.verdicts import Card, cards, findings_json, verdict_counts
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.chart import Chart
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.studies.presets import CIFAR10_DATA, OTHER_TASK
from resnetkit.studies.statistics import SPLIT_NAMES
from resnetkit.studies.study import Outcome, PaperFigure, Verdict
from resnetkit.training.run_folder import Run

__all__ = ["StudyPage", "study_page", "write_study_report"]

MOST_BLOCKS = 4
COMPARE_WITH_CARE = phrase("Values of the recipe were changed here: compare with care.")


@dataclass(frozen=True)
class StudyCharts:
    """The drawings of a study.

    Attributes:
        measured: what the study measured inside the networks.
        along_training: error against epoch, one per family of networks.
        final: training and test error at the end.
        blocks: every kind of block that is compared.
    """

    measured: list[Markup]
    along_training: list[Markup]
    final: list[Markup]
    blocks: list[Markup]


@dataclass(frozen=True)
class StudyPage:
    """What the template shows of a study.

    Attributes:
        outcome: of the study.
        data: name of the data set; None without runs.
        seeds: number of trainings per network, as a phrase.
        held_out: name of the split that is evaluated during training.
        comparability: how the numbers compare with published ones.
        diverged: number of trainings that diverged.
        verdicts: number of findings by verdict.
        cards: one per finding.
        charts: ready to show.
        rows: of the table of results.
        published: published errors by source.
        names: display name of each group.
        next_steps: what a reader could try.
        recipe: of the first run, as YAML; None without runs.
        differing: keys in which the recipes differ.
        environments: of the runs.
        processors: that they were trained on; equal recipes give equal bytes on one kind only.
        run_links: to the measurements of the runs, by group.
    """

    outcome: Outcome
    data: str | None
    seeds: Phrase
    held_out: Phrase
    comparability: str
    diverged: int
    verdicts: dict[Verdict, int]
    cards: list[Card]
    charts: StudyCharts
    rows: list[Row]
    published: dict[str, list[PaperFigure]]
    names: dict[str, str]
    next_steps: list[NextStep]
    recipe: str | None
    differing: list[str]
    environments: list[SharedEnvironment]
    processors: list[str]
    run_links: dict[str, list[RunLink]]


def write_study_report(outcome: Outcome, t: Language = ENGLISH) -> Path:
    """Writes the report of a study into its folder, in a language.

    report.html is for people, findings.json contains the same for programs, and <name>.svg is the
    main chart alone. Each file is written atomically.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written; the runs are untouched.
    """
    findings = json.dumps(findings_json(outcome), indent=1, allow_nan=False)
    contents = {
        f"{outcome.study.name}.svg": charts.line_sheet(
            error_charts(outcome), held_out=held_out_split(outcome), name=outcome.study.name
        ),
        "findings.json": findings + "\n",
        "report.html": render("study.html.j2", study_page(outcome, t), t),
    }
    advice = "The runs are untouched: make room or permit writing, then write the report again."
    with storage_errors(outcome.folder, advice):
        outcome.folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(outcome.folder / name, content)
    return outcome.folder / "report.html"


def study_page(outcome: Outcome, t: Language) -> StudyPage:
    """Returns what the template shows of a study."""
    study, runs = outcome.study, all_runs(outcome)
    groups = chain(outcome.runs, (figure.group for figure in study.paper_figures))
    same_images = study.paper_data == CIFAR10_DATA
    comparability = study.scales[outcome.scale].comparability if same_images else OTHER_TASK
    return StudyPage(
        outcome=outcome,
        data=runs[0].recipe.data.name if runs else None,
        seeds=describe_seeds(outcome),
        held_out=SPLIT_NAMES[held_out_split(outcome)],
        comparability=COMPARE_WITH_CARE if outcome.changes else comparability,
        diverged=sum(run.diverged for run in runs),
        verdicts=verdict_counts(outcome.findings),
        cards=cards(outcome.findings),
        charts=study_charts(outcome, t),
        rows=rows(outcome),
        published=published(study),
        names={group: display_name(group) for group in groups},
        next_steps=next_steps(outcome),
        recipe=runs[0].recipe.to_yaml() if runs else None,
        differing=differing_keys(runs),
        environments=shared_environments(runs),
        processors=processors_of(runs),
        run_links=run_links(outcome),
    )


def all_runs(outcome: Outcome) -> list[Run]:
    """Returns the runs of all groups."""
    return list(chain.from_iterable(outcome.runs.values()))


def held_out_split(outcome: Outcome) -> Split:
    """Returns the split that is evaluated during training."""
    runs = all_runs(outcome)
    return runs[0].recipe.evaluation.split if runs else "test"


def study_charts(outcome: Outcome, t: Language) -> StudyCharts:
    """Returns the drawings of a study."""
    name = outcome.study.name
    return StudyCharts(
        measured=line_charts(outcome.charts, f"{name}-measured", t),
        along_training=line_charts(error_charts(outcome), f"{name}-curves", t),
        final=[
            Markup(final_chart(outcome, "train", phrase("Final training error"), t)),
            Markup(final_chart(outcome, "test", phrase("Final test error"), t)),
        ],
        blocks=list(block_drawings(outcome, t)),
    )


def line_charts(shown: Iterable[Chart], name: str, t: Language) -> list[Markup]:
    """Returns charts for a page; their names are `name` and a number."""
    return [
        Markup(charts.line_chart(chart, name=f"{name}{number}", t=t))
        for number, chart in enumerate(shown)
    ]


def error_charts(outcome: Outcome) -> list[Chart]:
    """Returns the charts of errors during training, one per family, on equal axes."""
    titles: dict[Phrase, Iterable[str]] = {
        family_name(family): members for family, members in families(outcome.runs).items()
    }
    lines = {
        title: [
            line
            for color, group in enumerate(groups)
            for line in error_lines(group, outcome.runs[group], color)
        ]
        for title, groups in (titles or {phrase("All networks"): outcome.runs}).items()
    }
    top = axis_top((line.highest for line in chain(*lines.values())), limit=100.0)
    return [
        Chart(
            title,
            phrase("epoch"),
            phrase("error"),
            tuple(family_lines),
            top=top,
            unit="%",
            end_values=True,
        )
        for title, family_lines in lines.items()
    ]


def final_chart(outcome: Outcome, split: Split, title: str, t: Language) -> str:
    """Returns the chart of final errors on a split: by depth where depth is what is compared."""
    name = f"{outcome.study.name}-final-{split}"
    runs = all_runs(outcome)
    top = axis_top((*final_values(runs, "train"), *final_values(runs, "test")), limit=100.0)

    def final(group: str, depth: int) -> FinalErrors:
        return FinalErrors(display_name(group), depth, final_values(outcome.runs[group], split))

    if grouped := families(outcome.runs):
        by_family = {
            family: [final(group, depth) for group, depth in members.items()]
            for family, members in grouped.items()
        }
        return charts.errors_by_depth(by_family, title=title, top=top, name=name, t=t)
    networks = [final(group, 0) for group in outcome.runs]
    return charts.errors_by_network(networks, title=title, top=top, name=name, t=t)


def block_drawings(outcome: Outcome, t: Language) -> Iterator[Markup]:
    """Yields the blocks that are compared, each kind once: the first that changes the size."""
    kinds: set[object] = set()
    for group, runs in outcome.runs.items():
        finished = ((run, facts) for run in runs if (facts := network_facts(run)))
        for run, facts in [*finished][:1]:
            block = outline(*architecture_of(run, facts))[2].blocks[0]
            if (block.layers, block.shortcut) not in kinds and len(kinds) < MOST_BLOCKS:
                kinds.add((block.layers, block.shortcut))
                yield Markup(block_drawing(block, title=display_name(group), t=t))
