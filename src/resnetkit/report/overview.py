"""One report on all studies: a front page of claims and verdicts, and each study behind it."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import render
from resnetkit.report.study_report import study_values
from resnetkit.report.verdicts import findings_for_machines, verdict_counts
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.runner import ALL
from resnetkit.studies.study import Outcome

__all__ = ["write_overview"]


def write_overview(outcomes: Sequence[Outcome], t: Language = ENGLISH) -> Path:
    """Writes the report on several finished studies of one scale, beside those of each.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written; the runs are untouched.
    """
    scale, root = outcomes[0].scale, outcomes[0].folder.parent
    folder = root / f"{ALL}-{scale}"
    machines = {
        "study": ALL,
        "scale": scale,
        "changes": outcomes[0].changes,
        "studies": [findings_for_machines(outcome) for outcome in outcomes],
    }
    contents = {
        "findings.json": json.dumps(machines, indent=1, allow_nan=False) + "\n",
        "report.html": overview_page(outcomes, t),
    }
    advice = "The runs are untouched: make room or permit writing, then write the report again."
    with storage_errors(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(folder / name, content)
    return folder / "report.html"


def overview_page(outcomes: Sequence[Outcome], t: Language) -> str:
    """Returns the page."""
    return render(
        "overview.html.j2",
        t,
        scale=outcomes[0].scale,
        changes=outcomes[0].changes,
        verdicts=verdict_counts(chain.from_iterable(each.findings for each in outcomes)),
        trainings=len({run.folder for each in outcomes for run in chain(*each.runs.values())}),
        sections=[study_values(outcome, t) for outcome in outcomes],
    )
