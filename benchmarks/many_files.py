"""What the benchmarks of very many files share: the files, a network, and what a process uses."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from PIL import Image

FOLDER = 1000  # files in a folder
TICKS = os.sysconf("SC_CLK_TCK")


def resnet(*words: object) -> list[str]:
    """Returns the words that start the command."""
    return [sys.executable, "-m", "resnetkit", *map(str, words)]


def circumstances(note: str) -> str:
    """Returns the date, the machine, the software, and what else ran."""
    from resnetkit.runtime.processor import processor_name
    from resnetkit.runtime.resources import usable_processors

    return (
        f"{date.today()}, {processor_name()}, {usable_processors()} cores, torch"
        f" {version('torch')}, Python {platform.python_version()}; {note}"
    )


def link_files(root: Path, count: int) -> None:
    """Fills a tree of folders with hard links to the test images of the digits, as PNG files.

    Raises:
        SystemExit: when the file system has too little room.
    """
    from resnetkit.data.datasets import open_dataset

    free = os.statvfs(root.parent).f_favail
    if free < 2 * count // FOLDER + 10_000:
        sys.exit(f"{root.parent} has {free:,} free inodes.")
    digits = open_dataset("digits")
    sources = root.with_name("sources")
    sources.mkdir(parents=True)
    files = [sources / f"{number:03d}.png" for number in range(len(digits.splits["test"]))]
    for path, sample in zip(files, digits.splits["test"].tolist(), strict=True):
        Image.fromarray(digits.images[sample, 0].numpy()).save(path)
    for number, path in enumerate(paths(root, count)):
        if number % FOLDER == 0:
            path.parent.mkdir(parents=True)
        os.link(files[number % len(files)], path)


def paths(root: Path, count: int) -> Iterator[Path]:
    """Yields the paths of all files in the order in which they are found."""
    for number in range(count):
        folder = root / f"{number // (100 * FOLDER):02d}" / f"{number // FOLDER:04d}"
        yield folder / f"{number:07d}.png"


def train_network(folder: Path, length: str = "2 epochs") -> None:
    """Trains ResNet-20 on the digits."""
    words = resnet("train", "digits", "--out", folder, "--device", "cpu")
    subprocess.run([*words, "--set", f"length={length}"], check=True, capture_output=True)


@dataclass(frozen=True)
class Usage:
    """What a process and those that it started use.

    Attributes:
        seconds: of processor time since they began.
        mib: memory, of which what they share is counted once.
        processes: how many they are.
    """

    seconds: float
    mib: float
    processes: int


def family(pid: int) -> list[int]:
    """Returns a process and all that it started, and they, and so on."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        lists = [(task / "children").read_text() for task in tasks]
    except OSError:
        return []
    children = [int(word) for words in lists for word in words.split()]
    return [pid, *(process for child in children for process in family(child))]


def usage(pid: int) -> Usage:
    """Returns what a process and its family use now."""
    seconds, kib, processes = 0.0, 0, family(pid)
    for process in processes:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        seconds += (int(fields[11]) + int(fields[12])) / TICKS
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return Usage(seconds, kib / 1024, len(processes))
