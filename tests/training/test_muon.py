"""Muon against its definition by singular values, and in a whole training."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resnetkit.errors import RecipeError
from resnetkit.runtime.process_group import World
from resnetkit.training.events import IntervalEvent
from resnetkit.training.loop import train
from resnetkit.training.muon import Muon, orthogonal
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import read_run
from resnetkit.training.setup import prepare

Recipes = Callable[..., Recipe]
WORLD = World(0, 1, torch.device("cpu"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 144, 16), (1, 32, 32)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = random(*shape)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices)
    inside = left.mT @ found @ right.mT  # diagonal when the singular vectors are the same
    values = inside.diagonal(dim1=1, dim2=2)
    assert (inside - torch.diag_embed(values)).abs().max() < 1e-3
    wide = values if shape[1] != shape[2] else values[:, :-3]  # tiny values take more rounds
    assert wide.min() > 0.6
    assert wide.max() < 1.3


def quintic_five_times(matrices: Tensor) -> Tensor:
    """The iteration as Jordan et al. 2024 write it, for matrices that are not tall."""
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def decaying(rows: int, columns: int, power: float) -> Tensor:
    """A matrix with singular values 1, 2 ** -power, 3 ** -power, ..., as momentum has them."""
    left, _ = torch.linalg.qr(random(rows, rows))
    right, _ = torch.linalg.qr(random(columns, rows, seed=1))
    values = torch.arange(1, rows + 1).float() ** -power
    return (left * values @ right.mT)[None]


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_sharing_products_changes_nothing_but_rounding(power: float) -> None:
    matrices = decaying(64, 576, power)
    torch.testing.assert_close(orthogonal(matrices), quintic_five_times(matrices))


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_no_direction_grows_in_bfloat16(power: float) -> None:
    """Rounding makes tiny eigenvalues of x @ x.mT negative, and the quintic lets those grow."""
    matrices = decaying(256, 1024, power)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = orthogonal(matrices).float()
    exact = quintic_five_times(matrices)
    assert torch.linalg.matrix_norm(rounded, 2).max() < 1.25
    assert (rounded - exact).norm() < 0.2 * exact.norm()


def test_bfloat16_is_exact_enough() -> None:
    """What autocast computes points where the exact step points, with about its length."""
    weights = [nn.Parameter(random(64, 64, 3, 3)) for _ in range(2)]
    for weight, enabled in zip(weights, (False, True), strict=True):
        weight.grad = random(64, 64, 3, 3, seed=1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            Muon([weight], lr=0.1, momentum=0.6).step()
    before = random(64, 64, 3, 3)
    before *= 64**0.5 / before.norm()
    exact, rounded = ((weight.detach() - before).flatten() for weight in weights)
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.999
    assert rounded.norm() / exact.norm() == pytest.approx(1, abs=0.05)


def test_the_length_of_a_gradient_does_not_matter() -> None:
    matrices = random(2, 16, 144)
    torch.testing.assert_close(orthogonal(matrices), orthogonal(1000 * matrices))
    assert torch.isfinite(orthogonal(torch.zeros(1, 4, 4))).all()


def test_two_steps_are_the_definition() -> None:
    """One weight at a time, with an exact decomposition in the place of the iteration."""
    lr, momentum = 0.05, 0.6
    weights = [nn.Parameter(random(16, 16, 3, 3, seed=k)) for k in range(3)]
    weights[1].data = weights[1].data.contiguous(memory_format=torch.channels_last)
    slow = [weight.detach().clone() for weight in weights]
    velocities = [torch.zeros_like(weight) for weight in slow]
    optimizer = Muon(weights, lr=lr, momentum=momentum)
    for step in range(2):
        for k, weight in enumerate(weights):
            weight.grad = random(16, 16, 3, 3, seed=10 * step + k)
        optimizer.step()
        for k in range(3):
            gradient = random(16, 16, 3, 3, seed=10 * step + k)
            velocities[k] = momentum * velocities[k] + gradient
            ahead = (gradient + momentum * velocities[k]).flatten(1)
            left, _, right = torch.linalg.svd(ahead, full_matrices=False)
            slow[k] = slow[k] * (16**0.5 / slow[k].norm())
            exact = slow[k] - lr * (left @ right).view_as(slow[k])
            moved = (weights[k] - slow[k]).flatten()
            assert torch.cosine_similarity(moved, (exact - slow[k]).flatten(), dim=0) > 0.97
            assert 0.7 < moved.norm() / (lr * 16**0.5) < 1.2
            slow[k] = weights[k].detach().clone()  # errors do not add up
            torch.testing.assert_close(
                optimizer.state[weights[k]]["momentum_buffer"], velocities[k]
            )


def test_a_weight_without_gradient_stays() -> None:
    weight = nn.Parameter(random(16, 16, 3, 3))
    before = weight.detach().clone()
    Muon([weight], lr=0.1, momentum=0.6).step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("where", "left"), [("blocks", {"conv1.weight"}), ("convolutions", set())], ids=str
)
def test_it_learns_the_convolutions_of_a_recipe(where: str, left: set[str], tiny: Recipes) -> None:
    changes = {"optimizer.muon_lr": 0.05, "optimizer.muon_on": where}
    _, start = prepare(tiny({**changes, "model.options.shortcut": "B"}), WORLD)
    descent, muon = start.optimizers
    names = {parameter: name for name, parameter in start.parameters.items()}
    learned = {names[p] for p in muon.param_groups[0]["params"]}
    rest = {names[p] for group in descent.param_groups for p in group["params"]}
    assert learned | rest == set(start.parameters)
    assert not learned & rest
    assert {name for name in rest if start.parameters[name].dim() == 4} == left
    assert "layer2.0.downsample.0.weight" in learned
    assert len(prepare(tiny(), WORLD)[1].optimizers) == 1


def test_its_rate_follows_the_schedule(tiny: Recipes, tmp_path: Path) -> None:
    recipe = tiny({"optimizer.muon_lr": 0.05, "optimizer.lr": 0.2})
    _, start = prepare(recipe, WORLD)
    shares = [group["lr_scale"] for o in start.optimizers for group in o.param_groups]
    assert shares == [1.0, 1.0, 0.25]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_with_it_learns(precision: str, on_digits: Recipes, tmp_path: Path) -> None:
    changes = {"optimizer.muon_lr": 0.05, "length": "3 epochs", "log_every": 10}
    recipe = on_digits({**changes, "precision": precision})
    run = train(recipe, tmp_path / "run")
    losses = [event.loss for event in run.intervals]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("where", ["blocks", "convolutions"])
def test_an_interrupted_training_with_it_ends_the_same(
    where: str, tiny: Recipes, tmp_path: Path, results: Callable[[Path], dict[str, bytes]]
) -> None:
    recipe = tiny({"optimizer.muon_lr": 0.05, "optimizer.muon_on": where})
    train(recipe, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(event: dict[str, object]) -> None:
        if isinstance(event, IntervalEvent) and event.step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, tmp_path / "cut", observe=stop)
    assert read_run(tmp_path / "cut").final is None
    train(recipe, tmp_path / "cut")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_where_it_is_off_it_has_no_convolutions(tiny: Recipes) -> None:
    with pytest.raises(RecipeError, match=r"muon_on needs a muon_lr above 0"):
        tiny({"optimizer.muon_on": "convolutions"})


def test_with_statistics_that_stay_it_is_refused(tiny: Recipes) -> None:
    with pytest.raises(RecipeError, match=r"frozen_norm keeps the statistics .*muon_lr changes"):
        prepare(tiny({"optimizer.muon_lr": 0.1, "finetune.frozen_norm": True}), WORLD)


def test_without_normalization_it_is_refused(tiny: Recipes) -> None:
    with pytest.raises(RecipeError, match=r"optimizer\.muon_lr needs batch normalization"):
        prepare(tiny({"optimizer.muon_lr": 0.1, "model.options.norm": "none"}), WORLD)


def test_a_copy_of_the_optimizer_remembers(tiny: Recipes) -> None:
    weight = nn.Parameter(random(16, 16, 3, 3))
    optimizer = Muon([weight], lr=0.1, momentum=0.6)
    weight.grad = random(16, 16, 3, 3, seed=1)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    again = Muon([weight], lr=0.1, momentum=0.6)
    again.load_state_dict(state)
    torch.testing.assert_close(
        again.state[weight]["momentum_buffer"], optimizer.state[weight]["momentum_buffer"]
    )
