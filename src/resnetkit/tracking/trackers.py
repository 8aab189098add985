"""Trackers that a run can be passed on to: each is used where its library is installed."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Protocol

from resnetkit.errors import TransferError, UsageError
from resnetkit.tracking.reader import Position

__all__ = ["TRACKERS", "Tracker", "closing", "open_tracker", "tracker_errors"]

PROJECT = "resnetkit"
CONTINUES = ", and the same command continues."
MAY_LACK = (
    ", but the tracker may lack the last numbers that it was given: with another --out the same"
    " command passes on all of them."
)


class Tracker(Protocol):
    """Receives the numbers of a run.

    Attributes:
        run_id: by which the tracker finds the run again; empty where it needs none.
    """

    run_id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers at a step, in ascending order of steps."""
        ...

    def flush(self) -> None:
        """Waits until everything that was added is stored."""
        ...

    def close(self) -> None:
        """Ends the tracking; the run can be opened again."""
        ...


class TensorBoard:
    """Writes event files of TensorBoard into a folder."""

    def __init__(
        self, folder: Path, name: str, config: Mapping[str, Any], position: Position
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.run_id, self._event, self._summary = "", Event, Summary
        wait_for_a_new_name(folder)
        is_continued = any(folder.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(folder))
        if is_continued:  # TensorBoard forgets what a killed call has added after this step
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(
                Event(wall_time=time.time(), step=position.step + 1, session_log=start)
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        summary = self._summary(
            value=[self._summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        )
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def wait_for_a_new_name(folder: Path) -> None:
    """Waits until no event file is of this second: they are read in the order of their names."""
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)


class MLflow:
    """Logs to MLflow: to the files below a folder unless MLFLOW_TRACKING_URI names a server."""

    def __init__(
        self, folder: Path, name: str, config: Mapping[str, Any], position: Position
    ) -> None:
        run_id = position.run_id
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').absolute()}")
        mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=run_id or None, run_name=None if run_id else name)
        if not run_id:
            mlflow.log_params(config)
        self.run_id, self._mlflow = str(run.info.run_id), mlflow

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def flush(self) -> None:
        self._mlflow.flush_async_logging()

    def close(self) -> None:
        self._mlflow.end_run()


class WeightsAndBiases:
    """Logs to Weights & Biases, offline into a folder unless WANDB_MODE says otherwise."""

    def __init__(
        self, folder: Path, name: str, config: Mapping[str, Any], position: Position
    ) -> None:
        run_id = position.run_id
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=PROJECT,
            name=name,
            config=dict(config),
            dir=folder,
            id=run_id or None,
            resume="allow" if run_id and os.environ["WANDB_MODE"] == "online" else None,
            settings=wandb.Settings(silent=True, disable_git=True, x_disable_stats=True),
        )
        self.run_id = str(self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Does nothing: what is logged is written at once, offline."""

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Logs to trackio, in its files on this machine unless its own variables name a Space."""

    def __init__(
        self, folder: Path, name: str, config: Mapping[str, Any], position: Position
    ) -> None:
        run_id = position.run_id
        import trackio

        self.run_id = run_id or name
        self._trackio = trackio
        with redirect_stdout(sys.stderr):
            trackio.init(
                project=PROJECT,
                name=self.run_id,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_cpu=False,  # of this process, which is not the training
                auto_log_gpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def flush(self) -> None:
        """Does nothing: trackio stores what it has when it is closed, and every half a second."""

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


TRACKERS: dict[str, tuple[str, Callable[[Path, str, Mapping[str, Any], Position], Tracker]]] = {
    "tensorboard": ("resnetkit[track]", TensorBoard),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WeightsAndBiases),
    "trackio": ("trackio", Trackio),
}
"""What to install for a tracker, and its class, by name."""


def open_tracker(
    name: str, folder: Path, run_name: str, config: Mapping[str, Any], position: Position
) -> Tracker:
    """Opens a tracker.

    Args:
        name: a key of `TRACKERS`.
        folder: for its files.
        run_name: shown by the tracker.
        config: of the run, as flat names and values.
        position: how much of the run the tracker has.

    Raises:
        UsageError: when its library is not installed.
        TransferError: when it fails, for instance because its server cannot be reached.
    """
    package, make = TRACKERS[name]
    try:
        with tracker_errors(name):
            return make(folder, run_name, config, position)
    except ImportError as error:
        raise UsageError(f"--to {name} needs a library: pip install '{package}'.") from error


@contextmanager
def tracker_errors(name: str, advice: str = CONTINUES) -> Iterator[None]:
    """Turns whatever a tracker's library raises in the block into a `TransferError`."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TransferError(f"{name} failed: {reason}. The run is not touched{advice}") from error


@contextmanager
def closing(tracker: Tracker, name: str) -> Iterator[Tracker]:
    """Closes a tracker after the block; an error of the block is not hidden by one of closing."""
    try:
        yield tracker
    except BaseException:
        with suppress(Exception):
            tracker.close()
        raise
    with tracker_errors(name, MAY_LACK):
        tracker.close()
