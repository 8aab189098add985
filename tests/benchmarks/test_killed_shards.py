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


FILES = 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_processes_change_no_byte(tmp_path: Path) -> None:
    many_files.link_files(tmp_path / "photos", FILES)
    many_files.train_network(tmp_path / "run", "2 steps")
    generator = random.Random(1)
    for command in ("predict", "features"):
        ending, out = killed_shards.trial(command, tmp_path, 3, 16, generator)
        assert ending.is_equal
        assert 1 <= len(ending.killed) <= 3
        assert ending.starts >= 1 + ending.killed.count("command")
        if command == "predict":
            assert killed_shards.answered_once(out, tmp_path / "photos", FILES)
