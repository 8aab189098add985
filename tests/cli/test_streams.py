"""Streams whose readers leave, interruptions, and memory that is short: how commands end then."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnetkit.cli import streams
from resnetkit.cli.app import run
from resnetkit.cli.streams import LastingStream
from resnetkit.errors import is_out_of_memory
from resnetkit.training.run_folder import read_run

Resnet = Callable[..., Any]
REPORT = "resnetkit.cli.runs.write_report"
TRAIN = (sys.executable, "-m", "resnetkit", "train")
TORCH_SAYS = (
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"
    " allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


def raising(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Lets `resnet report` do something else."""
    monkeypatch.setattr(REPORT, lambda folder, lang: action())


# Streams


def test_a_message_that_cannot_be_written_is_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for descriptor in (writing, os.open("/dev/full", os.O_WRONLY)):
        with os.fdopen(descriptor, "w", buffering=1) as stream:
            lasting = LastingStream(stream)
            for _ in range(3):
                print("a message", file=lasting, flush=True)
            assert lasting.is_lost
            assert not lasting.isatty()


def test_messages_come_through_as_long_as_they_can(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        print("a message", file=LastingStream(stream), flush=True)
    assert (tmp_path / "log").read_text() == "a message\n"


def test_a_training_outlives_the_reader_of_its_messages(
    tmp_path: Path, few_steps: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        monkeypatch.setattr(sys, "stderr", nobody_reads)
        assert run(["train", *few_steps, "--out", str(tmp_path / "run")]) == 0
    assert read_run(tmp_path / "run").final is not None


@pytest.mark.slow
def test_the_process_of_a_training_outlives_the_reader_of_its_messages(tmp_path: Path) -> None:
    words = [*TRAIN, "--set", "length=6 steps", "--out", str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0
    assert read_run(tmp_path / "run").final is not None


def test_a_verdict_outlives_the_reader_of_the_findings(
    resnet: Resnet, finished_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_study({"plain56": (1.0, 1.0)})

    def leave(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("resnetkit.cli.study.show_outcomes", leave)
    monkeypatch.setattr("resnetkit.cli.study.drop_stdout", lambda: None)
    assert resnet("study", "degradation").code == 4


def test_a_full_disk_behind_stdout_is_an_error(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "resnetkit", "--version"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    message = "the operating system reports: [Errno 28] No space left on device."
    assert ended.stderr == f"resnet: {message}\n"


HOSTILE = "dog\x1b[2J\x9b31m\u202e\r"


def test_names_cannot_steer_a_terminal(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, finished_run: Callable[..., Path]
) -> None:
    finished_run(changes={"model.name": "resnet32"}).rename(f"runs/{HOSTILE}")
    raising(monkeypatch, lambda: streams.logging.getLogger("resnetkit.x").warning(HOSTILE) or "p")
    for words in (["runs"], ["report", HOSTILE], ["train", HOSTILE], ["evaluate", HOSTILE]):
        answer = resnet(*words)
        assert not set("\x1b\x9b\u202e\r") & set(answer.out + answer.err), words
        assert r"dog\x1b[2J\x9b31m\u202e\r" in answer.out + answer.err, words


def test_only_one_file_prints() -> None:
    folder = Path(streams.__file__).parent
    printing = {
        path.name
        for path in folder.glob("*.py")
        if any(word in path.read_text() for word in ("\n    print(", " print(", ".write("))
    }
    assert printing == {"app.py", "output.py", "records.py", "streams.py"}


# Interruptions


@pytest.fixture
def _as_a_command() -> Iterator[None]:
    """Gives SIGINT the handler that a process begins with; other tests may leave another one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_a_command")
def test_what_a_library_makes_of_an_interruption_is_an_interruption(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_something() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("the compiler failed") from None

    raising(monkeypatch, compile_something)
    assert resnet("report", "x") == type(resnet("recipes"))(130, "", "resnet: interrupted.\n")


@pytest.mark.usefixtures("_as_a_command")
def test_an_interruption_that_a_library_swallows_comes_again(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            for _ in range(400):  # the next one ends it between two of these
                time.sleep(0.05)

    monkeypatch.setattr(streams, "SECONDS_TO_LEAVE", 0.05)
    raising(monkeypatch, swallow)
    assert resnet("report", "x").code == 130


def test_an_interruption_before_anything_began_ends_the_process_at_once() -> None:
    script = (
        "import os, signal; from resnetkit.__main__ import leave;"
        " signal.signal(signal.SIGINT, leave); os.kill(os.getpid(), signal.SIGINT)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"resnet: interrupted.\n")


def test_a_signal_while_a_training_is_prepared_changes_nothing(
    resnet: Resnet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    few_steps: tuple[str, ...],
) -> None:
    """A compiler in the same process group dies of it, and other kernels would be taken."""
    from resnetkit.training import setup

    real = setup.choose_kernels

    def choose(*words: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*words, **options)

    monkeypatch.setattr(setup, "choose_kernels", choose)
    answer = resnet("train", *few_steps, "--out", "run")
    assert answer.code == 130
    assert "stopped before the first step" in answer.err
    assert not (tmp_path / "run").exists()


# Memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(TORCH_SAYS),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=lambda error: str(error)[:30] or type(error).__name__,
)
def test_short_memory_is_a_sentence(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    raising(monkeypatch, fail)
    answer = resnet("report", "x")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("resnet: there is not enough memory. Use a smaller batch ")


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("shapes differ")])
def test_other_errors_are_not_blamed_on_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("train", "--set", "batch_size=1000000", "--set", "model.name=resnet110"),
        ("train", "--dry-run", "--set", "model.name=resnet152"),
    ],
    ids=["train", "dry run"],
)
def test_a_limit_of_the_process_is_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1_700_000_000, 1_700_000_000))

    ended = subprocess.run(
        [sys.executable, "-m", "resnetkit", *words],
        cwd=tmp_path,
        preexec_fn=limit,  # of a process that has one thread
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "not enough memory" in ended.stderr


# A locale of ASCII


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_words_are_utf8_in_a_locale_of_ascii() -> None:
    words = [sys.executable, "-m", "resnetkit", "caf\u00e9"]
    ended = subprocess.run(words, env={**os.environ, **ASCII}, capture_output=True, check=False)
    assert ended.returncode == 2
    assert "caf\u00e9" in ended.stderr.decode("utf-8")


@pytest.mark.slow
def test_names_of_classes_and_files_are_utf8_in_a_locale_of_ascii(tmp_path: Path) -> None:
    for number, name in enumerate(("caf\u00e9", "tea")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for shade in range(6):
            image = Image.new("RGB", (16, 16), (40 * shade, 200 * number, 90))
            image.save(tmp_path / "photos" / name / f"{shade}.png")
    table = "path,label\n" + "".join(
        f"photos/{name}/{shade}.png,{name}\n" for name in ("caf\u00e9", "tea") for shade in range(6)
    )
    (tmp_path / "photos.csv").write_text(table, encoding="utf-8")
    environment = {**os.environ, **ASCII}
    script = (
        "from resnetkit.cli.app import run; import sys;"
        " sys.exit(max(run(['data', 'check', source]) for source in ('photos', 'photos.csv')))"
    )
    words = [sys.executable, "-c", script]
    result = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode("utf-8").count("caf\u00e9\t") == 2
