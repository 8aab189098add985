"""The report of a study: what was asked, what was found, why, and how to check it."""

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from markupsafe import Markup

from resnetkit.data.splits import Split
from resnetkit.models.outline import outline
from resnetkit.report import charts
from resnetkit.report.diagram import block_drawing
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import model_facts, render, surroundings
from resnetkit.report.results import (
    differing_keys,
    next_steps,
    published,
    rows,
    run_links,
    seeds_in_words,
    trained_network,
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
from resnetkit.report.verdicts import cards, findings_for_machines, verdict_counts
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.chart import Chart
from resnetkit.studies.study import CONFIDENCE, Outcome

__all__ = [
    "study_values",
    "write_study_report",
]


def write_study_report(outcome: Outcome, t: Language = ENGLISH) -> Path:
    """Writes the report of a study into its folder, in a language.

    report.html is for people, findings.json says the same to machines, and <name>.svg is the main
    chart on its own. Each file is replaced at once.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written; the runs are untouched.
    """
    errors = error_charts(outcome)
    machines = json.dumps(findings_for_machines(outcome), indent=1, allow_nan=False)
    contents = {
        f"{outcome.study.name}.svg": charts.line_sheet(
            errors, held_out=held_out_split(outcome), name=outcome.study.name
        ),
        "findings.json": machines + "\n",
        "report.html": render("study.html.j2", t, prefix="", **study_values(outcome, t)),
    }
    advice = "The runs are untouched: make room or permit writing, then write the report again."
    with storage_errors(outcome.folder, advice):
        outcome.folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(outcome.folder / name, content)
    return outcome.folder / "report.html"


def error_charts(outcome: Outcome) -> list[Chart]:
    """Returns the charts of errors along training, one per family, on equal axes."""
    titles: dict[str, Iterable[str]] = {
        family_name(family): members for family, members in families(outcome.runs).items()
    }
    lines = {
        title: [
            line
            for color, group in enumerate(groups)
            for line in error_lines(group, outcome.runs[group], color)
        ]
        for title, groups in (titles or {"All networks": outcome.runs}).items()
    }
    top = axis_top((line.highest for line in chain(*lines.values())), limit=100.0)
    return [
        Chart(title, "epoch", "error", tuple(shown), top=top, unit="%", end_values=True)
        for title, shown in lines.items()
    ]


def held_out_split(outcome: Outcome) -> str:
    """Returns the name of the split that is evaluated along training."""
    splits = (run.recipe.evaluation.split for run in chain.from_iterable(outcome.runs.values()))
    return next(splits, "test")


def study_values(outcome: Outcome, t: Language) -> dict[str, Any]:
    """Returns what the template shows of a study."""
    runs = list(chain.from_iterable(outcome.runs.values()))
    return {
        "study": outcome.study,
        "measured_charts": line_charts(outcome.charts, f"{outcome.study.name}-measured", t),
        "block_drawings": block_drawings(outcome, t),
        "beside_paper": beside_paper(outcome),
        "scale": outcome.scale,
        "changes": outcome.changes,
        "data": runs[0].recipe.data.name if runs else "no data",
        "seeds": seeds_in_words(outcome),
        "part": held_out_split(outcome),
        "diverged": diverged(outcome),
        "verdicts": verdict_counts(outcome.findings),
        "cards": cards(outcome.findings),
        "confidence": f"{CONFIDENCE:.0%}",
        "curve_charts": line_charts(error_charts(outcome), f"{outcome.study.name}-curves", t),
        "final_charts": final_charts(outcome, t),
        "rows": rows(outcome),
        "published": published(outcome.study),
        "names": {group: display_name(group) for group in named_groups(outcome)},
        "next_steps": next_steps(outcome),
        "recipe": runs[0].recipe.to_yaml() if runs else "",
        "differing": differing_keys(runs),
        "surroundings": surroundings(runs),
        "run_links": run_links(outcome),
    }


def beside_paper(outcome: Outcome) -> str:
    """Returns how the numbers compare with published ones."""
    return CHANGED if outcome.changes else outcome.study.scales[outcome.scale].beside_paper


CHANGED = "Values of the recipe were changed here: compare with care."


def diverged(outcome: Outcome) -> int:
    """Returns how many trainings have no error of their own."""
    return sum(run.diverged for run in chain.from_iterable(outcome.runs.values()))


def line_charts(shown: Iterable[Chart], name: str, t: Language) -> list[Markup]:
    """Returns charts for a page; their names are `name` and a number."""
    return [
        Markup(charts.line_chart(chart, name=f"{name}{number}", t=t))
        for number, chart in enumerate(shown)
    ]


MOST_BLOCKS = 4


def block_drawings(outcome: Outcome, t: Language) -> list[Markup]:
    """Returns the blocks that are compared, each kind once: the first that changes the size."""
    kinds: dict[object, Markup] = {}
    for group, runs in outcome.runs.items():
        for run in [run for run in runs if model_facts(run)][:1]:
            block = outline(*trained_network(run))[2].blocks[0]
            if (block.layers, block.shortcut) not in kinds:
                drawing = block_drawing(block, title=display_name(group), t=t)
                kinds[block.layers, block.shortcut] = Markup(drawing)
    return list(kinds.values())[:MOST_BLOCKS]


def named_groups(outcome: Outcome) -> Iterable[str]:
    """Returns every group that the page may name."""
    return chain(outcome.runs, (figure.group for figure in outcome.study.paper_figures))


def final_charts(outcome: Outcome, t: Language) -> list[Markup]:
    """Returns the charts of final training and test error, on equal axes."""
    return [
        Markup(chart)
        for chart in (
            final_chart(outcome, "train", "Final training error", t),
            final_chart(outcome, "test", "Final test error", t),
        )
    ]


def final_chart(outcome: Outcome, split: Split, title: str, t: Language) -> str:
    """Returns the chart of final errors on a split: by depth where depth is what is compared."""
    name = f"{outcome.study.name}-final-{split}"
    top = axis_top(
        (
            value
            for runs in outcome.runs.values()
            for on in ("train", "test")
            for value in final_values(runs, on)
        ),
        limit=100.0,
    )

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
