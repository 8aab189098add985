"""Twenty kills at random moments, each followed by a new start, change nothing."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetkit.training.run_folder import read_run

Results = Callable[[Path], dict[str, bytes]]
Start = Callable[..., "subprocess.Popen[str]"]

KILLS = 20
WORDS = (
    *("-m", "resnetkit", "train", "digits"),
    *("--set", "length=70 epochs"),
    *("--set", "checkpoint.every=4 steps"),  # a third of the time goes into saving
    *("--set", "log_every=3"),
    *("--set", "ema_decay=0.99"),
    "--out",
)


def seconds_to_first_step(process: "subprocess.Popen[str]", folder: Path, began: float) -> float:
    """Waits until a process has made a fresh run's first lines."""
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_at_random_moments_change_no_byte(
    tmp_path: Path, start: Start, results: Results
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    with start(*WORDS, str(whole)) as process:
        startup = seconds_to_first_step(process, whole, began)
        process.communicate(timeout=600)
    duration = time.monotonic() - began
    assert process.returncode == 0

    dice = random.Random(20151210)
    live = in_training = in_saving = 0
    for _ in range(KILLS):
        sessions = len(read_run(killed).sessions) if (killed / "recipe.yaml").exists() else 0
        with start(*WORDS, str(killed)) as process:
            # From the import of torch up to a part of the training, which so outlives the kills.
            time.sleep(dice.uniform(0.6 * startup, startup + 0.12 * (duration - startup)))
            live += process.poll() is None
            process.kill()
        if (killed / "recipe.yaml").exists():
            in_training += len(read_run(killed).sessions) > sessions
        in_saving += bool(list(killed.rglob(".writing-*")))

    with start(*WORDS, str(killed)) as process:
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    print(f"{live} kills met a process, {in_training} a training, {in_saving} a file half-written")
    assert live >= 3 * KILLS / 4  # on a machine whose speed drifts the last ones may come too late
    assert in_training >= KILLS / 2
    assert results(killed) == results(whole)
