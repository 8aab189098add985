"""What is chosen for a given time, from seconds that nobody measured."""

from dataclasses import replace

import pytest

from resnetkit.training.time_budget import (
    Candidate,
    EpochRange,
    ReadCost,
    StepCost,
    Workload,
    plan_training,
    scaled_costs,
)

WORK = Workload(train=800, validation=100, test=100, checked=1_000, batch_size=32)
READ = ReadCost(check=0.004, crop=0.002, cached_crop=0.001)
LARGE, MIDDLE, SMALL = Candidate("deep", 224), Candidate("deep", 64), Candidate("shallow", 32)
STEPS = {
    LARGE: StepCost(per_image=0.3, update=0.04, save=1.0),
    MIDDLE: StepCost(per_image=0.03, update=0.04, save=1.0),
    SMALL: StepCost(per_image=0.003, update=0.004, save=0.1),
}
EPOCHS = EpochRange(fewest=3, enough=10, most=60)


def test_the_prediction_is_the_sum_of_what_a_training_does() -> None:
    plan = plan_training(
        replace(WORK, can_cache=False), READ, {MIDDLE: STEPS[MIDDLE]}, EPOCHS, seconds=400
    )
    evaluated = 0.03 / 3 + 0.002
    epoch = 800 * (0.03 + 0.002) + 25 * 0.04 + 100 * evaluated + 1.0
    around = 1_000 * 0.004 + 800 * 0.002 + 1_000 * evaluated + 1.0
    assert plan.epoch_seconds == pytest.approx(epoch)
    assert plan.epochs == int((400 - around) / epoch)
    assert plan.seconds == pytest.approx(around + plan.epochs * epoch)
    assert plan.fits
    assert plan.seconds <= 400 < plan.seconds + epoch


@pytest.mark.parametrize(
    ("seconds", "chosen", "fits"),
    [
        (1, SMALL, False),
        (60, SMALL, True),
        (400, MIDDLE, True),
        (2_000, MIDDLE, True),
        (3_000, LARGE, True),
        (10**6, LARGE, True),
    ],
)
def test_the_largest_that_leaves_enough_epochs_is_chosen(
    seconds: float, chosen: Candidate, fits: bool
) -> None:
    plan = plan_training(WORK, READ, STEPS, EPOCHS, seconds=seconds)
    assert (plan.candidate, plan.fits) == (chosen, fits)
    assert plan.fits == (plan.seconds <= seconds)
    larger = list(STEPS)[: list(STEPS).index(chosen)]
    assert (plan.passed_over is None) == (not larger)
    if plan.passed_over is not None:
        candidate, epochs = plan.passed_over
        assert candidate == larger[-1]
        assert epochs < EPOCHS.enough


def test_the_number_of_epochs_has_limits() -> None:
    assert plan_training(WORK, READ, STEPS, EPOCHS, seconds=1).epochs == EPOCHS.fewest
    assert plan_training(WORK, READ, STEPS, EPOCHS, seconds=10**6).epochs == EPOCHS.most
    fixed = EpochRange(7, 7, 7)
    for seconds in (1, 100, 2_500, 10**6):
        assert plan_training(WORK, READ, STEPS, fixed, seconds=seconds).epochs == 7


def test_more_time_never_leads_to_a_shorter_training() -> None:
    plans = [plan_training(WORK, READ, STEPS, EPOCHS, seconds=s) for s in range(30, 5_000, 10)]
    order = list(STEPS)[::-1]
    keys = [(order.index(plan.candidate), plan.epochs) for plan in plans]
    assert keys == sorted(keys)
    assert all(plan.fits for plan in plans)


@pytest.mark.parametrize(
    ("changes", "crop", "is_cached"),
    [
        ({}, 0.0011, False),  # decoding costs hardly more than the cache
        ({}, 0.05, True),
        ({"can_cache": False}, 0.05, False),
        ({"must_cache": True}, 0.0011, True),
        ({"overlaps": True}, 0.02, False),  # decoded while the network computes
    ],
)
def test_decoded_images_are_kept_where_that_saves_time(
    changes: dict[str, bool], crop: float, is_cached: bool
) -> None:
    work, read = replace(WORK, **changes), replace(READ, crop=crop)  # type: ignore[arg-type]
    plan = plan_training(work, read, {MIDDLE: STEPS[MIDDLE]}, EPOCHS, seconds=600)
    assert plan.is_cached == is_cached


def test_ranks_share_the_images() -> None:
    alone, both = (
        plan_training(replace(WORK, ranks=n), READ, {MIDDLE: STEPS[MIDDLE]}, EPOCHS, seconds=600)
        for n in (1, 2)
    )
    assert alone.epochs < both.epochs <= 2 * alone.epochs


def test_image_sizes_that_were_not_timed_are_scaled_by_their_multiply_adds() -> None:
    measured = {MIDDLE: STEPS[MIDDLE], SMALL: STEPS[SMALL]}
    candidates = [LARGE, Candidate("deep", 65), MIDDLE, SMALL]
    costs = scaled_costs(measured, candidates, lambda candidate: candidate.image_size**2)
    assert list(costs) == candidates
    assert costs[LARGE].per_image == pytest.approx(0.03 * (224 / 64) ** 2)
    assert (costs[LARGE].update, costs[LARGE].save) == (0.04, 1.0)
    assert {candidate: costs[candidate] for candidate in measured} == measured
    measured[LARGE] = STEPS[LARGE]
    assert scaled_costs(measured, [LARGE], lambda _: 1)[LARGE] == STEPS[LARGE]
