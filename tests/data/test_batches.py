"""The order of an epoch: permutations, batches of ranks, and resuming at any step."""

from contextlib import suppress
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from resnetkit.data.batches import Batch, TrainingBatches, epoch_order, evaluation_batches
from resnetkit.data.draws import Draws
from resnetkit.errors import RecipeError
from resnetkit.runtime.process_group import World
from resnetkit.training.checks import check_batch_fit
from resnetkit.training.recipe import load_recipe

UNLIKELY = 1e-4
SAMPLES = torch.arange(1000, 1103)  # 103 samples whose ids do not begin at 0


def as_plain(batch: Batch) -> tuple[int, int, list[int], list[int], bool]:
    return (
        batch.step,
        batch.epoch,
        batch.sample_ids.tolist(),
        batch.local_ids.tolist(),
        batch.ends_epoch,
    )


def ids_of_epoch(batches: TrainingBatches, epoch: int) -> Tensor:
    steps = batches.steps_per_epoch
    met = batches.between(epoch * steps, (epoch + 1) * steps)
    return torch.cat([batch.sample_ids for batch in met])


@given(
    count=st.integers(1, 200),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
)
def test_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    ids = torch.arange(count) * 3 + 5
    assert epoch_order(Draws(ids, seed, epoch)).sort().values.tolist() == ids.tolist()


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_other_epochs_and_seeds_have_other_orders(other: dict[str, int]) -> None:
    key = {"seed": 0, "epoch": 0}
    first, second = (epoch_order(Draws(SAMPLES, **{**key, **changes})) for changes in ({}, other))
    assert (first == second).sum() < 10
    assert abs(stats.spearmanr(first, second).statistic) < 0.4


def test_a_sample_comes_at_every_position_equally_often_over_epochs() -> None:
    ids = torch.arange(10)
    positions = [int((epoch_order(Draws(ids, 2, epoch)) == 0).nonzero()) for epoch in range(1_000)]
    assert stats.chisquare(np.bincount(positions, minlength=10)).pvalue > UNLIKELY


def test_an_epoch_shows_no_sample_twice_in_full_batches() -> None:
    batches = TrainingBatches(SAMPLES, 10, seed=0)
    assert batches.steps_per_epoch == 10
    met = list(batches.between(0, 10))
    assert [len(batch.sample_ids) for batch in met] == [10] * 10
    assert [batch.ends_epoch for batch in met] == [False] * 9 + [True]
    seen = ids_of_epoch(batches, 0).tolist()
    assert len(set(seen)) == 100
    assert set(seen) < set(SAMPLES.tolist())


def test_the_samples_that_sit_an_epoch_out_are_others_each_time() -> None:
    """Of 103 samples 3 sit out, so each misses about 17.5 of 600 epochs."""
    batches = TrainingBatches(SAMPLES, 10, seed=0)
    missed = np.zeros(103)
    for epoch in range(600):
        absent = set(SAMPLES.tolist()) - set(ids_of_epoch(batches, epoch).tolist())
        assert len(absent) == 3
        missed[[sample_id - 1000 for sample_id in absent]] += 1
    assert missed.min() > 0
    assert stats.chisquare(missed).pvalue > UNLIKELY


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    start=st.integers(0, 40),
    length=st.integers(0, 20),
    ranks=st.integers(1, 3),
)
@settings(deadline=None, max_examples=40)
def test_any_start_gives_the_tail_of_all_batches(
    count: int, batch_size: int, start: int, length: int, ranks: int
) -> None:
    batches = TrainingBatches(torch.arange(count), batch_size, seed=7, rank=ranks - 1, ranks=ranks)
    whole = [as_plain(batch) for batch in batches.between(0, start + length)]
    assert [batch[0] for batch in whole] == list(range(start + length))
    tail = [as_plain(batch) for batch in batches.between(start, start + length)]
    assert tail == whole[start:]


def test_batches_follow_the_order_of_their_epoch() -> None:
    batches = TrainingBatches(SAMPLES, 10, seed=4)
    for epoch in (0, 3):
        order = epoch_order(Draws(SAMPLES, 4, epoch))
        assert ids_of_epoch(batches, epoch).tolist() == order[:100].tolist()


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_together_see_exactly_the_batches_of_one(ranks: int) -> None:
    alone = TrainingBatches(SAMPLES, 30, seed=1)
    shared = [replace(alone, rank=rank, ranks=ranks) for rank in range(ranks)]
    for one, *batches_of_ranks in zip(
        *(batches.between(2, 9) for batches in (alone, *shared)), strict=True
    ):
        assert one.local_ids.tolist() == one.sample_ids.tolist()
        assert all(
            batch.sample_ids.tolist() == one.sample_ids.tolist() for batch in batches_of_ranks
        )
        ids_of_ranks = [batch.local_ids.tolist() for batch in batches_of_ranks]
        assert all(len(ids) == 30 // ranks for ids in ids_of_ranks)
        assert sorted(chain.from_iterable(ids_of_ranks)) == sorted(one.sample_ids.tolist())


def test_a_data_set_smaller_than_a_batch_is_one_batch() -> None:
    (batch,) = TrainingBatches(SAMPLES, 500, seed=0).between(3, 4)
    assert batch.epoch == 3
    assert batch.ends_epoch
    assert sorted(batch.sample_ids.tolist()) == SAMPLES.tolist()


def test_ranks_get_equal_numbers_when_the_data_set_is_smaller_than_a_batch() -> None:
    recipe = load_recipe("digits", {"batch_size": 500})
    sizes = {1}
    with suppress(RecipeError):
        check_batch_fit(recipe, len(SAMPLES), World(0, 2, torch.device("cpu")))
        sizes = {
            len(next(TrainingBatches(SAMPLES, 500, 0, rank=rank, ranks=2).between(0, 1)).local_ids)
            for rank in range(2)
        }
    assert len(sizes) == 1


@given(count=st.integers(0, 50), batch_size=st.integers(1, 60), ranks=st.integers(1, 7))
def test_evaluation_meets_every_sample_exactly_once_over_all_ranks(
    count: int, batch_size: int, ranks: int
) -> None:
    ids = torch.arange(count) * 2
    met: list[int] = []
    for rank in range(ranks):
        for batch in evaluation_batches(ids, batch_size, rank=rank, ranks=ranks):
            assert len(batch) <= batch_size
            met += batch.tolist()
    assert sorted(met) == ids.tolist()
