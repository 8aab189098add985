"""Predictions and features whose processes are killed, with fewer files than the benchmark has."""

import importlib
import random
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
killed_shards = importlib.import_module("killed_shards")
many_files = importlib.import_module("many_files")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", ["predict", "features"])
def test_killed_processes_change_no_byte(command: str, tmp_path: Path) -> None:
    many_files.link_files(tmp_path / "photos", 2000)
    many_files.train_network(tmp_path / "run")
    generator = random.Random(1)
    ending, out = killed_shards.trial(command, tmp_path, 4, 16, generator)
    assert ending.is_equal
    assert 1 <= len(ending.killed) <= 4
    assert ending.starts >= 1 + ending.killed.count("command")
    if command == "predict":
        assert killed_shards.answered_once(out, tmp_path / "photos", 2000)
    else:
        assert (out / "index.json").exists()
