"""Snapshots of a run: the kept checkpoints, as networks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnetkit.errors import WeightsError
from resnetkit.probes.snapshots import snapshots
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]


def test_each_kept_checkpoint_is_a_network(tiny: Recipes, tmp_path: Path) -> None:
    run = train(tiny({"checkpoint.keep": 9}), tmp_path / "run")
    found = dict(snapshots(run))
    assert list(found) == [2, 4, 6]
    finished = load_network(run.folder)
    last = found[6].model.state_dict()
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(last[name], tensor)
    assert not torch.equal(found[2].model.fc.weight, found[6].model.fc.weight)
    assert not found[2].model.training
    assert found[2].class_names == finished.class_names


def test_snapshots_are_spread_over_the_training(tiny: Recipes, tmp_path: Path) -> None:
    recipe = tiny({"checkpoint.snapshots": 2, "checkpoint.every": "1 steps"})
    run = train(recipe, tmp_path / "run")
    found = dict(snapshots(run))
    assert list(found) == [0, 3, 6]
    untrained = found[0].architecture.build(torch.Generator().manual_seed(recipe.seed))
    assert torch.equal(found[0].model.fc.weight, untrained.fc.weight)
    plain = train(tiny(), tmp_path / "plain")  # they change nothing in the training
    assert (run.model / "model.safetensors").read_bytes() == (
        plain.model / "model.safetensors"
    ).read_bytes()


def test_an_unfinished_or_damaged_run_is_refused(tiny: Recipes, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        next(snapshots(Run(tmp_path / "none", tiny())))
    run = train(tiny(), tmp_path / "run")
    (run.checkpoints / "step-6" / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged"):
        next(snapshots(run))
