"""Kills a random process of a training that torchrun restarts, at random moments.

Every trial has to end with the bytes of a training of as many processes that nothing disturbed.

    python benchmarks/killed_ranks.py --trials 20      # about 10 minutes on two cores
"""

import argparse
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from side_by_side import file_name

RANKS = 2
LIMIT = 300  # seconds of a trial
LATEST = 16.0  # seconds after the processes have started, by which one of them is killed
TRAINING = ("train", "digits", "--device", "cpu")
CHANGES = ("length=120 steps", "checkpoint.every=10 steps", "batch_size=64")


def command(out: Path) -> list[str]:
    """Returns the words that start a training of several processes."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}")
    changes = [word for change in CHANGES for word in ("--set", change)]
    words = ("--max-restarts", "3", "-m", "resnetkit", *TRAINING, "--out", str(out), *changes)
    return [sys.executable, *torchrun, *words]


def digest(out: Path) -> str:
    """Returns the SHA-256 of the weights and metrics of a finished run."""
    content = (out / "model" / "model.safetensors").read_bytes()
    return hashlib.sha256(content + (out / "metrics.jsonl").read_bytes()).hexdigest()


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def trial(out: Path, wait: float, generator: random.Random) -> tuple[str, float]:
    """Runs a training of which one process is killed.

    Returns:
        How it ended, and the seconds from the kill to the end.
    """
    process = subprocess.Popen(
        command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(children(process.pid)) < RANKS:
        time.sleep(0.05)
    time.sleep(wait)
    alive = children(process.pid) if process.poll() is None else []
    if alive:
        os.kill(generator.choice(alive), signal.SIGKILL)
    began = time.monotonic()
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"no end within {LIMIT} s", LIMIT
    ending = digest(out) if code == 0 else f"exit code {code}"
    return (ending if alive else "ended before it was killed"), time.monotonic() - began


def report(expected: str, endings: Sequence[tuple[float, str, float]]) -> str:
    """Returns the trials as Markdown."""
    equal = sum(ending == expected for _, ending, _ in endings)
    lines = [
        "# Killed processes of a training",
        "",
        f"{date.today()}, {RANKS} processes that torchrun restarts, one of which gets SIGKILL;"
        f" {len(endings)} trials. **{equal} of {len(endings)}** ended with the weights and metrics"
        " of the undisturbed training, to the byte.",
        "",
        "| killed after, s | from the kill to the end, s | result |",
        "|---|---|---|",
    ]
    for wait, ending, seconds in endings:
        result = "equal" if ending == expected else ending[:40]
        lines.append(f"| {wait:.1f} | {seconds:.1f} | {result} |")
    median = statistics.median(seconds for _, _, seconds in endings)
    return "\n".join([*lines, "", f"Median from the kill to the end: {median:.1f} s.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the processes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder, "undisturbed")
        subprocess.run(command(undisturbed), check=True, capture_output=True, timeout=LIMIT)
        expected = digest(undisturbed)
        endings = []
        for number in range(options.trials):
            wait = generator.uniform(0.5, LATEST)
            endings.append((wait, *trial(Path(folder, str(number)), wait, generator)))
            print(f"trial {number}: killed after {wait:.1f} s, {endings[-1][1][:16]}", flush=True)
    text = report(expected, endings)
    path = options.out / f"killed_ranks_{file_name()}"
    path.write_text(text, encoding="utf-8")
    print(text + f"\nwritten: {path}")


if __name__ == "__main__":
    main()
