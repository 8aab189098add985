"""The command line, called in this process, and runs that were never trained."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from resnetkit.cli.app import app, run
from resnetkit.data.normalization import Normalization
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.runner import trial_folder
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.run_folder import MODEL_FILES
from resnetkit.weights.native import model_folder_files
from resnetkit.weights.network import TrainedNetwork

AS_IN_THE_PAPER = {
    "plain20": (9.0, 12.0),
    "plain32": (15.0, 18.0),
    "plain56": (40.0, 42.0),
    "resnet20": (0.4, 2.0),
    "resnet32": (0.3, 1.8),
    "resnet56": (0.2, 1.6),
}
FEW_STEPS = ("--set", "length=2 epochs", "--set", "batch_size=360", "--set", "log_every=1")
SMALL = ("--set", "model.name=resnet8")  # which this process alone knows


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def values(self) -> Any:
        """Returns the JSON on stdout, which must hold nothing else."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """Returns the cells of a table, headings first."""
        return [line.split("\t") for line in self.out.splitlines()]


class Terminal(io.StringIO):
    """A stream that says that a person reads it."""

    def isatty(self) -> bool:
        return True


def write_run(folder: Path, recipe: Recipe, *, train: float = 5.0, test: float = 6.0) -> Path:
    """Writes a finished run with these final errors."""
    (folder / "model").mkdir(parents=True)
    for name in MODEL_FILES:
        (folder / "model" / name).write_text("{}")
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    errors = {"train": train, "validation": test, "test": test}
    final: dict[str, Any] = {
        split: {"loss": 1.0, "error": error, "top5_error": 0.0, "count": 100}
        for split, error in errors.items()
    }
    final["test"]["confusion"] = [[10] * 10] * 10
    event = {"event": "final", "step": 4, "reached": False, **final}
    (folder / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    timing = {"step": 4, "seconds": 61.5, "images_per_second": 1000.0}
    (folder / "timing.jsonl").write_text(json.dumps(timing) + "\n")
    return folder


def untrained_network(recipe: Recipe) -> dict[str, bytes]:
    """Returns the files of `model/` for the network of a recipe for digits, as it was built."""
    architecture = recipe.architecture(num_classes=10, in_channels=1)
    return model_folder_files(
        TrainedNetwork(
            model=architecture.build().eval(),
            architecture=architecture,
            normalization=Normalization(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)),
            class_names=tuple("0123456789"),
            image_size=(8, 8),
            data="digits",
            origin="a network that was never trained",
        )
    )


@pytest.fixture(autouse=True)
def _in_a_fresh_folder_without_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and studies are made where a command is called; 'auto' is the same everywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def resnet(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Calls the command with some words."""

    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = run(list(words))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Calls the command as if in a terminal, and returns what a person sees."""

    def call(*words: str, columns: int = 80) -> str:
        screen = Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setattr(app, "console", Console())  # an older one keeps its width
        run(list(words))
        return screen.getvalue()

    return call


@pytest.fixture
def few_steps() -> tuple[str, ...]:
    """Returns the words that make a training of the digits one of six steps of ResNet-8.

    This process alone knows that network.
    """
    return FEW_STEPS + SMALL


@pytest.fixture
def _without_the_deepest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the networks out of the table whose layers take seconds to count."""
    for name in ("resnet1202", "plain1202", "preresnet1001"):
        monkeypatch.delitem(ARCHITECTURES, name)


@pytest.fixture(scope="session")
def digits_run(on_digits: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps of ResNet-20 on all digits, to be read and never changed."""
    return train(on_digits(), tmp_path_factory.mktemp("digits") / "run").folder


@pytest.fixture
def left_reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets a standard stream of this process be a pipe whose reader has left."""
    with ExitStack() as stack:

        def leave(name: str) -> None:
            reading, writing = os.pipe()
            os.close(reading)
            stream = stack.enter_context(os.fdopen(writing, "w", buffering=1))
            stack.callback(os.dup2, os.open(os.devnull, os.O_WRONLY), writing)
            monkeypatch.setattr(f"sys.{name}", stream)

        yield leave


@pytest.fixture
def finished_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a finished run; values by dotted key replace those of its recipe."""

    def build(
        folder: str = "runs/one", changes: dict[str, Any] | None = None, **errors: float
    ) -> Path:
        recipe = load_recipe("digits", changes)
        written = write_run(tmp_path / folder, recipe, **errors)
        for name, content in untrained_network(recipe).items():
            (written / "model" / name).write_bytes(content)
        return written

    return build


@pytest.fixture
def finished_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes every run of the quick study of degradation below 'studies'.

    Its errors are those of the paper's claims, (train, test) by network, unless others are given.
    """

    def build(errors: dict[str, tuple[float, float]] | None = None) -> Path:
        for trial in DEGRADATION.trials("quick"):
            train, test = {**AS_IN_THE_PAPER, **(errors or {})}[trial.group]
            spread = trial.recipe.seed / 10
            folder = trial_folder(tmp_path / "studies", trial.recipe)
            write_run(folder, trial.recipe, train=train + spread, test=test + spread)
        return tmp_path / "studies"

    return build
