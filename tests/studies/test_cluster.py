"""What is refused before a cluster trains anything, and a cluster of Dask within this process."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from distributed import Client, LocalCluster

from resnetkit.errors import Interrupted, ResnetkitError, RunInUse, UsageError
from resnetkit.studies import cluster, heartbeat, runner
from resnetkit.studies.cluster import (
    Witness,
    Workers,
    check_shared,
    check_workers,
    dask_witnesses,
    witness,
)
from resnetkit.studies.heartbeat import beating, watched
from resnetkit.studies.runner import run_study
from resnetkit.studies.study import Study
from resnetkit.training.events import Event
from resnetkit.training.loop import train
from resnetkit.training.recipe import load_recipe
from resnetkit.training.run_folder import Run, locked_run, read_run
from resnetkit.training.signals import StopRequest

NewStudy = Callable[..., Study]
Reader = Callable[[Path], dict[str, bytes]]


def nothing(item: object) -> None:
    """Does nothing with an item."""


def test_workers_that_grow_are_no_warning() -> None:
    """loky says this while it starts a worker anew, which costs nothing but the start."""
    text = (
        "A worker stopped while some jobs were given to the executor. This can be caused by a too"
        " short worker timeout or by a memory leak."
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Workers(jobs=1).pool(1)
        warnings.warn(text, UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something else"]


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    """Returns the address of a cluster of two workers with one thread each."""
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",  # any free port
    ) as local:
        yield local.scheduler_address


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        (Workers(backend="dask"), "name its scheduler with --scheduler tcp://HOST:8786"),
        (Workers(2, "dask", address="tcp://127.0.0.1:1"), "--jobs 2: with --backend dask"),
        (Workers(2, "ray", address="auto"), "--jobs 2: with --backend ray"),
        (Workers(backend="dask", address="nonsense://x"), "no Dask scheduler answers there"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(
    tmp_path: Path, workers: Workers, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        workers.run(nothing, [1], tmp_path)


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # restored after the test
    with pytest.raises(UsageError, match=rf"pip install 'resnetkit\[{backend}\]'"):
        Workers(backend=backend, address="auto").run(nothing, [1], tmp_path)


def test_a_ray_cluster_needs_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    pytest.importorskip("ray", reason="pip install 'resnetkit[ray]'")
    with pytest.raises(UsageError, match="name the cluster with --address HOST:6379"):
        Workers(backend="ray").run(nothing, [1], tmp_path)


def test_a_silent_scheduler_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with pytest.raises(UsageError, match=r"--scheduler tcp://127.0.0.1:9: no Dask scheduler"):
        Workers(backend="dask", address="tcp://127.0.0.1:9").run(nothing, [1], tmp_path)


def test_workers_of_dask_need_one_thread_each() -> None:
    with pytest.raises(UsageError, match="it has no workers"):
        check_workers("tcp://x:1", {})
    good, bad = {"host": "10.0.0.1", "nthreads": 1}, {"host": "10.0.0.2", "nthreads": 8}
    check_workers("tcp://x:1", {"a": good})
    with pytest.raises(UsageError, match=r"on 10\.0\.0\.2 have several threads"):
        check_workers("tcp://x:1", {"a": good, "b": bad})


def test_a_folder_that_a_machine_does_not_see_is_refused(tmp_path: Path) -> None:
    def one_is_blind(path: Path) -> list[Witness]:
        return [witness(path), replace(witness(path / "elsewhere"), host="node7")]

    check_shared(tmp_path / "new", lambda path: [witness(path)])
    with pytest.raises(UsageError, match=r"is not shared: node7 cannot see"):
        check_shared(tmp_path / "new", one_is_blind)
    assert list((tmp_path / "new").iterdir()) == []


def test_workers_that_do_not_answer_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.1)
    client, ended = Mock(), threading.Event()
    client.run.side_effect = lambda *words, **options: ended.wait(60)
    with pytest.raises(UsageError, match="did not answer within"):
        dask_witnesses(client, tmp_path)
    ended.set()


def test_a_lost_scheduler_is_reported(
    dask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(futures: list[Any], loop: object) -> Iterator[Any]:
        """Yields futures that were cancelled, as a client does that has lost its scheduler."""
        for future in futures:
            future.cancel()
            yield future

    monkeypatch.setattr("distributed.as_completed", cancelled)
    with pytest.raises(ResnetkitError, match=r"the Dask scheduler .* was lost"):
        cluster.run_on_dask(dask, time.sleep, [5], tmp_path)


def test_another_version_on_a_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"but node7 has 0\.0\.1: install the same version"):
        check_shared(
            tmp_path, lambda path: [replace(witness(path), host="node7", resnetkit="0.0.1")]
        )


def test_a_worker_without_resnetkit_is_refused() -> None:
    with pytest.raises(UsageError, match="tcp://a:1 cannot run resnetkit"):
        cluster.checked_witness("tcp://a:1", ModuleNotFoundError("No module named 'resnetkit'"))


def test_a_dask_cluster_trains_the_same_bytes(
    new_study: NewStudy, tmp_path: Path, dask: str, results: Reader
) -> None:
    study = new_study(seeds=1)
    here = run_study(study, "tiny", tmp_path / "here", workers=Workers(1, "sequential", "cpu"))
    there = run_study(study, "tiny", tmp_path / "there", workers=Workers(None, "dask", "cpu", dask))
    for group, runs in here.runs.items():
        for ours, theirs in zip(runs, there.runs[group], strict=True):
            assert results(ours.folder) == results(theirs.folder)
    assert not list((tmp_path / "there").glob(".*"))  # neither heartbeat nor nonce is left


def test_an_error_of_a_training_comes_back_from_dask(
    new_study: NewStudy, tmp_path: Path, dask: str
) -> None:
    study = new_study(seeds=1)
    for trial in study.trials("tiny"):
        folder = runner.trial_folder(tmp_path, trial.recipe)
        folder.mkdir(parents=True)
        (folder / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        run_study(study, "tiny", tmp_path, workers=Workers(None, "dask", "cpu", dask))
    with Client(dask) as client:  # type: ignore[no-untyped-call]
        assert not client.processing() or not any(client.processing().values())


def test_trainings_stop_when_the_heartbeat_ends(
    tmp_path: Path, four_steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    recipe = load_recipe(four_steps, {"length": "2000 steps", "checkpoint.every": "2000 steps"})
    path = tmp_path / "beat"
    path.write_text("7")

    def end(_: Event) -> None:
        path.unlink(missing_ok=True)

    with watched(path) as stop, pytest.raises(Interrupted, match="stopped after step"):
        train(recipe, tmp_path / "run", device="cpu", stop=stop, observe=end)
    assert 0 < read_run(tmp_path / "run").last_step < 2000


def test_a_heart_that_stands_still_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "LOST_SECONDS", 0.3)
    path = tmp_path / "beat"
    path.write_text("7")
    began = time.monotonic()
    with watched(path) as stop:
        while not stop and time.monotonic() - began < 60:
            time.sleep(0.02)
    assert stop
    assert time.monotonic() - began >= 0.3
    with watched(path) as next_stop:  # of a training that waited in the queue of this process
        assert next_stop


def test_files_of_killed_processes_are_removed_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, other = tmp_path / ".alive-host-1-abc", tmp_path / "recipe.yaml"
    old.touch()
    other.touch()
    with beating(tmp_path):
        assert old.exists()
    monkeypatch.setattr(heartbeat, "FORGOTTEN_SECONDS", -1)
    with beating(tmp_path):
        assert not old.exists()
    assert list(tmp_path.iterdir()) == [other]


def test_work_for_a_killed_process_ends_when_another_one_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    path = tmp_path / ".alive-host-1-abc"
    path.write_text("7")  # and nobody beats
    with watched(path) as stop:
        heartbeat.end_others(tmp_path)
        deadline = time.monotonic() + 20
        while not stop and time.monotonic() < deadline:
            time.sleep(0.02)
    assert stop
    assert list(tmp_path.iterdir()) == []


def kill_this_process_once(path: Path) -> None:
    """Ends this process as the kernel does when memory runs out, unless it has done so before."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_what_a_killed_process_did_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Workers(2).run(kill_this_process_once, [tmp_path / "a", tmp_path / "b"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert "a worker process was killed" in caplog.text


def test_processes_that_are_killed_again_and_again_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def pool(_: Workers, items: int) -> Callable[..., None]:
        def end(calls: object) -> None:
            starts.append(items)
            raise BrokenProcessPool("killed")

        return end

    monkeypatch.setattr(Workers, "pool", pool)
    with pytest.raises(BrokenProcessPool):
        Workers(2).run(nothing, [1, 2], tmp_path)
    assert starts == [2] * (cluster.DEATHS + 1)


def test_a_training_waits_for_the_folder_of_a_lost_worker(
    tmp_path: Path, four_steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RELEASED_SECONDS", 0.2)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)
    recipe = load_recipe(four_steps, {"model.name": "resnet8"})
    task = runner.Task(recipe, tmp_path / "run", (), divergence_counts=False)
    with locked_run(tmp_path / "run", recipe), pytest.raises(RunInUse, match="another process"):
        runner.trained(task, device="cpu", threads=1, stop=StopRequest())
    run = runner.trained(task, device="cpu", threads=1, stop=StopRequest())
    assert isinstance(run, Run)
    assert run.final is not None
