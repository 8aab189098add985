"""The report of a study: what was asked, what was found, why, and how to check it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
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
from resnetkit.report.series import Curve, Ending, curve, families, final_values, heading, label
from resnetkit.report.verdicts import cards, findings_for_machines, verdict_counts
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.study import CONFIDENCE, Outcome

__all__ = [
    "error_panels",
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
    panels = error_panels(outcome)
    machines = json.dumps(findings_for_machines(outcome), indent=1, allow_nan=False)
    contents = {
        f"{outcome.study.name}.svg": charts.error_curves_sheet(
            panels.curves, top=panels.top, part=panels.part, name=outcome.study.name
        ),
        "findings.json": machines + "\n",
        "report.html": render("study.html.j2", t, prefix="", **study_values(outcome, panels, t)),
    }
    advice = "The runs are untouched: make room or permit writing, then write the report again."
    with storage_errors(outcome.folder, advice):
        outcome.folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(outcome.folder / name, content)
    return outcome.folder / "report.html"


@dataclass(frozen=True)
class Panels:
    """The errors along training, ready to draw.

    Attributes:
        curves: of each family of networks, by its heading.
        top: end of the common axis in percent.
        part: name of the part of the data that is watched along training.
    """

    curves: dict[str, list[Curve]]
    top: float
    part: str


def error_panels(outcome: Outcome) -> Panels:
    """Returns the errors along training of each family."""
    curves = {
        heading(family): [curve(label(group), outcome.runs[group]) for group in members]
        for family, members in families(outcome.runs).items()
    }
    top = axis_top(curve.highest for found in curves.values() for curve in found)
    watched = (run.recipe.evaluation.split for run in chain.from_iterable(outcome.runs.values()))
    return Panels(curves, top, next(watched, "test"))


def axis_top(values: Iterable[float]) -> float:
    """Returns the end of an axis in percent, a little above the highest value."""
    return min(100.0, 1.06 * max(values, default=0.0)) or 1.0


def study_values(outcome: Outcome, panels: Panels, t: Language) -> dict[str, Any]:
    """Returns what the template shows of a study."""
    runs = list(chain.from_iterable(outcome.runs.values()))
    return {
        "study": outcome.study,
        "measured_charts": measured_charts(outcome, t),
        "block_drawings": block_drawings(outcome, t),
        "beside_paper": beside_paper(outcome),
        "scale": outcome.scale,
        "changes": outcome.changes,
        "data": runs[0].recipe.data.name if runs else "no data",
        "seeds": seeds_in_words(outcome),
        "part": panels.part,
        "diverged": diverged(outcome),
        "verdicts": verdict_counts(outcome.findings),
        "cards": cards(outcome.findings),
        "confidence": f"{CONFIDENCE:.0%}",
        "curve_charts": curve_charts(panels, outcome.study.name, t),
        "final_charts": final_charts(outcome, t),
        "rows": rows(outcome),
        "published": published(outcome.study),
        "names": {group: label(group) for group in named_groups(outcome)},
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


def measured_charts(outcome: Outcome, t: Language) -> list[Markup]:
    """Returns the charts of what the study measured inside the networks."""
    return [
        Markup(charts.measured_lines(chart, name=f"{outcome.study.name}-measured{place}", t=t))
        for place, chart in enumerate(outcome.charts)
    ]


MOST_BLOCKS = 4


def block_drawings(outcome: Outcome, t: Language) -> list[Markup]:
    """Returns the blocks that are compared, each kind once: the first that changes the size."""
    kinds: dict[object, Markup] = {}
    for group, runs in outcome.runs.items():
        for run in [run for run in runs if model_facts(run)][:1]:
            block = outline(*trained_network(run))[2].blocks[0]
            if (block.layers, block.shortcut) not in kinds:
                drawing = block_drawing(block, title=label(group), t=t)
                kinds[block.layers, block.shortcut] = Markup(drawing)
    return list(kinds.values())[:MOST_BLOCKS]


def named_groups(outcome: Outcome) -> Iterable[str]:
    """Returns every group that the page may name."""
    return chain(outcome.runs, (figure.group for figure in outcome.study.paper_figures))


def curve_charts(panels: Panels, name: str, t: Language) -> list[Markup]:
    """Returns the charts of error against epoch, one a family; `name` is the study's."""
    return [
        Markup(
            charts.error_curves(
                curves,
                title=title,
                top=panels.top,
                part=panels.part,
                name=f"{name}-curves{place}",
                t=t,
            )
        )
        for place, (title, curves) in enumerate(panels.curves.items())
    ]


def final_charts(outcome: Outcome, t: Language) -> list[Markup]:
    """Returns the charts of final training and test error, on one scale."""
    parts: dict[Split, str] = {"train": "Final training error", "test": "Final test error"}
    name = outcome.study.name
    found = {part: endings(outcome, part) for part in parts}
    networks = [each for members in found.values() for each in chain(*members.values())]
    top = axis_top(value for each in networks for value in each.values)
    return [
        Markup(
            charts.errors_by_network(
                found[part][""], title=title, top=top, name=f"{name}-final-{part}", t=t
            )
            if "" in found[part]
            else charts.errors_by_depth(
                found[part], title=title, top=top, name=f"{name}-final-{part}", t=t
            )
        )
        for part, title in parts.items()
    ]


def endings(outcome: Outcome, part: Split) -> dict[str, list[Ending]]:
    """Returns the final errors on a part of the data, by family."""
    return {
        family: [
            Ending(label(group), x, final_values(outcome.runs[group], part))
            for group, x in members.items()
        ]
        for family, members in families(outcome.runs).items()
    }
