"""Interrupted anywhere, a training ends with the same bytes as if it had never been."""

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetkit.cli.app import run
from resnetkit.errors import Interrupted
from resnetkit.training import resume
from resnetkit.training.checkpoint import checkpoint_steps
from resnetkit.training.events import EpochEvent, Event, FinalEvent, IntervalEvent, Session
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.run_folder import Run, read_run
from resnetkit.training.setup import TrainingSetup

Recipes = Callable[..., Recipe]
Results = Callable[[Path], dict[str, bytes]]
Start = Callable[..., "subprocess.Popen[str]"]

UNTIL_ERROR = {"kind": "until-error", "lr": 0.01, "below": 89}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without momentum": {"optimizer.momentum": 0},
    "averaged": {"ema_decay": 0.9},
    "until the error is below": {"warmup": UNTIL_ERROR, "optimizer.lr": 0.1},
    "in bfloat16": {"precision": "bfloat16", "gradient_clip": 1, "optimizer.nesterov": True},
    "up to a target": {"target_error": 99.9, "evaluation.every_epochs": 2, "length": "9 epochs"},
    "until patience ends": {"finetune.patience": 1, "optimizer.lr": 1e-6, "length": "9 epochs"},
    "until a plateau": {
        "schedule": {"kind": "plateau", "patience": 1, "least": 50},
        "precise_bn": 64,
    },
    "mixed": {
        "data.augment.mixup": 0.3,
        "data.augment.cutmix": 1.0,
        "data.augment.erasing": 0.5,
        "label_smoothing": 0.1,
    },
    "in micro-batches": {"micro_batch": 7, "class_weights": "balanced"},
    "augmented": {
        "data.augment.crop_padding": 2,
        "data.augment.padding": "reflect",
        "checkpoint.snapshots": 3,
        "data.early_size": 6,
    },
}
EVENTS = 10  # a session, six intervals of one step, two epochs, the end


class Crash(BaseException):
    """Ends a training as a kill does: nothing that follows is done."""


def events_until_crash(number: int) -> Callable[[Event], None]:
    """Returns an observer that lets so many events pass and crashes at the next one."""
    seen: list[Event] = []

    def observe(event: Event) -> None:
        if len(seen) == number:
            raise Crash
        seen.append(event)

    return observe


def first_by_default(names: Iterable[str], default: set[str]) -> list[Any]:
    """Returns parameters of which all but some run with `-m slow`."""
    return [
        pytest.param(name, marks=[] if name in default else [pytest.mark.slow]) for name in names
    ]


@pytest.mark.parametrize("variant", first_by_default(VARIANTS, {"as it is"}))
def test_a_crash_after_any_event_changes_no_byte_of_the_result(
    tmp_path: Path, few: Recipes, results: Results, variant: str
) -> None:
    recipe = few({"log_every": 1, **VARIANTS[variant]})
    events: list[Event] = []
    expected = results(train(recipe, tmp_path / "whole", observe=events.append).folder)
    assert len(events) == EVENTS
    crashes = range(EVENTS) if variant == "as it is" else range(2, EVENTS, 3)
    for number in crashes:
        folder = tmp_path / str(number)
        with pytest.raises(Crash):
            train(recipe, folder, observe=events_until_crash(number))
        assert results(train(recipe, folder).folder) == expected


def test_the_papers_warmup_of_the_variant_above_does_end_on_the_way(
    tmp_path: Path, few: Recipes
) -> None:
    recipe = few({"log_every": 1, **VARIANTS["until the error is below"]})
    rates = [event.lr for event in train(recipe, tmp_path).intervals]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(0.1 / 6)


KINDS = {"session": Session, "interval": IntervalEvent, "epoch": EpochEvent, "final": FinalEvent}


def ask_to_stop(kind: str, number: int) -> Callable[[Event], None]:
    """Returns an observer that sends this process one signal at the first event of a kind."""
    asked: list[Event] = []

    def observe(event: Event) -> None:
        if isinstance(event, KINDS[kind]) and not asked:
            asked.append(event)
            os.kill(os.getpid(), number)

    return observe


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_in_every_single_step_changes_no_byte_of_the_result(
    tmp_path: Path, few: Recipes, results: Results, number: int
) -> None:
    recipe = few({"log_every": 2, "checkpoint.every": "9 steps", "ema_decay": 0.5})
    expected = results(train(recipe, tmp_path / "whole").folder)
    for step in range(1, 7):
        with pytest.raises(Interrupted) as caught:
            train(recipe, tmp_path / "run", observe=ask_to_stop("session", number))
        assert caught.value.exit_code == 128 + number
        assert str(caught.value) == (
            f"stopped after step {step} of 6; everything is saved in {tmp_path}/run."
            " The same command resumes from there."
        )
        assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [step]
    assert results(train(recipe, tmp_path / "run").folder) == expected
    starts = [session.from_step for session in read_run(tmp_path / "run").sessions]
    assert starts == [0, 1, 2, 3, 4, 5, 6]


def test_a_signal_while_the_last_step_is_closed_lets_the_training_end(
    tmp_path: Path, few: Recipes, whole: Run, results: Results
) -> None:
    expected = results(whole.folder)
    ended = train(few(), tmp_path / "run", observe=ask_to_stop("final", signal.SIGTERM))
    assert results(ended.folder) == expected


@pytest.mark.parametrize("number", range(1, 6))  # of each epoch, and of each split at the end
def test_a_signal_during_an_evaluation_stops_after_it(
    tmp_path: Path,
    few: Recipes,
    whole: Run,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    score, evaluated = TrainingSetup.score, []

    def signaled(*args: Any, **options: Any) -> Any:
        evaluated.append(args[-1])
        if len(evaluated) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSetup, "score", signaled)
        with pytest.raises(Interrupted) as caught:
            train(few(), tmp_path / "run")
    step = 3 if number == 1 else 6
    assert str(caught.value) == (
        f"stopped after step {step} of 6; everything is saved in {tmp_path}/run."
        " The same command resumes from there."
    )
    assert len(evaluated) == number
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [step]
    assert not (tmp_path / "run" / "model").exists()
    assert results(train(few(), tmp_path / "run").folder) == results(whole.folder)


def test_half_written_lines_and_folders_are_forgotten(
    tmp_path: Path, few: Recipes, whole: Run, results: Results
) -> None:
    expected = results(whole.folder)
    with pytest.raises(Crash):
        train(few(), tmp_path / "run", observe=events_until_crash(4))
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write('{"event": "inter')
    for name in ("checkpoints/.writing-step-6", ".writing-model"):
        (tmp_path / "run" / name).mkdir()
        (tmp_path / "run" / name / "model.safetensors").write_bytes(b"half")
    resumed = train(few(), tmp_path / "run")
    assert results(resumed.folder) == expected
    assert resumed.seconds > 0


def test_zeros_that_a_power_failure_left_after_the_checkpoint_are_forgotten(
    tmp_path: Path, few: Recipes, whole: Run, results: Results
) -> None:
    """File systems fill the end of a file that was not synced with zeros."""
    expected = results(whole.folder)
    with pytest.raises(Crash):
        train(few(), tmp_path / "run", observe=events_until_crash(4))
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(bytes(200) + b"\n" + bytes(10))
    assert results(train(few(), tmp_path / "run").folder) == expected


# A kill between any two requests to the disk


@contextmanager
def killed_at_request(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lets this process die at a request to the disk: from then on, every one of them fails.

    What was written and not synced yet is cut in half, as a crash of the machine may do. A folder
    that is removed loses one file. Yields the names of the requests met.
    """
    met: list[str] = []

    def failing(name: str, real: Callable[..., Any], half: Callable[..., None]) -> Any:
        def request(*args: Any, **options: Any) -> Any:
            met.append(name)
            if len(met) == number:
                half(*args)
            if len(met) >= number:
                raise Crash
            return real(*args, **options)

        return request

    def nothing(*_: Any) -> None: ...

    def cut(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and ".writing-" in path:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)

    def remove_one(path: Path, *_: Any) -> None:
        for child in sorted(Path(path).glob("*"))[:1]:
            child.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing("fsync", os.fsync, cut))
        patch.setattr(os, "rename", failing("rename", os.rename, nothing))
        patch.setattr(os, "replace", failing("replace", os.replace, nothing))
        patch.setattr(os, "mkdir", failing("mkdir", os.mkdir, nothing))
        patch.setattr(shutil, "rmtree", failing("rmtree", shutil.rmtree, remove_one))
        yield met


def without_older_checkpoints(result: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in result.items() if "/step-3/" not in name}


@pytest.mark.slow
def test_a_kill_at_any_request_to_the_disk_changes_no_byte_of_the_result(
    tmp_path: Path, few: Recipes, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = few({"checkpoint.every": "3 steps", "evaluation.every_epochs": 9})
    with killed_at_request(10**9, monkeypatch) as requests:
        expected = results(train(recipe, tmp_path / "whole").folder)
    assert {"fsync", "rename", "replace", "mkdir", "rmtree"} <= set(requests)
    for number in range(1, len(requests) + 1):
        folder = tmp_path / str(number)
        with killed_at_request(number, monkeypatch), pytest.raises(Crash):
            train(recipe, folder)
        resumed = without_older_checkpoints(results(train(recipe, folder).folder))
        assert resumed == expected, (number, requests[number - 1])


def test_a_kill_after_the_last_save_leaves_no_checkpoint_too_many(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = few({"checkpoint.every": "3 steps"})

    def killed(folder: Path, keep: int, spare: Collection[int]) -> None:
        if checkpoint_steps(folder)[-1] == 6:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(resume, "remove_old_checkpoints", killed)
        with pytest.raises(Crash):
            train(recipe, tmp_path)
    train(recipe, tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [6]


# In processes of their own

DIGITS = {
    "length": "2 epochs",
    "batch_size": 64,
    "log_every": 1,
    "data.augment.crop_padding": 1,
    "ema_decay": 0.9,
}


def command(folder: Path) -> list[str]:
    changes = [word for key, value in DIGITS.items() for word in ("--set", f"{key}={value}")]
    return ["-m", "resnetkit", "train", "digits", *changes, "--out", str(folder)]


def wait_for_lines(process: "subprocess.Popen[str]", path: Path, count: int) -> None:
    """Waits until a file has so many lines; the process must be alive until then."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, results: Results) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return results(train(load_recipe("digits", DIGITS), folder / "run").folder)


@pytest.mark.slow  # in this process: tests/cli/test_train_command.py
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_command_goes_on_to_the_same_bytes(
    tmp_path: Path,
    start: Start,
    results: Results,
    uninterrupted: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    folder = tmp_path / "run"
    module, name, *words = command(folder)
    with start(module, name, *words) as process:
        wait_for_lines(process, folder / "metrics.jsonl", 4)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    (step,) = checkpoint_steps(folder / "checkpoints")
    assert 4 <= step < 19
    assert f"resnet: stopped after step {step} of 38; everything is saved in {folder}." in output
    assert "Traceback" not in output
    assert not (folder / "model").exists()
    assert run(words) == 0  # the same command, in this process
    assert f"from step {step}, 38 steps on cpu" in capsys.readouterr().err
    assert results(folder) == uninterrupted


@pytest.mark.slow  # in this process: a crash after any event changes no byte, above
def test_a_killed_command_goes_on_to_the_same_bytes(
    tmp_path: Path, start: Start, results: Results, uninterrupted: dict[str, bytes]
) -> None:
    folder = tmp_path / "run"
    with start(*command(folder)) as process:
        wait_for_lines(process, folder / "metrics.jsonl", 24)  # the first epoch is saved by then
        process.kill()
    assert checkpoint_steps(folder / "checkpoints") == [19]
    resumed = train(load_recipe("digits", DIGITS), folder)
    assert [session.from_step for session in resumed.sessions] == [0, 19]
    assert results(folder) == uninterrupted


def test_more_threads_are_an_option_and_do_not_stop_a_resume(tmp_path: Path, few: Recipes) -> None:
    threads: list[int] = []

    def observe(event: Event) -> None:
        threads.append(torch.get_num_threads())

    with suppress(Crash):
        train(few(), tmp_path, observe=events_until_crash(3))
    train(few({}), tmp_path, threads=2, observe=observe)
    assert set(threads) == {2}
    assert torch.get_num_threads() == 1
