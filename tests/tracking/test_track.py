"""Runs in trackers, read back with the trackers' own readers."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from resnetkit.errors import DataError, TransferError, UsageError
from resnetkit.tracking import track as track_module
from resnetkit.tracking.track import track
from resnetkit.tracking.trackers import TRACKERS
from resnetkit.training.run_folder import Run, read_run


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns what TensorBoard itself reads: steps and values by name."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.fixture
def copied(whole: Run, tmp_path: Path) -> Run:
    """Returns a finished run that a test may change."""
    shutil.copytree(whole.folder, tmp_path / "run")
    return read_run(tmp_path / "run")


def cut(run: Run, lines: int) -> None:
    """Leaves the first lines of the metrics and no model, as in the middle of a training."""
    content = run.metrics_path.read_bytes().splitlines(keepends=True)
    run.metrics_path.write_bytes(b"".join(content[:lines]))


def test_tensorboard_has_every_number_of_the_run(copied: Run, tmp_path: Path) -> None:
    count = track(copied.folder, "tensorboard", tmp_path / "out")
    scalars = tensorboard_scalars(tmp_path / "out")
    lines = [json.loads(line) for line in copied.metrics_path.read_text().splitlines()]
    assert count == len(lines)
    intervals = [line for line in lines if line["event"] == "interval"]
    assert scalars["interval/loss"] == [
        (line["step"], pytest.approx(line["loss"])) for line in intervals
    ]
    (final,) = [line for line in lines if line["event"] == "final"]
    assert scalars["final/test_error"] == [(final["step"], pytest.approx(final["test"]["error"]))]


def test_after_any_resume_no_step_is_twice_and_none_is_missing(
    copied: Run, whole: Run, tmp_path: Path
) -> None:
    """The training is cut back to a checkpoint and writes again while the tracker looks on."""
    out, full = tmp_path / "out", whole.metrics_path.read_bytes()
    for lines in (3, 6, 4, len(full.splitlines())):
        copied.metrics_path.write_bytes(full)
        cut(copied, lines)
        track(copied.folder, "tensorboard", out)
    track(whole.folder, "tensorboard", tmp_path / "once")
    assert tensorboard_scalars(out) == tensorboard_scalars(tmp_path / "once")


def test_a_killed_call_leaves_no_step_twice(copied: Run, whole: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    full = whole.metrics_path.read_bytes()
    cut(copied, 3)
    track(copied.folder, "tensorboard", out)
    position = (out / "position.json").read_bytes()
    copied.metrics_path.write_bytes(full)
    track(copied.folder, "tensorboard", out)
    (out / "position.json").write_bytes(position)  # killed before it was written
    track(copied.folder, "tensorboard", out)
    (out / "position.json").unlink()  # as a first call that was killed leaves it
    track(copied.folder, "tensorboard", out)
    track(whole.folder, "tensorboard", tmp_path / "once")
    assert tensorboard_scalars(out) == tensorboard_scalars(tmp_path / "once")


def test_an_unfinished_line_waits(copied: Run, whole: Run, tmp_path: Path) -> None:
    content = whole.metrics_path.read_bytes()
    first = content.index(b"\n") + 1
    copied.metrics_path.write_bytes(content[: first + 5])
    assert track(copied.folder, "tensorboard", tmp_path / "out") == 1
    copied.metrics_path.write_bytes(content)
    assert track(copied.folder, "tensorboard", tmp_path / "out") == content.count(b"\n") - 1


def test_following_ends_with_the_run(
    copied: Run, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, waits = whole.metrics_path.read_bytes(), []
    cut(copied, 2)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            copied.metrics_path.write_bytes(content)
        assert len(waits) < 10

    monkeypatch.setattr(track_module.time, "sleep", sleep)
    assert track(copied.folder, "tensorboard", tmp_path / "out", follow=True) == content.count(
        b"\n"
    )
    assert len(waits) == 3


def test_following_ends_when_the_training_has_diverged(
    copied: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(copied, 2)
    monkeypatch.setattr(Run, "diverged", property(lambda run: True))
    monkeypatch.setattr(track_module.time, "sleep", lambda seconds: None)
    assert track(copied.folder, "tensorboard", tmp_path / "out", follow=True) == 2


def test_metrics_that_have_changed_are_refused(copied: Run, tmp_path: Path) -> None:
    track(copied.folder, "tensorboard", tmp_path / "out")
    content = copied.metrics_path.read_bytes()
    copied.metrics_path.write_bytes(content.replace(b'"step": 2,', b'"step": 9,', 1))
    with pytest.raises(DataError, match="is not what it was when it was tracked"):
        track(copied.folder, "tensorboard", tmp_path / "out")


@pytest.mark.parametrize("content", ["{", "[]", '{"size": "x"}'])
def test_a_corrupt_position_is_refused(copied: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "position.json").write_text(content)
    with pytest.raises(DataError, match=r"is corrupt .*What was tracked is not known"):
        track(copied.folder, "tensorboard", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("tensorboard", "tensorboard.compat.proto.event_pb2", r"resnetkit\[track\]"),
        ("mlflow", "mlflow", "mlflow"),
        ("wandb", "wandb", "wandb"),
        ("trackio", "trackio", "trackio"),
    ],
)
def test_a_missing_library_is_named(
    copied: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    module: str,
    package: str,
) -> None:
    for variable in ("WANDB_MODE", "WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(variable, "offline" if variable == "WANDB_MODE" else "true")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=f"--to {name} needs a library: pip install '{package}'"):
        track(copied.folder, name, tmp_path / "out")


@pytest.mark.parametrize("failing", ["open", "log", "flush", "close"])
def test_a_tracker_that_is_down_is_reported(
    copied: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    is_down = True

    def refuse(step: str) -> None:
        if is_down and step == failing:
            raise RuntimeError("connection\nrefused")
        if is_down and step == "close":  # it asks the server again
            raise RuntimeError("cannot close")

    class Down:
        run_id = "1"

        def __init__(self, *words: object) -> None:
            refuse("open")

        def log(self, step: int, values: Any) -> None:
            refuse("log")

        def flush(self) -> None:
            refuse("flush")

        def close(self) -> None:
            refuse("close")

    monkeypatch.setitem(TRACKERS, "mlflow", ("mlflow", Down))
    before = copied.metrics_path.read_bytes()
    advice = "with another --out" if failing == "close" else "the same command continues"
    with pytest.raises(
        TransferError, match=rf"mlflow failed: connection refused\. The run is not.*{advice}"
    ):
        track(copied.folder, "mlflow", tmp_path / "out")
    assert copied.metrics_path.read_bytes() == before
    is_down = False
    left = 0 if failing == "close" else before.count(b"\n")  # then everything was passed on
    assert track(copied.folder, "mlflow", tmp_path / "out") == left
