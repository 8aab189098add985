"""resnet track: where the files are, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from resnetkit.training.run_folder import Run

Resnet = Callable[..., Any]


def test_the_command_says_where_the_files_are(resnet: Resnet, whole: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    said = resnet("track", str(run), "--json")
    assert said.code == 0
    answer = json.loads(said.out)
    assert (answer["tracker"], answer["folder"]) == (
        "tensorboard",
        str(run / "tracking" / "tensorboard"),
    )
    accumulator = EventAccumulator(answer["folder"])
    accumulator.Reload()
    assert "interval/loss" in accumulator.Tags()["scalars"]
    assert json.loads(resnet("track", str(run), "--json").out)["events"] == 0


def test_a_folder_without_a_run_is_refused(resnet: Resnet, tmp_path: Path) -> None:
    said = resnet("track", str(tmp_path))
    assert said.code == 2
    assert str(tmp_path) in said.err
