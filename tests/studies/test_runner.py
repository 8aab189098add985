"""What a study trains, in which order and where; and that nothing is trained twice."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import joblib
import pytest

from resnetkit.errors import DataError, Interrupted, RecipeError, UsageError
from resnetkit.report.study_report import write_study_report
from resnetkit.studies import runner
from resnetkit.studies.cluster import Workers
from resnetkit.studies.questions.responses import RESPONSES
from resnetkit.studies.runner import (
    read_outcome,
    read_outcomes_again,
    run_study,
    trial_folder,
)
from resnetkit.studies.study import Outcome, Study
from resnetkit.studies.table import STUDIES, find_study
from resnetkit.training.events import IntervalEvent
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run

NewStudy = Callable[..., Study]
Reader = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def trained(new_study: NewStudy, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Returns the tiny study, trained one after the other in this process."""
    return run_at_once(new_study(), tmp_path_factory.mktemp("trained"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, written_run: Callable[..., Run]) -> list[dict[str, Any]]:
    """Lets every training succeed at once, and returns the list in which they are noted."""
    noted: list[dict[str, Any]] = []

    def pretend(recipe: Recipe, folder: Path, **options: Any) -> Run:
        noted.append({"recipe": recipe, "folder": folder, **options})
        return written_run(folder, recipe, train=50.0, test=50.0)

    monkeypatch.setattr(runner, "train", pretend)
    return noted


def networks(calls: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(call["recipe"].model.name, call["recipe"].seed) for call in calls]


SEQUENTIAL = Workers(backend="sequential", device="cpu")


def run_at_once(
    study: Study, root: Path, *, workers: Workers = SEQUENTIAL, **options: Any
) -> Outcome:
    return run_study(study, "tiny", root, workers=workers, **options)


def test_every_trial_is_trained_in_its_folder(trained: Outcome) -> None:
    root = trained.folder.parent
    trials = trained.study.trials("tiny")
    assert trained.folder == root / "tiny-tiny"
    assert sorted((root / "runs").iterdir()) == sorted(trial_folder(root, t.recipe) for t in trials)
    assert {group: len(runs) for group, runs in trained.runs.items()} == {
        "plain8": 3,
        "resnet8": 3,
    }
    for trial in trials:
        run = trained.runs[trial.group][trial.recipe.seed]
        assert run.recipe == trial.recipe
        assert run.final is not None
        assert (
            run.folder.name
            == f"{trial.group}-few-seed{trial.recipe.seed}-" + (trial.recipe.digest[:8])
        )


def test_findings_are_computed_from_the_runs(trained: Outcome) -> None:
    (finding,) = trained.findings
    for sample, group in ((finding.first, "plain8"), (finding.second, "resnet8")):
        lines = [run.metrics_path.read_text().splitlines()[-1] for run in trained.runs[group]]
        assert list(sample.values) == [json.loads(line)["train"]["error"] for line in lines]


def test_seeds_and_networks_end_differently(trained: Outcome) -> None:
    metrics = [run.metrics_path.read_bytes() for runs in trained.runs.values() for run in runs]
    assert len(set(metrics)) == 6


def same_results(one: Outcome, other: Outcome, results: Reader) -> bool:
    """Compares the findings of two outcomes, and every byte of their runs."""
    return one.findings == other.findings and all(
        results(run.folder) == results(twin.folder)
        for group, runs in one.runs.items()
        for run, twin in zip(runs, other.runs[group], strict=True)
    )


def test_threads_change_no_byte(trained: Outcome, tmp_path: Path, results: Reader) -> None:
    outcome = run_at_once(trained.study, tmp_path, workers=Workers(2, "threading", "cpu"))
    assert same_results(trained, outcome, results)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_change_no_byte(
    new_study: NewStudy, four_steps_on_digits: str, tmp_path: Path, results: Reader, jobs: int
) -> None:
    study = new_study(groups=("plain20", "resnet20"), recipe=four_steps_on_digits)
    here = run_at_once(study, tmp_path / "here")
    there = run_at_once(study, tmp_path / "there", workers=Workers(jobs, "loky", "cpu"))
    assert same_results(here, there, results)


def test_a_second_start_trains_nothing(
    trained: Outcome, calls: list[dict[str, Any]], contents: Reader
) -> None:
    root = trained.folder.parent
    before = contents(root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert run_at_once(trained.study, root) == trained
    assert calls == []
    assert contents(root) == before
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times


def test_only_what_is_missing_is_trained(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    whole = run_at_once(new_study(), tmp_path)
    (whole.runs["plain8"][1].folder / "metrics.jsonl").write_text("")
    calls.clear()
    with pytest.raises(FileExistsError):  # of the pretended training: the folder is there
        run_at_once(new_study(), tmp_path)
    assert networks(calls) == [("plain8", 1)]
    assert calls[0]["folder"] == whole.runs["plain8"][1].folder


def test_an_interrupted_training_is_resumed_and_ends_alike(
    trained: Outcome, tmp_path: Path, results: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def killed_in_the_third(recipe: Recipe, folder: Path, **options: Any) -> Run:
        begun.append(folder.name)

        def observe(event: dict[str, Any]) -> None:
            if len(begun) == 3 and isinstance(event, IntervalEvent):
                signal.raise_signal(signal.SIGTERM)

        return train(recipe, folder, observe=observe, **options)

    monkeypatch.setattr(runner, "train", killed_in_the_third)
    with pytest.raises(Interrupted, match="same command resumes") as stop:
        run_at_once(trained.study, tmp_path)
    assert stop.value.exit_code == 143
    assert len(begun) == 3
    killed = Run(tmp_path / "runs" / begun[2], trained.study.trials("tiny")[0].recipe)
    assert killed.final is None
    assert 0 < killed.fraction_done < 1

    begun_before, begun[:] = list(begun), []

    def undisturbed(recipe: Recipe, folder: Path, **options: Any) -> Run:
        begun.append(folder.name)
        return train(recipe, folder, **options)

    monkeypatch.setattr(runner, "train", undisturbed)
    outcome = run_at_once(trained.study, tmp_path)
    assert begun[0] == begun_before[2]
    assert set(begun).isdisjoint(begun_before[:2])
    assert len(begun) == 4
    assert same_results(trained, outcome, results)


def test_signals_mean_what_they_meant_before(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_at_once(new_study(), tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_between_trainings_ends_the_study(
    new_study: NewStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written_run: Callable[..., Run],
    number: signal.Signals,
    code: int,
) -> None:
    """A pool's processes train; the one that waits for them catches the signal."""

    def raise_after_one(recipe: Recipe, folder: Path, **_: Any) -> None:
        written_run(folder, recipe, train=1.0, test=1.0)
        signal.raise_signal(number)

    monkeypatch.setattr(runner, "train", raise_after_one)
    with pytest.raises(Interrupted, match="the study 'tiny' was interrupted") as stop:
        run_at_once(new_study(), tmp_path)
    assert stop.value.exit_code == code
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_equal_recipes_of_two_studies_are_trained_once(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    one = run_at_once(new_study("one"), tmp_path)
    other = run_at_once(new_study("other", groups=("resnet8", "plain8", "resnet32")), tmp_path)
    assert networks(calls[6:]) == [("resnet32", seed) for seed in range(3)]
    assert other.runs["plain8"] == one.runs["plain8"]
    assert other.folder != one.folder


def test_the_longest_trainings_come_first(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    groups = ("resnet8", "plain56", "plain32")
    run_at_once(new_study(groups=groups, seeds=1, findings=lambda runs: []), tmp_path)
    assert [name for name, _ in networks(calls)] == ["plain56", "plain32", "resnet8"]


def test_trainings_at_a_time_take_one_thread_each(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    run_at_once(new_study(), tmp_path, workers=Workers(2, "threading", "cpu"))
    assert len(calls) == 6
    assert {(call["threads"], call["device"]) for call in calls} == {(1, "cpu")}


def test_changes_are_trained_elsewhere_and_kept_with_the_outcome(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    run_at_once(new_study(), tmp_path)
    outcome = run_at_once(new_study(), tmp_path, changes={"optimizer.lr": 0.5})
    assert outcome.changes == {"optimizer.lr": 0.5}
    assert len(calls) == 12
    assert {call["recipe"].optimizer.lr for call in calls[6:]} == {0.5}


@pytest.mark.parametrize("backend", ["sequential", pytest.param("loky", marks=pytest.mark.slow)])
def test_what_a_training_refuses_is_said_as_it_is(
    new_study: NewStudy, four_steps_on_digits: str, tmp_path: Path, backend: str
) -> None:
    study = new_study(groups=("plain20", "resnet20"), recipe=four_steps_on_digits)
    workers = Workers(2, backend, "cpu")
    with pytest.raises(RecipeError, match="batch_size is 1: "):
        run_at_once(study, tmp_path, changes={"batch_size": 1}, workers=workers)
    assert not (tmp_path / "runs").exists()


def test_an_incomplete_study_names_what_is_missing(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    study = new_study()
    with pytest.raises(UsageError, match="is not complete"):
        read_outcome(study, "tiny", tmp_path)
    missing = run_at_once(study, tmp_path).runs["resnet8"][0]
    missing.metrics_path.unlink()
    with pytest.raises(UsageError) as refusal:
        read_outcome(study, "tiny", tmp_path)
    assert str(missing.folder) in str(refusal.value)
    assert f"resnet study tiny --scale tiny --out {tmp_path}" in str(refusal.value)


def test_a_finished_study_can_be_read_without_training(trained: Outcome) -> None:
    assert read_outcome(trained.study, "tiny", trained.folder.parent) == trained


def test_an_unknown_scale_names_the_known(new_study: NewStudy, tmp_path: Path) -> None:
    for call in (run_study, read_outcome):
        with pytest.raises(UsageError, match=r"'tiny' has no scale 'large': expected tiny, none"):
            call(new_study(), "large", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backend_names_the_known(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    with pytest.raises(UsageError, match="unknown backend 'lokky': expected loky,"):
        run_at_once(new_study(), tmp_path, workers=Workers(backend="lokky"))
    assert calls == []


def test_a_backend_that_is_named_as_known_is_accepted(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    with pytest.raises(UsageError) as refusal:
        run_at_once(new_study(), tmp_path, workers=Workers(backend="nonsense"))
    named = re.findall("loky|multiprocessing|threading|sequential", str(refusal.value))
    for backend in named:
        joblib.Parallel(n_jobs=2, backend=backend, return_as="generator_unordered")


@pytest.mark.parametrize(("key", "value"), [("model.name", "resnet32"), ("seed", 7)])
def test_a_study_refuses_to_change_what_it_varies(
    new_study: NewStudy, tmp_path: Path, calls: list[dict[str, Any]], key: str, value: object
) -> None:
    with pytest.raises(UsageError, match=key):
        run_at_once(new_study(), tmp_path, changes={key: value})


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown study 'degredation'.*mean 'degradation'\?"):
        find_study("degredation")
    assert find_study("degradation") is STUDIES["degradation"]


def test_progress_only_grows(
    new_study: NewStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)
    told: list[float] = []
    run_at_once(new_study(seeds=1, findings=lambda runs: []), tmp_path, observe=told.append)
    assert len(set(told)) > 3
    assert all(before <= after for before, after in pairwise(told))
    assert 0 <= told[0] < 0.5 < told[-1] <= 1


def test_progress_ends_at_the_whole(
    new_study: NewStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 60)
    told: list[float] = []
    run_at_once(new_study(), tmp_path, observe=told.append)
    assert told[-1:] == [1]


def test_nobody_watches_after_the_end(
    new_study: NewStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.001)
    before = threading.active_count()
    run_at_once(new_study(), tmp_path)
    assert threading.active_count() == before


@pytest.fixture
def reported(
    new_study: NewStudy,
    tmp_path: Path,
    calls: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> Outcome:
    """Returns a study of the table, with changes, whose report is written."""
    monkeypatch.setitem(STUDIES, "tiny", new_study())
    outcome = run_at_once(STUDIES["tiny"], tmp_path, changes={"optimizer.lr": 0.5})
    write_study_report(outcome)
    return outcome


def test_a_study_is_read_again_from_its_report(
    reported: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_outcomes_again(reported.folder)[0] == reported
    with monkeypatch.context() as patch:
        patch.chdir(reported.folder)
        assert read_outcomes_again(Path())[0].findings == reported.findings
    moved = tmp_path.parent / f"{tmp_path.name} moved"
    os.rename(tmp_path, moved)
    again = read_outcomes_again(moved / reported.folder.name)[0]
    assert again.findings == reported.findings
    assert again.runs["plain8"][0].folder.parent == moved / "runs"


UNREADABLE = ["", "{", "[]", "3", "{}", '{"study": "tiny"}', '{"study": "tiny", "scale": "tiny"}']


def test_findings_that_cannot_be_read_are_refused(reported: Outcome) -> None:
    for content in UNREADABLE:
        (reported.folder / "findings.json").write_text(content)
        with pytest.raises(UsageError, match=r"findings\.json cannot be read .*writes it again"):
            read_outcomes_again(reported.folder)


OF_SOMETHING_ELSE: list[dict[str, Any]] = [
    {"study": "other"},
    {"scale": "large"},
    {"study": []},
    {"scale": {}},
    {"changes": "all"},
    {"changes": {"no.such": 1}},
]


def test_findings_of_something_else_are_refused(reported: Outcome) -> None:
    path = reported.folder / "findings.json"
    findings = json.loads(path.read_text())
    for values in OF_SOMETHING_ELSE:
        path.write_text(json.dumps({**findings, **values}))
        with pytest.raises(UsageError):
            read_outcomes_again(reported.folder)


@pytest.mark.parametrize(
    "content", [pytest.param("{}", marks=pytest.mark.slow), '{"deviation": [], "mean": []}']
)
def test_a_corrupt_measurement_is_named(content: str, new_study: NewStudy, tmp_path: Path) -> None:
    study = replace(
        new_study(seeds=1, findings=RESPONSES.findings),
        measurements=("responses",),
        charts=RESPONSES.charts,
    )
    outcome = run_at_once(study, tmp_path)
    assert len(outcome.charts) == 2
    outcome.runs["plain8"][0].probe_path("responses").write_text(content)
    with pytest.raises(DataError, match="Remove the folders 'probes'"):
        read_outcome(study, "tiny", tmp_path)
