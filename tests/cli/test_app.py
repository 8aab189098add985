"""The command as a whole: its help, how fast it is there, what it says to machines and to pipes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, CycloptsError

from resnetkit.__main__ import main
from resnetkit.cli.app import app

HEAVY = {
    "huggingface_hub",
    "torch",
    "numpy",
    "pydantic",
    "scipy",
    "matplotlib",
    "yaml",
    "joblib",
    "sklearn",
    "rich.markdown",  # of the help of one command, not of the list
}
RESNET = str(Path(sys.executable).with_name("resnet"))
Resnet = Callable[..., Any]


def leaves(node: App, *path: str) -> Iterator[tuple[str, ...]]:
    """Yields the words of every command that does something."""
    names = [name for name in node if not name.startswith("-")]
    if not names:
        yield path
    for name in names:
        yield from leaves(node[name], *path, name)


COMMANDS = list(leaves(app))
every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def python(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=120
    )


def test_no_words_show_the_commands(resnet: Resnet) -> None:
    answer = resnet()
    assert answer == resnet("--help") == resnet("-h")
    assert (answer.code, answer.err) == (0, "")
    assert "resnet study degradation" in answer.out
    for first, *_ in COMMANDS:
        assert f" {first} " in answer.out


def example_of(resnet: Resnet, command: tuple[str, ...]) -> list[str]:
    """Returns the words of the example in the help of a command."""
    answer = resnet(*command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"Usage: resnet {' '.join(command)}" in answer.out
    assert "--json" in answer.out
    (_, example) = " ".join(answer.out.split()).split("Example: ")
    return list(example.split())


@every_command
def test_help_of_every_command_has_an_example_that_can_be_typed(
    resnet: Resnet, command: tuple[str, ...]
) -> None:
    first, *words = example_of(resnet, command)
    assert first == "resnet"
    assert tuple(words[: len(command)]) == command
    called, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    node = app
    for name in command:
        node = node[name]
    assert called is node.default_command


def test_an_example_that_cannot_be_typed_would_be_found() -> None:
    with pytest.raises(CycloptsError):
        app.parse_args(["runs", "--folder", "x"], exit_on_error=False, print_error=False)


def test_the_version_is_that_of_the_package(resnet: Resnet) -> None:
    assert resnet("--version").out == f"{version('resnetkit')}\n"


def heavy_modules(before: str) -> str:
    """Returns what is imported when the help is shown, after some statement."""
    script = (
        f"import sys; {before}; from resnetkit.cli.app import run; run(['--help']);"
        f" print(sorted({HEAVY} & set(sys.modules)))"
    )
    return python("-c", script).stdout.splitlines()[-1]


def test_help_imports_nothing_heavy() -> None:
    assert heavy_modules("pass") == "[]"
    assert heavy_modules("import yaml") == "['yaml']"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["modles"],
        pytest.param(["--version"], marks=pytest.mark.slow),
        pytest.param(["train", "--thread"], marks=pytest.mark.slow),
    ],
)
def test_the_module_is_the_command(words: list[str]) -> None:
    command = subprocess.run([RESNET, *words], capture_output=True, text=True, check=False)
    module = python("-m", "resnetkit", *words)
    assert (module.returncode, module.stdout, module.stderr) == (
        command.returncode,
        command.stdout,
        command.stderr,
    )
    assert module.stdout or module.stderr


def test_the_process_ends_with_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # those of pytest stay
    monkeypatch.setattr("sys.argv", ["resnet", "modles"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setattr("sys.argv", ["resnet", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.usefixtures("_without_the_deepest")
def test_every_command_speaks_json_and_nothing_else_on_stdout(
    resnet: Resnet,
    finished_run: Callable[..., Path],
    finished_study: Callable[..., Path],
    few_steps: tuple[str, ...],
) -> None:
    finished_run()
    finished_study()
    called = [
        ("models",),
        ("models", "plain20"),
        ("recipes",),
        ("recipes", "digits"),
        ("train", "digits", "--out", "runs/one"),
        ("train", "digits", "--dry-run", *few_steps),
        ("train", "digits", "--out", "runs/two", *few_steps),
        ("lr-find", "digits", "--steps", "20", *few_steps),
        ("evaluate", "runs/two"),
        ("inspect", "runs/two"),
        ("study",),
        ("study", "degradation"),
        ("runs",),
        ("report", "runs/one"),
        ("report", "studies/degradation-quick"),
        ("data", "list"),
        ("data", "check", "digits"),
        ("data", "show", "digits"),
        ("data", "export", "digits", "--out", "images", "--split", "validation"),
        ("weights", "list"),
        ("weights", "show", "runs/two"),
        ("weights", "convert", "runs/two", "--to", "resnetkit", "--out", "converted"),
        ("export", "runs/two", "--to", "openvino", "--out", "exported"),
        ("export", "check", "exported"),
        ("predict", "runs/two", "digits.png"),
        ("features", "runs/two", "digits.png", "--out", "digits.safetensors"),
        ("track", "runs/two"),
        ("nearest", "digits.safetensors", "digits.png", "--model", "runs/two"),
    ]
    brings_files = {("weights", word) for word in ("fetch", "push", "pull")}
    needs_a_network = {("data", "fetch"), *brings_files}
    # In files of their own: it measures in processes, does not end, trains a study.
    elsewhere = {("export", "bench"), ("serve",), ("play",)}
    spoken = {
        command for command in COMMANDS for words in called if words[: len(command)] == command
    }
    assert spoken | needs_a_network | elsewhere == set(COMMANDS)
    for words in called:
        answer = resnet(*words, "--json")
        assert answer.code == 0, words
        assert isinstance(json.loads(answer.out, parse_constant=pytest.fail), dict | list), words
        assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["modles"], "models"),
        (["tarin", "digits"], "train"),
        (["models", "--jsn"], "--json"),
        (["train", "--devise", "cpu"], "--device"),
        (["study", "--job", "2"], "--jobs"),
    ],
)
def test_a_slip_of_the_keyboard_is_understood(resnet: Resnet, words: list[str], meant: str) -> None:
    answer = resnet(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("resnet: Unknown ")
    assert meant in answer.err.split("Did you mean ")[1].split("?")[0]
    command = f"resnet {words[0]}" if meant.startswith("--") else "resnet"
    assert f"See '{command} --help'." in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["models", "resnet20", "resnet32"],
        ["models", "--set"],
        ["train", "--threads", "many"],
        ["study", "--jobs", "two"],
        ["report"],
        ["recipes", "--json=perhaps"],
        ["--", "models"],
    ],
    ids=" ".join,
)
def test_words_that_do_not_fit_are_refused_in_one_line(resnet: Resnet, words: list[str]) -> None:
    answer = resnet(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("resnet: ")
    assert answer.err.count("\n") == 1


def into_a_closed_pipe(*words: str) -> tuple[int, bytes]:
    """Runs the command with a reader that has left, as `head` does; returns code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "resnetkit", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["recipes", "digits"], marks=pytest.mark.slow),
        pytest.param(["models", "resnet110", "--json"], marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_leaves_is_no_error(words: list[str]) -> None:
    assert into_a_closed_pipe(*words) == (0, b"")


def test_a_reader_may_leave_the_help() -> None:
    assert into_a_closed_pipe("--help") == (0, b"")


def test_narrow_terminals_still_get_help(terminal: Callable[..., str]) -> None:
    shown = terminal("--help", columns=40)
    assert max(map(len, shown.splitlines())) < 80  # with the codes that make it bold
    assert "degradation" in shown
