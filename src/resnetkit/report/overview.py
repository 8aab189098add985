"""One report on all studies: a front page of claims and verdicts, and each study behind it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import render
from resnetkit.report.study_report import StudyPage, study_page
from resnetkit.report.verdicts import findings_json, verdict_counts
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.runner import ALL
from resnetkit.studies.study import Changes, Outcome, Verdict

__all__ = ["OverviewPage", "overview_page", "write_overview"]


@dataclass(frozen=True)
class OverviewPage:
    """What the template shows of several studies.

    Attributes:
        scale: of all studies.
        changes: values of every recipe that were replaced.
        verdicts: number of findings by verdict.
        trainings: number of different trainings.
        studies: one page per study.
    """

    scale: str
    changes: Changes
    verdicts: dict[Verdict, int]
    trainings: int
    studies: list[StudyPage]


def write_overview(outcomes: Sequence[Outcome], t: Language = ENGLISH) -> Path:
    """Writes the report on several finished studies of one scale, next to those of each.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written; the runs are untouched.
    """
    scale, root = outcomes[0].scale, outcomes[0].folder.parent
    folder = root / f"{ALL}-{scale}"
    findings = {
        "study": ALL,
        "scale": scale,
        "changes": outcomes[0].changes,
        "studies": [findings_json(outcome) for outcome in outcomes],
    }
    contents = {
        "findings.json": json.dumps(findings, indent=1, allow_nan=False) + "\n",
        "report.html": render("overview.html.j2", overview_page(outcomes, t), t),
    }
    advice = "The runs are untouched: make room or permit writing, then write the report again."
    with storage_errors(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(folder / name, content)
    return folder / "report.html"


def overview_page(outcomes: Sequence[Outcome], t: Language) -> OverviewPage:
    """Returns what the template shows."""
    runs = (run for outcome in outcomes for run in chain(*outcome.runs.values()))
    return OverviewPage(
        scale=outcomes[0].scale,
        changes=outcomes[0].changes,
        verdicts=verdict_counts(chain(*(outcome.findings for outcome in outcomes))),
        trainings=len({run.folder for run in runs}),
        studies=[study_page(outcome, t) for outcome in outcomes],
    )
