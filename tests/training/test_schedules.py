"""Schedules against formulas and torch's own, warm-up, and what weight decay pulls on."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from resnetkit.models.zoo import create_model
from resnetkit.training.optimizers import parameter_groups
from resnetkit.training.recipe import load_recipe
from resnetkit.training.recipe_schema import Decay
from resnetkit.training.schedules import (
    cosine,
    linear,
    linear_warmup,
    one_cycle,
    stepwise,
)

TOTAL = 57


def factors_of_torch(make: Callable[[torch.optim.Optimizer], LRScheduler]) -> list[float]:
    """Returns the learning rates that one of torch's schedulers gives a peak of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    factors = []
    for _ in range(TOTAL):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def test_stepwise_equals_torch() -> None:
    ours = [stepwise(step, milestones=[20, 40], factor=0.2) for step in range(TOTAL)]
    theirs = factors_of_torch(lambda opt: MultiStepLR(opt, milestones=[20, 40], gamma=0.2))
    assert ours == pytest.approx(theirs)
    assert (ours[19], ours[20], ours[40]) == pytest.approx((1, 0.2, 0.04))


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_cosine_equals_torch(final: float) -> None:
    ours = [cosine(step, TOTAL, final=final) for step in range(TOTAL)]
    theirs = factors_of_torch(lambda opt: CosineAnnealingLR(opt, T_max=TOTAL, eta_min=final))
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_linear_equals_torch(final: float) -> None:
    ours = [linear(step, TOTAL, final=final) for step in range(TOTAL)]
    theirs = factors_of_torch(
        lambda opt: LinearLR(opt, start_factor=1, end_factor=final, total_iters=TOTAL)
    )
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("steps", [2, 5, 57])
def test_linear_warmup_equals_torch(steps: int) -> None:
    ours = [linear_warmup(step, steps) for step in range(TOTAL)]
    theirs = factors_of_torch(
        lambda opt: LinearLR(opt, start_factor=1 / steps, end_factor=1, total_iters=steps - 1)
    )
    assert ours == pytest.approx(theirs)


def test_a_warmup_of_one_step_changes_nothing() -> None:
    assert [linear_warmup(step, 1) for step in range(3)] == [1, 1, 1]


@given(
    total=st.integers(2, 1000),
    start=st.floats(0, 1),
    peak=st.floats(0.01, 0.99),
    final=st.floats(0, 1),
)
def test_one_cycle_is_two_straight_lines(
    total: int, start: float, peak: float, final: float
) -> None:
    steps = np.arange(total + 1)
    expected = np.interp(steps, [0, peak * total, total], [start, 1, final])
    ours = [one_cycle(int(step), total, start=start, peak=peak, final=final) for step in steps]
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


@given(total=st.integers(1, 10**6), final=st.floats(0, 1))
def test_schedules_fall_from_one_to_their_final_factor(total: int, final: float) -> None:
    for schedule in (linear, cosine):
        assert schedule(0, total, final=final) == 1
        assert schedule(total, total, final=final) == pytest.approx(final, abs=1e-12)
        middle = schedule(total // 2, total, final=final)
        assert final - 1e-12 <= middle <= 1
    assert cosine(total, 2 * total, final=final) == pytest.approx((1 + final) / 2)
    assert cosine(total, 3 * total, final=0) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)


def test_the_papers_milestones_give_the_papers_learning_rates() -> None:
    """He et al. 2015, sec. 4.2: 0.1, divided by 10 at 32k and 48k, stopped at 64k."""
    schedule = {"kind": "step", "milestones": ["32000 steps", "48000 steps"]}
    recipe = load_recipe("digits", {"schedule": schedule, "length": "64000 steps"})
    met = {
        step: 0.1 * recipe.schedule.factor_at(step, 64_000, 352)
        for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)
    }
    assert met == pytest.approx(
        {0: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 63_999: 0.001}
    )


def test_milestones_in_epochs_count_steps_of_epochs() -> None:
    schedule = {"kind": "step", "milestones": ["2 epochs"], "factor": 0.5}
    recipe = load_recipe("digits", {"schedule": schedule})
    assert recipe.schedule.factor_at(37, 100, 19) == 1
    assert recipe.schedule.factor_at(38, 100, 19) == 0.5


def names_by_group(model: nn.Module, decay: Decay) -> dict[float, set[str]]:
    """Returns the names of parameters by their weight decay; each name is met exactly once."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 1e-4, decay)
    met = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(met) == sorted(names.values())
    assert all(group["params"] for group in groups)
    return {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in groups
    }


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "preresnet20", "plain20"])
@pytest.mark.parametrize("decay", ["convolutions", "weights", "all"])
def test_weight_decay_pulls_on_what_it_names(name: str, decay: Decay) -> None:
    """Kernels have 4 dimensions, the head's weight 2, normalization and biases 1."""
    with torch.device("meta"):
        model = create_model(name)
    smallest = {"convolutions": 4, "weights": 2, "all": 1}[decay]
    decayed = {n for n, parameter in model.named_parameters() if parameter.dim() >= smallest}
    free = {n for n, _ in model.named_parameters()} - decayed
    expected = {1e-4: decayed, **({0.0: free} if free else {})}
    assert names_by_group(model, decay) == expected


def test_the_decayed_parameters_of_resnet50_are_the_53_convolutions_of_the_table() -> None:
    with torch.device("meta"):
        groups = names_by_group(create_model("resnet50"), "convolutions")
    assert len(groups[1e-4]) == 53  # 1 + 3 * 16 + 4 projections
    assert groups[0.0] >= {"fc.weight", "fc.bias", "bn1.weight", "layer1.0.downsample.1.bias"}


def test_groups_give_sgd_the_decay_of_the_paper() -> None:
    """One step on a gradient of zero shrinks convolutions, and nothing else."""
    model = create_model("resnet20")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.SGD(parameter_groups(model, 0.5, "convolutions"), lr=0.1).step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.dim() == 4 else 1
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
