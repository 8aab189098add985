"""Kills random processes of predictions and features in shards, at random moments.

The command that was killed is started again, as a user would, until it ends. Its result has to be
that of an undisturbed run to the byte, with every file exactly once.

    python benchmarks/killed_shards.py                  # minutes on two cores
    python benchmarks/killed_shards.py --files 2000 --kills 4
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from many_files import circumstances, family, link_files, paths, resnet, train_network
from side_by_side import file_name

JOBS = 2
GIVEN_UP = 3600.0  # seconds of all starts of a command


@dataclass(frozen=True)
class Ending:
    """How a command that was killed again and again ended.

    Attributes:
        command: predict or features.
        killed: which processes: the command itself, or one that it started.
        starts: of the command.
        is_equal: whether its result is that of the undisturbed run.
    """

    command: str
    killed: tuple[str, ...]
    starts: int
    is_equal: bool


def digest(out: Path) -> str:
    """Returns the SHA-256 of all results in a folder of shards, and of their names."""
    total = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != ".lock"):
        total.update(f"{path.relative_to(out)}\n".encode() + path.read_bytes())
    return total.hexdigest()


def disturbed(
    words: Sequence[str], kills: int, latest: float, generator: random.Random
) -> tuple[list[str], int]:
    """Runs a command to its end, killing its processes at random moments.

    Returns:
        Which processes were killed, and how often the command was started.
    """
    killed: list[str] = []
    starts, deadline = 0, time.monotonic() + GIVEN_UP
    while True:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        starts += 1
        while process.poll() is None:
            if len(killed) == kills:
                process.wait(max(1.0, deadline - time.monotonic()))
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0.2, latest))
                break
            workers = family(process.pid)[1:] or [process.pid]
            victim = generator.choice([process.pid, generator.choice(workers)])
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.append("command" if victim == process.pid else "worker")
        if process.returncode == 0:
            return killed, starts
        if time.monotonic() > deadline:
            raise SystemExit(f"no end after {starts} starts and {len(killed)} kills")


def trial(
    command: str, folder: Path, kills: int, shards: int, generator: random.Random
) -> tuple[Ending, Path]:
    """Runs a command once undisturbed and once disturbed; returns its ending and its results."""
    words = resnet(command, folder / "run", folder / "photos", "--device", "cpu")
    words += ["--shards", str(shards), "--jobs", str(JOBS)]
    calm, harried = folder / f"{command}-calm", folder / f"{command}-harried"
    began = time.monotonic()
    subprocess.run([*words, "--out", str(calm)], check=True, capture_output=True)
    latest = (time.monotonic() - began) / 4  # until the next kill
    killed, starts = disturbed([*words, "--out", str(harried)], kills, latest, generator)
    return Ending(command, tuple(killed), starts, digest(calm) == digest(harried)), harried


def answered_once(out: Path, root: Path, files: int) -> bool:
    """Returns whether every file has exactly one answer."""
    lines = (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    counts = Counter(json.loads(line)["path"] for line in lines)
    return counts == Counter(map(str, paths(root, files)))


def report(endings: Sequence[Ending], options: argparse.Namespace) -> str:
    """Returns the endings as Markdown."""
    lines = [
        "# Killed processes of predictions and features",
        "",
        f"{circumstances(options.note)}.",
        "",
        f"{options.files:,} files in {options.shards} shards, {JOBS} worker processes; now and"
        " then the command or a process that it started gets SIGKILL, and a command that ended is"
        " started again; measured by `benchmarks/killed_shards.py`. Predictions hold every"
        " file exactly once.",
        "",
        "| command | killed | starts | result |",
        "|---|---|---|---|",
    ]
    for ending in endings:
        result = "equal to the byte" if ending.is_equal else "**differs**"
        counts = ", ".join(f"{what}: {n}" for what, n in sorted(Counter(ending.killed).items()))
        lines.append(f"| `resnet {ending.command}` | {counts} | {ending.starts} | {result} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10, help="of processes of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the processes")
    parser.add_argument("--note", default="nothing else running", help="what else ran")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    generator = random.Random(options.seed)
    endings = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_files(folder / "photos", options.files)
        train_network(folder / "run", "2 steps")
        for command in ("predict", "features"):
            ending, results = trial(command, folder, options.kills, options.shards, generator)
            endings.append(ending)
            print(ending, flush=True)
            if command == "predict" and not answered_once(
                results, folder / "photos", options.files
            ):
                raise SystemExit("some file has no answer, or several")
    text = report(endings, options)
    path = options.out / f"killed_shards_{file_name()}"
    path.write_text(text, encoding="utf-8")
    print(text + f"\nwritten: {path}")


if __name__ == "__main__":
    main()
