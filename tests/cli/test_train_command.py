"""resnet train and resnet recipes: what is said, written and gone on with."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resnetkit.cli.recipe_choice import checked_threads
from resnetkit.runtime.process_group import World
from resnetkit.training import recipe as recipe_module
from resnetkit.training.dry_run import DryRun
from resnetkit.training.recipe import Recipe, load_recipe, named_recipes
from resnetkit.training.run_folder import find_runs, read_run

Resnet = Callable[..., Any]
Words = tuple[str, ...]
Reader = Callable[[Path], dict[str, bytes]]
SHORT = {  # what the words few_steps say
    "length": "2 epochs",
    "batch_size": 360,
    "log_every": 1,
    "model.name": "resnet8",
}
OF_THE_PAPER = ("--set", "model.name=resnet20")


@pytest.fixture
def _short_digits(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makes the default recipe one of six steps."""
    text = load_recipe("digits", SHORT).to_yaml()
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "digits.yaml").write_text(f"# A few steps\n{text}")
    monkeypatch.setattr(recipe_module, "recipe_folder", lambda: folder)


@pytest.mark.usefixtures("_short_digits")
def test_without_options_the_default_recipe_is_trained(resnet: Resnet, tmp_path: Path) -> None:
    answer = resnet("train")
    assert answer.code == 0
    (run,) = find_runs(tmp_path)
    assert run.recipe == load_recipe("digits")
    assert run.folder == tmp_path / "runs" / f"resnet8-digits-seed0-{run.recipe.digest[:8]}"
    assert run.final is not None
    assert answer.out.splitlines() == [
        f"{split} error {run.final.scores[split].error:.2f} % of {count} images"
        for split, count in (("train", "1,259"), ("validation", "179"), ("test", "359"))
    ]
    assert "6 steps on cpu, 1 thread(s), float32" in answer.err
    assert [line for line in answer.err.splitlines() if line.startswith("epoch ")][1:]
    assert f"'resnet report runs/{run.folder.name}'" in answer.err


def test_a_finished_run_is_shown_and_not_touched(
    resnet: Resnet, finished_run: Callable[..., Path], contents: Reader
) -> None:
    folder = finished_run(test=12.5)
    before = contents(folder)
    answer = resnet("train", "digits", "--out", "runs/one")
    assert answer.code == 0
    assert "test error 12.50 % of 100 images\n" in answer.out
    assert {
        name: content for name, content in contents(folder).items() if name != ".lock"
    } == before


def test_values_are_replaced_and_kept(resnet: Resnet, few_steps: Words, tmp_path: Path) -> None:
    words = ("--set", "optimizer.lr=1e-3", "--set", "model.options.shortcut=C")
    answer = resnet("train", *few_steps, *words, "--set", "seed=1", "--set", "seed=2", "--json")
    (run,) = find_runs(tmp_path)
    assert run.recipe.optimizer.lr == 0.001
    assert run.recipe.model.options == {"shortcut": "C"}
    assert run.recipe.seed == 2
    assert run.final is not None
    assert tmp_path / answer.values["folder"] == run.folder
    assert answer.values["recipe_sha256"] == run.recipe.digest
    for split in ("train", "validation", "test"):
        expected = asdict(run.final.scores[split])
        assert answer.values[split] == expected


def test_any_folder_and_any_recipe_file_will_do(
    resnet: Resnet, few_steps: Words, tmp_path: Path
) -> None:
    recipe = load_recipe("digits", {"seed": 5})
    (tmp_path / "my r\u00e9cipe.yaml").write_text(recipe.to_yaml())
    words = ("my r\u00e9cipe.yaml", "--out", "deep er/r\u00fcn", *few_steps)
    assert resnet("train", *words).code == 0
    assert read_run(tmp_path / "deep er" / "r\u00fcn").recipe.seed == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_goes_on_and_ends_alike(
    resnet: Resnet,
    few_steps: Words,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    results: Reader,
    number: signal.Signals,
    code: int,
) -> None:
    def stop(*_: object) -> str:
        signal.raise_signal(number)
        return "the first epoch is over"

    with monkeypatch.context() as patched:
        patched.setattr("resnetkit.cli.training_output.epoch_text", stop)
        answer = resnet("train", *few_steps, "--out", "stopped")
    assert (answer.code, answer.out) == (code, "")
    *_, last = answer.err.splitlines()
    assert last == (
        "resnet: stopped after step 3 of 6; everything is saved in stopped."
        " The same command resumes from there."
    )
    assert read_run(tmp_path / "stopped").final is None
    again = resnet("train", *few_steps, "--out", "stopped")
    assert "from step 3, 6 steps on cpu" in again.err
    assert again.out == resnet("train", *few_steps, "--out", "whole").out
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_dry_run_writes_nothing(resnet: Resnet, few_steps: Words, tmp_path: Path) -> None:
    answer = resnet("train", "--dry-run", *few_steps, *OF_THE_PAPER)
    assert answer.code == 0
    assert list(tmp_path.iterdir()) == []
    assert "269,434 parameters, 6 steps of " in answer.err
    assert "Nothing was written." in answer.err
    path = tmp_path / "resolved.yaml"
    path.write_text(answer.out)
    assert load_recipe(str(path)) == load_recipe("digits", {**SHORT, "model.name": "resnet20"})


def test_machines_get_the_recipe_and_the_estimate(resnet: Resnet, few_steps: Words) -> None:
    values = resnet("train", "--dry-run", *few_steps, *OF_THE_PAPER, "--json").values
    recipe = load_recipe("digits", {**SHORT, "model.name": "resnet20"})
    assert values["recipe"] == recipe.model_dump(mode="json")
    estimate = values["estimate"]
    assert (estimate["parameters"], estimate["total_steps"]) == (269_434, 6)
    assert 0 < estimate["seconds_per_step"] < estimate["seconds"] < 60
    assert estimate["peak_memory_bytes"] > 1e8


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_first_prints(
    resnet: Resnet,
    terminal: Callable[..., str],
    few_steps: Words,
    monkeypatch: pytest.MonkeyPatch,
    rank: int,
) -> None:
    @contextmanager
    def joined(device: str) -> Iterator[World]:
        yield World(rank, 2, torch.device("cpu"))

    devices = []

    def estimate(recipe: Recipe, *, device: str, threads: int) -> DryRun:
        devices.append(device)
        return DryRun(1, 2, 0.5, 1.0, 2**30)

    monkeypatch.setattr("resnetkit.runtime.process_group.open_world", joined)
    monkeypatch.setattr("resnetkit.training.dry_run.dry_run", estimate)
    monkeypatch.setattr(
        "resnetkit.training.loop.train", lambda *words, **options: SimpleNamespace(final=None)
    )
    words = ("train", *few_steps, "--micro-batch", "40")
    answer = resnet(*words, "--dry-run")
    assert answer.code == 0
    assert ("batch_size: 360" in answer.out) == ("1 parameters, 2 steps of" in answer.err)
    assert bool(answer.out) == bool(answer.err) == (rank == 0)
    assert devices == ["auto"]  # as the user says it: 'cuda' is another GPU for each process
    assert bool(terminal(*words)) == (rank == 0)


def test_a_terminal_gets_a_bar_and_the_result(
    few_steps: Words, terminal: Callable[..., str]
) -> None:
    shown = terminal("train", *few_steps, "--out", "one", columns=140)
    assert "resnet8-digits-seed0" in shown
    assert "images/s" in shown
    assert "100%" in shown
    assert "test error " in shown
    assert "epoch 1 " not in shown  # the bar says it


def test_no_color_is_respected(
    terminal: Callable[..., str],
    finished_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finished_run()
    words = ("train", "digits", "--out", "runs/one")
    color = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m]")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert color.search(terminal(*words))
    monkeypatch.setenv("NO_COLOR", "1")
    shown = terminal(*words)
    assert "resnet20-digits-seed0" in shown
    assert not color.search(shown)


def test_recipes_are_listed_with_their_headline(resnet: Resnet) -> None:
    answer = resnet("recipes")
    assert (answer.code, answer.err) == (0, "")
    listed = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
    assert set(listed) == set(named_recipes()) >= {"digits", "digits-study"}
    assert listed["digits"].startswith("ResNet-20 on scikit-learn's 1,797 scanned digits")
    assert resnet("recipes", "--json").values == listed


@pytest.mark.parametrize("name", list(named_recipes()))
def test_a_recipe_is_printed_as_it_is_written(resnet: Resnet, name: str) -> None:
    assert resnet("recipes", name).out == named_recipes()[name].read_text()
    resolved = resnet("recipes", name, "--json").values
    assert resolved == load_recipe(name).model_dump(mode="json")
    assert json.dumps(resolved)


def test_an_unknown_recipe_names_the_nearest(resnet: Resnet) -> None:
    for words in (("recipes", "digts"), ("recipes", "digts", "--json"), ("train", "digts")):
        answer = resnet(*words)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("resnet: unknown recipe 'digts': expected one of ")
        assert answer.err.endswith(" Did you mean 'digits'?\n")


def test_threads_that_the_process_may_not_use_are_left_out_and_named(
    resnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetkit.runtime.resources.usable_processors", lambda: 1)
    words = ("--set", "length=2 steps", "--set", "log_every=1", "--device", "cpu")
    said = resnet("train", "digits", *words, "--threads", "8", "--out", "eight")
    assert said.code == 0
    assert "--threads 8: this process may use 1 processor(s), so 1 thread(s) compute" in said.err
    environment = json.loads(Path("eight/environment.json").read_text())
    assert environment[0]["hardware"]["threads"] == 1


def test_the_first_rank_alone_names_threads_that_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetkit.runtime.resources.usable_processors", lambda: 1)
    for rank in range(3):
        assert checked_threads(8, World(rank, 3, torch.device("cpu"))) == 1
    assert capsys.readouterr().err.count("--threads 8") == 1
