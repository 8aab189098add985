"""Predicts a million image files in shards, and looks at memory and speed all along.

The files are hard links to the test images of the digits; the network is ResNet-20. Every file has
to be answered exactly once, in order.

    python benchmarks/million_files.py                     # ten minutes on two idle cores
    python benchmarks/million_files.py --files 20000
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from many_files import Usage, circumstances, link_files, paths, resnet, train_network, usage
from side_by_side import file_name

EVERY = 2.0  # seconds between two looks


@dataclass(frozen=True)
class Look:
    """What is seen at a moment of the run.

    Attributes:
        seconds: since the start.
        bytes: of all answers so far.
        usage: of the processes.
    """

    seconds: float
    bytes: int
    usage: Usage


@dataclass(frozen=True)
class Tenth:
    """A tenth of the files, in the order in which they were answered.

    Attributes:
        rate: files a second: the median between two looks, so that a pause does not count.
        milliseconds: of processor time for a file.
    """

    rate: float
    milliseconds: float


def answered_bytes(out: Path) -> int:
    """Returns the bytes of all answers, also of those in parts that are being written."""
    total = 0
    try:
        with os.scandir(out / "parts") as entries:
            for entry in entries:
                total += entry.stat().st_size
    except OSError:  # before the first part, or after the last
        return 0
    return total


def watched_run(words: list[str], out: Path) -> list[Look]:
    """Runs a command to its end, and looks at it now and then."""
    looks, began = [], time.monotonic()
    process = subprocess.Popen(words)
    while process.poll() is None:
        used = usage(process.pid)
        looks.append(Look(time.monotonic() - began, answered_bytes(out), used))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}")
    return looks


def check_answers(out: Path, root: Path, files: int) -> None:
    """Raises SystemExit unless every file has exactly one answer, in order, without an error."""
    with (out / "answers.jsonl").open(encoding="utf-8") as lines:
        for path, line in zip(paths(root, files), lines, strict=True):
            answer = json.loads(line)
            if answer["path"] != str(path) or answer["error"] is not None:
                raise SystemExit(f"expected an answer for {path}: {line[:300]}")


def tenth_of(looks: Sequence[Look], files: int, number: int) -> Tenth:
    """Returns the speed of a tenth of all answers, from 0 to 9."""
    total = looks[-1].bytes
    start = max(n for n, look in enumerate(looks) if look.bytes <= number * total / 10 or n == 0)
    end = next(n for n, look in enumerate(looks) if look.bytes >= (number + 1) * total / 10)
    rates = [
        files * (after.bytes - before.bytes) / total / (after.seconds - before.seconds)
        for before, after in pairwise(looks[start : end + 1])
    ]
    count = files * (looks[end].bytes - looks[start].bytes) / total
    used = looks[end].usage.seconds - looks[start].usage.seconds
    return Tenth(statistics.median(rates or [math.nan]), 1000 * used / max(count, 1))


def report(looks: Sequence[Look], options: argparse.Namespace) -> str:
    """Returns what was seen as Markdown."""
    total, files = max(look.bytes for look in looks), options.files
    begun = next(n for n, look in enumerate(looks) if look.bytes)
    done = next(n for n, look in enumerate(looks) if look.bytes == total)
    answering, merging = looks[begun : done + 1], looks[done + 1 :]
    early = next(look for look in answering if look.bytes * files >= 10_000 * total)
    largest = max(look.usage.mib for look in answering if look.seconds >= early.seconds)
    growth = 100 * (largest / early.usage.mib - 1)
    tenths = [tenth_of(answering, files, number) for number in range(10)]
    first, last = tenths[0], tenths[-1]
    lines = [
        f"# {files:,} image files",
        "",
        f"{circumstances(options.note)}.",
        "",
        f"`resnet predict RUN FOLDER --out OUT --shards {options.shards} --jobs {options.jobs}`,"
        " ResNet-20, hard links to 359 PNG files of 8x8 pixels in folders of 1,000; measured by"
        f" `benchmarks/million_files.py`, which looked every {EVERY:g} s (n = {len(answering)}"
        " looks). Every file was answered exactly once, in order.",
        "",
        "| | |",
        "|---|---|",
        f"| until the first answer, s | {answering[0].seconds:,.0f} |",
        f"| merging, s | {looks[-1].seconds - answering[-1].seconds:,.0f} |",
        f"| processes | {max(look.usage.processes for look in looks)} |",
        f"| memory of all after 10,000 files, MiB | {early.usage.mib:,.0f} |",
        f"| the most afterwards, MiB | {largest:,.0f} ({growth:+.1f} %) |",
        f"| the most while merging, MiB | {max((m.usage.mib for m in merging), default=0):,.0f} |",
        f"| files/s, last tenth / first tenth | {last.rate / first.rate:.3f} |",
        "| files per second of processor time, last tenth / first tenth |"
        f" {first.milliseconds / last.milliseconds:.3f} |",
        "",
        "| tenth | files/s, median of looks | processor time a file, ms |",
        "|---|---|---|",
    ]
    lines += [
        f"| {number} | {tenth.rate:,.0f} | {tenth.milliseconds:.3f} |"
        for number, tenth in enumerate(tenths, start=1)
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--note", default="nothing else running", help="what else ran")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_files(folder / "photos", options.files)
        train_network(folder / "run")
        words = resnet("predict", folder / "run", folder / "photos", "--device", "cpu")
        words += ["--out", str(folder / "answers"), "--shards", str(options.shards)]
        looks = watched_run([*words, "--jobs", str(options.jobs)], folder / "answers")
        check_answers(folder / "answers", folder / "photos", options.files)
    text = report(looks, options)
    path = options.out / f"million_files_{file_name()}"
    path.write_text(text, encoding="utf-8")
    print(text + f"\nwritten: {path}")


if __name__ == "__main__":
    main()
