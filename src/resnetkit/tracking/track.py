"""Passes the events of a run on to a tracker, once or for as long as the run lasts."""

import time
from dataclasses import replace
from pathlib import Path

from resnetkit.storage import exclusive, storage_errors
from resnetkit.tracking.reader import (
    Position,
    Scalars,
    read_position,
    scalars_after,
    write_position,
)
from resnetkit.tracking.trackers import Tracker, closing, open_tracker, tracker_errors
from resnetkit.training.run_folder import flat, read_run

__all__ = ["track", "tracked"]

POLL_SECONDS = 2.0
POSITION_FILE = "position.json"
ADVICE = "Choose another folder with --out."


def track(
    folder: Path,
    tracker: str,
    out: Path,
    *,
    follow: bool = False,
) -> int:
    """Passes the numbers of a run on to a tracker, each once.

    What was passed on is written next to the tracker's files, so that another call continues there.

    Args:
        folder: of the run.
        tracker: a key of `TRACKERS`.
        out: folder of the tracker's files.
        follow: whether to wait for further events, until the run is finished.

    Returns:
        How many events were passed on.

    Raises:
        DataError: when the folder holds no run, or what was tracked before has changed.
        UsageError: when the tracker is not installed.
        TransferError: when the tracker fails.
        StorageError: when the folder cannot be written.
    """
    run = read_run(folder)
    count = 0
    with storage_errors(out, ADVICE):
        out.mkdir(parents=True, exist_ok=True)
    path = out / POSITION_FILE
    with exclusive(
        out / ".lock", waiting=f"another command tracks into {out}: waiting for it.", advice=ADVICE
    ):
        position = read_position(path)
        config = flat(run.recipe.model_dump(mode="json"))
        name = f"{run.recipe.name}-{run.recipe.digest[:8]}"
        with closing(open_tracker(tracker, out, name, config, position), tracker) as opened:
            if opened.run_id != position.run_id:  # a call that is killed now is continued
                position = replace(position, run_id=opened.run_id)
                with storage_errors(path, ADVICE):
                    write_position(path, position)
            while True:
                has_ended = run.final is not None or run.diverged
                position, passed, is_final = tracked(
                    run.metrics_path, position, opened, path, tracker
                )
                count += passed
                if is_final or not follow or (has_ended and not passed):
                    return count
                time.sleep(POLL_SECONDS)


def tracked(
    metrics: Path, position: Position, tracker: Tracker, path: Path, name: str
) -> tuple[Position, int, bool]:
    """Passes on what is new in the metrics of a run.

    Returns:
        The new position, how many events were passed on, and whether the last one was the final.
    """
    passed: list[Scalars] = []
    for scalars in scalars_after(metrics, position):
        with tracker_errors(name):
            tracker.log(scalars.step, scalars.values)
        passed.append(scalars)
    if not passed:
        return position, 0, False
    with tracker_errors(name):
        tracker.flush()
    with storage_errors(path, ADVICE):
        write_position(path, passed[-1].ends_at)
    return passed[-1].ends_at, len(passed), passed[-1].is_final
