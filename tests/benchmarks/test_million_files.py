"""What the benchmark of a million files reports of what it has seen."""

import importlib
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
million_files = importlib.import_module("million_files")
many_files = importlib.import_module("many_files")


def look(seconds: float, answered: int, used: float, mib: float = 300.0) -> object:
    usage = many_files.Usage(seconds=used, mib=mib, processes=3)
    return million_files.Look(seconds, answered * 400, usage)


def test_speed_and_memory_of_the_last_tenth_are_compared_with_the_first() -> None:
    looks = [look(10, 0, 5)]
    looks += [look(10 + n, 1000 * n, 5 + 0.5 * n) for n in range(1, 91)]
    looks += [
        look(100 + 2 * n, 90_000 + 1000 * n, 50 + n, 330) for n in range(1, 11)
    ]  # half as fast
    looks += [look(125, 100_000, 61, 400), look(130, 0, 62, 450)]
    options = Namespace(files=100_000, shards=64, jobs=2, note="quiet")
    text = million_files.report(looks, options)
    assert "# 100,000 image files" in text
    assert "| memory of all after 10,000 files, MiB | 300 |" in text
    assert "| the most afterwards, MiB | 330 (+10.0 %) |" in text
    assert "| the most while merging, MiB | 450 |" in text
    assert "| files/s, last tenth / first tenth | 0.500 |" in text
    assert "processor time, last tenth / first tenth | 0.500 |" in text
    assert "| 1 | 1,000 | 0.500 |" in text
    assert "| 10 | 500 | 1.000 |" in text
    assert "| merging, s | 10 |" in text


def test_a_family_of_processes_is_measured_as_a_whole() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        while len(many_files.family(process.pid)) < 2:
            assert process.poll() is None
        used = many_files.usage(process.pid)
        assert used.processes == 2
        assert 1 < used.mib < 200
        process.communicate(b"\n")
    assert many_files.usage(process.pid) == many_files.Usage(0, 0, 0)
