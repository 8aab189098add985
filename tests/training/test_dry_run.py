"""A training that is only tried: what it would cost, and nothing written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnetkit.cli.app import run
from resnetkit.errors import RecipeError
from resnetkit.models.zoo import create_model
from resnetkit.training import dry_run as dry_run_module
from resnetkit.training.dry_run import dry_run
from resnetkit.training.recipe import Recipe, load_recipe

Recipes = Callable[..., Recipe]


@pytest.mark.parametrize("name", ["resnet20", "plain32"])
def test_parameters_and_steps_are_those_of_the_training(few: Recipes, name: str) -> None:
    estimate = dry_run(few({"model.name": name, "length": "14 epochs"}))
    model = create_model(name, num_classes=10, in_channels=1)
    assert estimate.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert estimate.total_steps == 14 * 3


def test_the_whole_takes_as_long_as_its_steps_and_evaluations(
    few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that ticks once at every look: a step takes 1 s, an evaluation 1 s."""
    ticks = iter(range(1000))
    monkeypatch.setattr(dry_run_module.time, "perf_counter", lambda: float(next(ticks)))
    estimate = dry_run(few({"length": "14 epochs", "evaluation.every_epochs": 2}))
    assert estimate.seconds_per_step == 1
    assert estimate.seconds == 14 * 3 + 14 / 2


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: Recipes) -> None:
    monkeypatch.chdir(tmp_path)
    dry_run(few())
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_a_process(few: Recipes) -> None:
    assert 2**26 < dry_run(few()).peak_memory_bytes < 2**36  # torch alone takes 200 MiB


def test_torch_is_left_as_it_was(few: Recipes) -> None:
    state = torch.random.get_rng_state()
    dry_run(few(), threads=2)
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "changes",
    [
        {"length": "1 steps"},
        {"ema_decay": 0.9, "gradient_clip": 1},
        {"schedule": {"kind": "one-cycle"}, "length": "1 steps"},
        {"data.train_on": "train+validation", "evaluation.split": "test"},
        {"warmup": {"kind": "until-error"}},
        {"optimizer.momentum": 0, "precision": "bfloat16"},
    ],
    ids=str,
)
def test_whatever_can_be_trained_can_be_tried(few: Recipes, changes: dict[str, object]) -> None:
    assert dry_run(few(changes)).seconds > 0


def test_what_cannot_be_trained_is_refused(few: Recipes) -> None:
    with pytest.raises(RecipeError, match="resnet50"):
        dry_run(few({"model.name": "resnet50"}))


def test_the_dry_run_of_the_command_tells_it_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    changes = ["--set", "seed=3", "--set", "length=14 epochs"]
    assert run(["train", "digits", *changes, "--out", str(folder), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    recipe = load_recipe("digits", {"seed": 3, "length": "14 epochs"})
    assert told["recipe"] == recipe.model_dump(mode="json")
    assert told["estimate"]["total_steps"] == 14 * 19
    assert told["estimate"]["parameters"] == 269_434  # He et al.'s 269,722 with one channel
    assert not folder.exists()
