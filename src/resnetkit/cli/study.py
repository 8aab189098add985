"""resnet study: run a study and write its report."""

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Changes, Device, Json, Lang, parse_changes
from resnetkit.cli.output import Bar, bar, print_json, print_table, remark, remark_on_data, say
from resnetkit.cli.streams import drop_stdout
from resnetkit.cli.workers import Address, Backend, Jobs, Scheduler, chosen_workers

if TYPE_CHECKING:
    from resnetkit.report.language import Language
    from resnetkit.studies.study import Outcome

__all__ = ["CLAIM_NOT_CONFIRMED", "study"]

CLAIM_NOT_CONFIRMED = 4

Scale = Annotated[str | None, Parameter(help="Size of the study; by default its first.")]
Data = Annotated[
    str | None,
    Parameter(help="Data set: selects the study's first scale on it, unless --scale is given."),
]
Out = Annotated[Path, Parameter(help="Folder for all studies; 'studies' by default.")]


def study(
    name: str = "list",
    /,
    *,
    scale: Scale = None,
    data: Data = None,
    out: Out = Path("studies"),
    jobs: Jobs = 0,
    backend: Backend = "loky",
    scheduler: Scheduler = None,
    address: Address = None,
    device: Device = "auto",
    changes: Changes = (),
    lang: Lang = "en",
    json: Json = False,
) -> int:
    """Run a study: train the networks it needs, judge its claims and write a report.

    The exit code is 4 when a claim is not confirmed.

    Args:
        name: A study, such as degradation; 'list' lists them, 'all' runs them all for one report.
    """
    from resnetkit.report.language import find_language
    from resnetkit.studies.runner import ALL, run_studies, tasks_of
    from resnetkit.studies.table import STUDIES, find_study

    if name == "list":
        list_studies(json=json)
        return 0
    workers = chosen_workers(jobs, backend, device, scheduler, address)
    language = find_language(lang)
    studies = list(STUDIES.values()) if name == ALL else [find_study(name)]
    if data:
        remark_on_data(data)
    scale = studies[0].choose_scale(scale, data)
    replaced = parse_changes(changes)
    trainings = len(tasks_of(studies, scale, out, replaced))
    remark(f"study {name}, scale {scale}: {trainings} trainings in {out / 'runs'}")
    with bar(f"study {name}") as progress:
        outcomes = run_studies(
            studies,
            scale,
            out,
            changes=replaced,
            workers=workers,
            observe=StudyProgress(progress),
        )
    report = write_reports(outcomes, language, overview=name == ALL)
    try:
        show_outcomes(outcomes, report, json=json)
        sys.stdout.flush()
    except BrokenPipeError:  # a reader that leaves does not change the verdict
        drop_stdout()
    return exit_code(outcomes)


def exit_code(outcomes: "Sequence[Outcome]") -> int:
    """Returns 0 if all claims are confirmed."""
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    holds = all(finding.verdict == "confirmed" for finding in findings)
    return 0 if holds else CLAIM_NOT_CONFIRMED


def write_reports(outcomes: "Sequence[Outcome]", language: "Language", *, overview: bool) -> Path:
    """Writes a report for each study, and an overview of all of them; returns the path to print."""
    from resnetkit.report.overview import write_overview
    from resnetkit.report.study_report import write_study_report

    reports = [write_study_report(outcome, language) for outcome in outcomes]
    return write_overview(outcomes, language) if overview else reports[0]


class StudyProgress:
    """Reports the progress of a study: on a bar, or in one line for each quarter."""

    def __init__(self, progress: Bar) -> None:
        self.progress = progress
        self.quarters = 0

    def __call__(self, fraction: float) -> None:
        self.progress.update(fraction)
        if not self.progress.is_shown and int(fraction * 4) > self.quarters:
            self.quarters = int(fraction * 4)
            remark(f"{self.quarters * 25} % done")


@dataclass(frozen=True)
class ListedStudy:
    """One row of the list of studies: a study at one of its scales.

    Attributes:
        name: of the study.
        scale: by which it is run.
        data: name of the data set.
        trainings: how many there are.
        cost: as a phrase, with the hardware.
        question: that it answers.
    """

    name: str
    scale: str
    data: str
    trainings: int
    cost: str
    question: str


def list_studies(*, json: bool) -> None:
    """Prints one line for each study and scale."""
    from resnetkit.studies.table import STUDIES

    rows = [
        ListedStudy(
            name=study.name,
            scale=scale,
            data=size.data,
            trainings=size.trainings,
            cost=size.cost,
            question=study.question,
        )
        for study in STUDIES.values()
        for scale, size in study.scales.items()
    ]
    if json:
        print_json(rows)
        return
    columns = [field.name for field in fields(ListedStudy)]
    print_table(columns, [astuple(row) for row in rows], numbers="lllrll")


def show_outcomes(outcomes: "Sequence[Outcome]", report: Path, *, json: bool) -> None:
    """Prints the verdicts and the path of the report."""
    import json as json_module

    if json:
        print_json(json_module.loads((report.parent / "findings.json").read_text(encoding="utf-8")))
    else:
        for finding in (finding for outcome in outcomes for finding in outcome.findings):
            say(f"{finding.verdict}: {finding.claim}")
            for sample in (finding.first, finding.second):
                unit, digits = (f" {sample.unit}", 2) if sample.unit else ("", 3)
                mean, spread = f"{sample.mean:.{digits}f}", f"{sample.spread:.{digits}f}"
                count = len(sample.values)
                say(f"    {sample.label}: {mean}{unit} +- {spread} (n = {count})")
    remark(f"report: {report.resolve()}")
