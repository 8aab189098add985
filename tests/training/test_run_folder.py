"""The run folder: whose it is, who may write in it, and what can be read from it."""

import errno
import fcntl
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

from resnetkit.errors import (
    DataError,
    RecipeError,
    RunInUse,
    StorageError,
    UsageError,
    WeightsError,
)
from resnetkit.evaluation.metric_sums import Score
from resnetkit.training.events import (
    EpochEvent,
    Event,
    FinalEvent,
    IntervalEvent,
    event_from_json,
    event_to_json,
    finite,
)
from resnetkit.training.journal import EventLog
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import (
    MODEL_FILES,
    Run,
    find_runs,
    locked_run,
    read_run,
)

Contents = Callable[[Path], dict[str, bytes]]
Recipes = Callable[..., Recipe]

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[None]:
    words = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.kill()


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Lets the system refuse to make any file longer, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Whose folder it is


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "there seed is 0, here 1."),
        ({"optimizer.lr": 0.5}, "there optimizer.lr is 0.02, here 0.5."),
        ({"length": "7 steps"}, "there length is 6 steps, here 7 steps."),
        (
            {"model.options.shortcut": "B", "seed": 1},
            "there model.options is {}, here None.",
        ),
        (
            {"schedule": {"kind": "step", "milestones": ["1 epochs"]}},
            "there schedule.kind is linear, here step.",
        ),
    ],
)
def test_another_recipe_is_refused_by_its_first_difference_and_nothing_is_touched(
    tmp_path: Path, few: Recipes, contents: Contents, changes: dict[str, Any], words: str
) -> None:
    train(few({"length": "1 steps"} if "length" not in changes else {}), tmp_path / "run")
    before = contents(tmp_path)
    asked = few({"length": "1 steps", **changes})
    with pytest.raises(RecipeError) as caught:
        train(asked, tmp_path / "run")
    assert words in str(caught.value)
    assert "Nothing in it was touched." in str(caught.value)
    assert contents(tmp_path) == before


def test_zeros_of_both_signs_are_one_recipe(tmp_path: Path, few: Recipes) -> None:
    recipes = [few({"length": "1 steps", "optimizer.weight_decay": zero}) for zero in (0.0, -0.0)]
    first, again = (train(recipe, tmp_path / "run") for recipe in recipes)
    assert first.final == again.final


def test_a_folder_of_something_else_is_refused_and_untouched(
    tmp_path: Path, few: Recipes, contents: Contents
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    before = contents(tmp_path)
    for folder in (tmp_path, tmp_path / "photos"):
        with pytest.raises(UsageError) as caught:
            train(few(), folder)
        assert str(caught.value) == (
            f"{folder} is not empty and holds no run; nothing in it was touched."
            " Choose another folder with --out."
        )
    assert contents(tmp_path) == before


def test_an_empty_folder_can_be_used(tmp_path: Path, few: Recipes) -> None:
    assert train(few(), tmp_path).final is not None


def test_folders_are_made_as_deep_as_needed(tmp_path: Path, few: Recipes) -> None:
    assert train(few(), tmp_path / "a" / "b" / "c").final is not None


@pytest.mark.parametrize("leftovers", [[".lock"], [".lock", ".writing-recipe.yaml"]])
def test_a_folder_whose_process_was_killed_before_the_recipe_was_written_can_be_used(
    tmp_path: Path, few: Recipes, contents: Contents, leftovers: list[str]
) -> None:
    for name in leftovers:
        (tmp_path / name).write_text("half")
    assert train(few(), tmp_path).final is not None
    assert not [name for name in contents(tmp_path) if ".writing-" in name]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file", "a file with this name already exists"),
        ("file/run", "a parent of this path is a file, not a folder"),
    ],
)
def test_a_file_in_the_way_is_named(tmp_path: Path, few: Recipes, path: str, words: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=words):
        train(few(), tmp_path / path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_recipe_in_the_folder_is_refused(tmp_path: Path, few: Recipes) -> None:
    (tmp_path / "recipe.yaml").write_text("length: [")
    with pytest.raises(RecipeError, match="is not YAML"):
        train(few(), tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == "length: ["


# One process at a time


def test_a_second_process_is_refused(tmp_path: Path, few: Recipes, contents: Contents) -> None:
    train(few(), tmp_path)
    before = contents(tmp_path)
    with (
        held_by_another_process(tmp_path),
        pytest.raises(StorageError, match=f"another process is training in {tmp_path}"),
    ):
        train(few(), tmp_path)
    assert contents(tmp_path) == before
    assert train(few(), tmp_path).final is not None  # a killed process holds nothing


def test_the_lock_is_given_back_after_a_failure(tmp_path: Path, few: Recipes) -> None:
    def fail(event: Event) -> None:
        raise ValueError(type(event).__name__)

    with pytest.raises(ValueError, match="Session"):
        train(few(), tmp_path, observe=fail)
    assert train(few(), tmp_path).final is not None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(_: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError) as caught, locked_run(tmp_path / "run", few()):
        pass
    assert not isinstance(caught.value, RunInUse)  # a study would wait for it
    assert f"is on a file system without locks ({os.strerror(number)})" in str(caught.value)
    assert "Mount it with locks" in str(caught.value)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_run_that_begins_and_ends_before_the_lock_is_taken_is_kept(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = few({"seed": 1}).to_yaml()
    real = filelock.FileLock.acquire

    def acquire(self: filelock.FileLock, *args: Any, **options: Any) -> Any:
        (tmp_path / "recipe.yaml").write_text(theirs)  # another process was here meanwhile
        return real(self, *args, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(RecipeError, match="there seed is 1, here 0"), locked_run(tmp_path, few()):
        pass
    assert (tmp_path / "recipe.yaml").read_text() == theirs


# Reading


def test_a_finished_run_is_returned_as_it_is(
    tmp_path: Path, few: Recipes, contents: Contents
) -> None:
    first = train(few(), tmp_path)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}
    events: list[dict[str, Any]] = []
    again = train(few(), tmp_path, observe=events.append)
    assert again.final == first.final
    assert events == []
    assert contents(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_run_can_be_read_again(tmp_path: Path, few: Recipes) -> None:
    run = train(few(), tmp_path / "run")
    again = read_run(tmp_path / "run")
    assert again == run
    assert again.final == run.final
    assert again.last_step == 6
    assert again.fraction_done == 1
    assert again.seconds > 0
    assert [session.from_step for session in again.sessions] == [0]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run folder: it has no recipe\.yaml"):
        read_run(tmp_path)


def test_runs_are_found_below_a_folder(tmp_path: Path, few: Recipes) -> None:
    for path in ("b", "a/deep"):
        with locked_run(tmp_path / path, few()):
            pass
    assert [run.folder for run in find_runs(tmp_path)] == [tmp_path / "a" / "deep", tmp_path / "b"]


def test_a_run_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, few: Recipes, caplog: pytest.LogCaptureFixture
) -> None:
    with locked_run(tmp_path / "good", few()):
        pass
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "recipe.yaml").write_text("batch_size: 0\n")
    assert [run.folder.name for run in find_runs(tmp_path)] == ["good"]
    assert f"{tmp_path}/bad is left out: " in caplog.text


def test_a_run_that_has_not_begun_has_done_nothing(tmp_path: Path, few: Recipes) -> None:
    with locked_run(tmp_path, few()) as run:
        assert (run.last_step, run.fraction_done, run.seconds, run.final) == (0, 0, 0, None)
        assert run.intervals == []


def test_a_folder_in_place_of_a_recipe_is_left_out_with_a_warning(
    tmp_path: Path, few: Recipes, caplog: pytest.LogCaptureFixture
) -> None:
    with locked_run(tmp_path / "good", few()):
        pass
    (tmp_path / "bad" / "recipe.yaml").mkdir(parents=True)
    assert [run.folder.name for run in find_runs(tmp_path)] == ["good"]
    assert f"{tmp_path}/bad is left out: the recipe '{tmp_path}/bad/recipe.yaml' is" in caplog.text


def test_a_folder_in_place_of_timings_is_said(tmp_path: Path, few: Recipes) -> None:
    run = Run(tmp_path, few())
    run.timing_path.mkdir()
    with pytest.raises(DataError, match=r"timing\.jsonl is corrupt: "):
        print(run.last_step)


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path, few: Recipes) -> None:
    run = Run(tmp_path, few())
    event = EpochEvent(epoch=1, step=3, train_loss=2.0, train_error=50.0)
    line = json.dumps(event_to_json(event))
    timing = {"step": 3, "seconds": 2.0, "images_per_second": 100.0}
    run.metrics_path.write_text(line + '\n{"event": "epoch", "st')
    run.timing_path.write_text(json.dumps(timing) + '\n{"step": 5, "sec')
    assert run.epochs == [event]
    assert run.last_step == 3
    assert run.seconds == 2


def test_the_last_step_is_found_whatever_the_final_event_holds(
    tmp_path: Path, few: Recipes
) -> None:
    """The confusion matrix of a hundred classes is a line of 40 KiB."""
    run = Run(tmp_path, few())
    final = {"event": "final", "step": 500, "test": {"confusion": [[10] * 100] * 100}}
    run.metrics_path.write_text(json.dumps(final) + "\n")
    run.timing_path.write_text("".join(f'{{"step": {n}, "seconds": 1}}\n' for n in range(501)))
    assert run.last_step == 500


# Writing line by line


def test_lines_are_cut_back_to_an_earlier_length(tmp_path: Path) -> None:
    with closing(EventLog(tmp_path / "log.jsonl")) as log:
        log.write({"step": 1})
        end = log.end
        log.write({"step": 2})
        log.resume(end)
        log.write({"step": 3})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


def test_an_unfinished_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st')
    with closing(EventLog(path)) as log:
        log.cut_unfinished_line()
    assert path.read_text() == '{"step": 1}\n'


def test_a_log_that_is_shorter_than_it_was_is_refused(tmp_path: Path, few: Recipes) -> None:
    with pytest.raises(ValueError, match="stop"):
        train(few(), tmp_path, observe=stop_at_the_last_epoch)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(WeightsError, match=r"metrics\.jsonl is shorter than when the checkpoint"):
        train(few(), tmp_path)


def stop_at_the_last_epoch(event: Event) -> None:
    if isinstance(event, EpochEvent) and event.epoch == 2:
        raise ValueError("stop")


def test_a_line_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    with closing(EventLog(tmp_path / "log.jsonl")) as log:
        log.write({"step": 1})
        with files_no_longer_than(log.size + 5), pytest.raises(OSError, match="File too large"):
            log.write({"step": 2})


def test_metrics_that_do_not_fit_on_the_disk_are_a_storage_error(
    tmp_path: Path, few: Recipes
) -> None:
    changes = {"log_every": 1, "length": "60 steps", "checkpoint.every": "60 steps"}
    with files_no_longer_than(4_000), pytest.raises(StorageError, match="cannot write"):
        train(few(changes), tmp_path)
    assert (tmp_path / "metrics.jsonl").stat().st_size > 3_900  # that was the file that was full


def test_a_file_too_large_for_the_system_is_a_storage_error_and_the_same_command_goes_on(
    tmp_path: Path, few: Recipes, whole: Run, results: Contents
) -> None:
    with (
        files_no_longer_than(200_000),  # the weights are longer
        pytest.raises(StorageError, match="the file would be larger than this system allows"),
    ):
        train(few(), tmp_path / "run")
    assert not [path for path in (tmp_path / "run").rglob("*") if ".writing-" in path.name]
    expected = results(whole.folder)
    assert results(train(few(), tmp_path / "run").folder) == expected


# A real disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk in memory with some options, or changes them; only root can."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_disk_that_is_really_full_keeps_the_last_checkpoint(
    disk: Callable[[str], Path], tmp_path: Path, few: Recipes, whole: Run, results: Contents
) -> None:
    """A checkpoint takes 0.6 MiB: one fits on this disk, and a second one beside it does not."""
    folder = disk("size=1m")
    with pytest.raises(StorageError, match="the disk is full"):
        train(few(), folder / "run")
    assert [path.name for path in (folder / "run" / "checkpoints").iterdir()] == ["step-2"]
    disk("remount,size=32m")
    sessions: list[dict[str, Any]] = []
    run = train(few(), folder / "run", observe=sessions.append)
    assert sessions[0].from_step == 2
    assert results(run.folder) == results(whole.folder)


def test_a_disk_that_is_read_only_is_named(disk: Callable[[str], Path], few: Recipes) -> None:
    folder = disk("ro")
    with pytest.raises(StorageError, match="the file system is read-only"):
        train(few(), folder / "run")


def test_a_folder_without_permission_is_named(tmp_path: Path, few: Recipes) -> None:
    tmp_path.chmod(0o500)
    try:
        try:
            (tmp_path / "probe").touch()
        except PermissionError:
            with pytest.raises(StorageError, match="permission denied"):
                train(few(), tmp_path / "run")
        else:
            pytest.skip("this user may write everywhere")
    finally:
        tmp_path.chmod(0o700)


def stopped(folder: Path, recipe: Recipe) -> Path:
    """Trains up to the last epoch, so that a checkpoint and metrics are there, and no model."""
    with pytest.raises(ValueError, match="stop"):
        train(recipe, folder, observe=stop_at_the_last_epoch)
    return folder


def test_a_changed_digit_in_the_metrics_is_noticed(tmp_path: Path, few: Recipes) -> None:
    path = stopped(tmp_path, few()) / "metrics.jsonl"
    before = path.read_bytes()
    place = before.index(b'"loss": ') + 8
    digit = b"1" if before[place : place + 1] != b"1" else b"2"
    path.write_bytes(before[:place] + digit + before[place + 1 :])
    with pytest.raises(WeightsError, match=r"its lines were changed\. Nothing was changed"):
        train(few(), tmp_path)
    path.write_bytes(before)
    assert train(few(), tmp_path).final is not None


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a": 1}', "[3]", ""])
def test_a_damaged_environment_does_not_stop_a_resume(
    tmp_path: Path, few: Recipes, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stopped(tmp_path, few())
    (folder / "environment.json").write_text(content)
    run = train(few(), folder)
    assert run.final is not None
    assert len(run.sessions) == 1
    assert "was renamed" in caplog.text
    assert (folder / "environment.json.corrupt").read_text() == content


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_a_pipe_in_place_of_a_log_is_refused_at_once(
    tmp_path: Path, few: Recipes, name: str
) -> None:
    folder = stopped(tmp_path, few())
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(StorageError, match="it is not a regular file"):
        train(few(), folder)


@pytest.mark.parametrize("missing", MODEL_FILES)
def test_a_network_that_lost_a_file_is_written_again(
    tmp_path: Path, few: Recipes, results: Contents, missing: str
) -> None:
    run = train(few(), tmp_path)
    before = results(tmp_path)
    (run.model / missing).unlink()
    assert run.final is None
    assert train(few(), tmp_path).final is not None
    assert results(tmp_path) == before


def test_a_finished_network_that_was_changed_is_noticed(tmp_path: Path, few: Recipes) -> None:
    run = train(few(), tmp_path)
    path = run.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"move .*model away, and the same command writes it"):
        train(few(), tmp_path)


def test_unfinished_files_of_killed_processes_are_removed(tmp_path: Path, few: Recipes) -> None:
    folder = stopped(tmp_path, few())
    for place in (folder, folder / "checkpoints"):
        (place / ".writing-0123456789ab-model").mkdir()
        (place / ".writing-0123456789ab-file").write_text("half")
    train(few(), folder)
    assert not list(folder.rglob(".writing-*"))


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"event": "epoch", "step": 3}',
        '{"event": "epilogue", "step": 3}',
        '{"event": "interval", "step": "3", "lr": 1, "loss": 1, "error": 1, "gradient_norm": 1}',
    ],
)
def test_a_corrupt_event_is_named_by_file_and_line(tmp_path: Path, few: Recipes, line: str) -> None:
    run = Run(tmp_path, few())
    event = EpochEvent(epoch=1, step=3, train_loss=2.0, train_error=50.0)
    run.metrics_path.write_text(f"{json.dumps(event_to_json(event))}\n{line}\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl is corrupt: line 2 cannot be read"):
        _ = run.epochs


def test_events_are_parsed_again_only_when_the_file_changed(tmp_path: Path, few: Recipes) -> None:
    run = Run(tmp_path, few())
    event = EpochEvent(epoch=1, step=3, train_loss=2.0, train_error=50.0)
    run.metrics_path.write_text(json.dumps(event_to_json(event)) + "\n")
    changed = run.metrics_path.stat()
    assert run.epochs == [event]
    assert run.epochs[0] is run.epochs[0]
    run.metrics_path.write_text(run.metrics_path.read_text().replace("50.0", "60.0"))
    os.utime(run.metrics_path, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    assert run.epochs == [replace(event, train_error=60.0)]


def test_an_event_is_read_as_it_was_written() -> None:
    score = Score(loss=float("inf"), error=1.5, top5_error=0.0, count=9)
    events = [
        IntervalEvent(step=1, lr=0.1, loss=2.0, error=3.0, gradient_norm=4.0),
        EpochEvent(epoch=1, step=3, train_loss=2.0, train_error=50.0, test_error=7.0),
        FinalEvent(step=3, train=score, test=score, confusion=[[4, 1], [0, 4]]),
    ]
    for event in events[:2]:
        assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event
    final = event_from_json(finite(event_to_json(events[2])))
    assert isinstance(final, FinalEvent)
    assert math.isnan(final.test.loss)
    assert final.confusion == [[4, 1], [0, 4]]
