"""The interactive page: one file with the runs, the networks and all scripts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import render
from resnetkit.report.play.bundle import bundle, policy, source
from resnetkit.report.play.messages import messages
from resnetkit.report.play.questions import QUESTIONS, Question
from resnetkit.report.play.selection import SCALE, Selection
from resnetkit.report.play.stills import still_pictures
from resnetkit.report.play.values import PlayRun, live_data, page_data, script_json
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.training.run_folder import Run, read_run

__all__ = ["PlayPage", "play_page", "write_play_page"]


@dataclass(frozen=True)
class PlayPage:
    """What the template shows.

    Attributes:
        policy: Content-Security-Policy, with the digest of the script.
        script: all modules of the page.
        network_worker: the script that computes test errors.
        spiral_worker: the script that trains.
        data: the runs and texts, as JSON.
        live: networks and digits, as JSON.
        stills: pictures for browsers without scripts, by the part of the page.
        questions: of the last chapter.
        code: the residual block in Python.
        runs: of the page.
        seeds: of the trainings.
        epochs: of every training.
        data_name: of the data set.
        test_images: how many there are.
        machines: on which the runs were trained.
        claims: number of claims of the study of degradation.
        confirmed: how many of them these runs confirm.
    """

    policy: str
    script: Markup
    network_worker: Markup
    spiral_worker: Markup
    data: Markup
    live: Markup
    stills: Mapping[str, list[Markup]]
    questions: tuple[Question, ...]
    code: str
    runs: list[PlayRun]
    seeds: list[int]
    epochs: int
    data_name: str
    test_images: int
    machines: list[str]
    claims: int
    confirmed: int


def write_play_page(selection: Selection, path: Path, t: Language = ENGLISH) -> None:
    """Writes the page into one file, atomically.

    Args:
        selection: the runs, all of which are finished and measured.
        path: of the file.
        t: language of the page.

    Raises:
        DataError: when a file of a run is corrupt, or a run is not finished.
        WeightsError: when the weights of a network cannot be read.
        StorageError: when the file cannot be written.
    """
    page = play_page(selection, t)
    content = render("play.html.j2", page, t, style_file="play/style.css")
    with storage_errors(path, "Choose another file with --out."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)


def play_page(selection: Selection, t: Language) -> PlayPage:
    """Returns what the template shows of runs."""
    data = page_data(selection, messages(t), t.code)
    live = live_data(selection)
    script = bundle("main")
    runs = [run for run in data.runs if run.epochs]
    findings = DEGRADATION.findings(degradation_runs(selection))
    return PlayPage(
        policy=policy([script]),
        script=Markup(script),
        network_worker=Markup(bundle("network_worker")),
        spiral_worker=Markup(bundle("spiral_worker")),
        data=script_json(data),
        live=script_json(live),
        stills=still_pictures(data.runs, t),
        questions=QUESTIONS,
        code=source("block.txt").rstrip(),
        runs=data.runs,
        seeds=sorted({run.seed for run in runs}),
        epochs=max(max(run.epochs) for run in runs),
        data_name=selection.tasks[0].recipe.data.name,
        test_images=live.digits["count"],
        machines=machines(selection),
        claims=len(findings),
        confirmed=sum(finding.verdict == "confirmed" for finding in findings),
    )


def degradation_runs(selection: Selection) -> dict[str, list[Run]]:
    """Returns the runs of the study of degradation, by group."""
    groups = DEGRADATION.scales[SCALE].groups
    return {group: [read_run(task.folder) for task in selection.groups[group]] for group in groups}


def machines(selection: Selection) -> list[str]:
    """Returns the processors on which the runs were trained."""
    sessions = [session for task in selection.tasks for session in read_run(task.folder).sessions]
    names = (str(session.hardware.get("processor", "")) for session in sessions)
    return sorted({name for name in names if name})
