"""Commands that write to one place at the same time leave one whole result."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe

COMMANDS = {
    "convert": ("weights", "convert", "run", "--to", "resnetkit", "--out", "OUT"),
    "features": ("features", "run", "photos", "--out", "OUT/features.safetensors"),
    "report": ("report", "run"),
    "evaluate": ("evaluate", "run", "--out", "OUT"),
}


@pytest.fixture(scope="module")
def place(on_digits: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a finished run and some images."""
    folder = tmp_path_factory.mktemp("at-once")
    train(on_digits(), folder / "run")
    (folder / "photos").mkdir()
    for number in range(4):
        pixels = np.full((8, 8), 60 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{number}.png")
    return folder


def begun(place: Path, command: str, out: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "resnetkit",
            *(word.replace("OUT", out) for word in COMMANDS[command]),
        ],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Returns the exit code of a command, and what it said."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def results(place: Path, out: str) -> dict[str, object]:
    """Returns what a command has written, by file; without the time."""
    if out == "run":
        return {"report.html": content(place / "run/report.html")}
    return {path.name: content(path) for path in (place / out).iterdir()}


def content(path: Path) -> object:
    if path.name == "features.safetensors":  # its header is in any order
        arrays = safetensors.numpy.load_file(path)
        return {name: array.tolist() for name, array in arrays.items()}
    return re.sub(rb"<time.*?</time>", b"", path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("command", list(COMMANDS))
def test_two_at_once_write_what_one_writes(place: Path, command: str) -> None:
    alone, together = ("run", "run") if command == "report" else (f"{command}-1", f"{command}-2")
    code, output = ended(begun(place, command, alone))
    assert code == 0, output
    expected = results(place, alone)
    answers = [ended(process) for process in [begun(place, command, together) for _ in range(2)]]
    refused = [output for code, output in answers if code]
    assert len(refused) <= (command == "convert")  # which replaces nothing
    assert all("convert-2 already exists" in output for output in refused)
    assert results(place, together) == expected
    assert not list(place.rglob(".writing-*"))
