"""Random numbers: a slow twin in plain integers, uniformity, and independence."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnetkit.data.randomness import (
    mix_integer,
    mix_tensor,
    random_bits,
    random_integers,
    random_normals,
    random_units,
)

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15
UNLIKELY = 1e-4  # every draw is fixed, so a good generator passes always or never

words_of_64_bits = st.integers(min_value=-(2**63), max_value=2**63 - 1)
seeds = st.integers(min_value=0, max_value=2**63 - 1)
epochs = st.integers(min_value=0, max_value=2**40)
streams = st.integers(min_value=0, max_value=2**16)


def finalised(word: int) -> int:
    """Steele, Lea and Flood 2014, figure 16, with the constants of SplitMix64."""
    word &= MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def slow_bits(sample_id: int, seed: int, epoch: int, stream: int) -> int:
    key = 0
    for part in (seed, epoch, stream):
        key = finalised((key + part + 1) * GAMMA)
    return finalised(sample_id * GAMMA + key) & (2**63 - 1)


def table_of(first: np.ndarray, second: np.ndarray, bound: int) -> np.ndarray:
    return np.bincount(first * bound + second, minlength=bound**2).reshape(bound, bound)


def assert_independent(first: torch.Tensor, second: torch.Tensor, bound: int) -> None:
    table = table_of(first.numpy(), second.numpy(), bound)
    assert stats.chi2_contingency(table).pvalue > UNLIKELY


def test_mixing_gives_the_published_numbers_of_splitmix64() -> None:
    """The first five numbers from the seed 1234567, as in Vigna's splitmix64.c."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = [(1234567 + (index + 1) * GAMMA) & MASK for index in range(5)]
    assert [mix_integer(state) for state in states] == published
    as_signed = torch.tensor([state - 2**64 if state >= 2**63 else state for state in states])
    assert [word & MASK for word in mix_tensor(as_signed).tolist()] == published


@given(
    ids=st.lists(words_of_64_bits, min_size=1, max_size=8), seed=seeds, epoch=epochs, stream=streams
)
def test_bits_equal_those_of_plain_integers(
    ids: list[int], seed: int, epoch: int, stream: int
) -> None:
    fast = random_bits(torch.tensor(ids), seed=seed, epoch=epoch, stream=stream)
    assert fast.tolist() == [slow_bits(sample_id, seed, epoch, stream) for sample_id in ids]


@given(
    sample_id=words_of_64_bits,
    bound=st.integers(min_value=1, max_value=2**31 - 1),
    seed=seeds,
    epoch=epochs,
    stream=streams,
)
def test_integers_equal_those_of_plain_integers_and_stay_below_the_bound(
    sample_id: int, bound: int, seed: int, epoch: int, stream: int
) -> None:
    (fast,) = random_integers(
        torch.tensor([sample_id]), bound, seed=seed, epoch=epoch, stream=stream
    ).tolist()
    assert 0 <= fast < bound
    assert fast == (slow_bits(sample_id, seed, epoch, stream) >> 32) * bound // 2**31


def test_a_sample_has_the_same_number_in_any_company_and_shape() -> None:
    ids = torch.arange(60)
    together = random_bits(ids, seed=1, epoch=2, stream=3)
    alone = torch.stack([random_bits(one, seed=1, epoch=2, stream=3) for one in ids])
    shaped = random_bits(ids.reshape(3, 20), seed=1, epoch=2, stream=3)
    assert torch.equal(together, alone)
    assert torch.equal(together, shaped.flatten())


@pytest.mark.parametrize("bound", [2, 3, 9, 10, 17, 81, 1000])
def test_integers_are_uniform(bound: int) -> None:
    drawn = random_integers(torch.arange(100_000), bound, seed=0, epoch=0, stream=1)
    counts = np.bincount(drawn.numpy(), minlength=bound)
    assert len(counts) == bound
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_integers_of_the_largest_bound_are_uniform() -> None:
    bound = 2**31 - 1
    drawn = random_integers(torch.arange(100_000), bound, seed=0, epoch=0, stream=1)
    assert stats.kstest(drawn.numpy() / bound, "uniform").pvalue > UNLIKELY


def test_one_sample_gets_uniform_integers_over_epochs() -> None:
    drawn = [
        random_integers(torch.tensor([7]), 9, seed=0, epoch=epoch, stream=1).item()
        for epoch in range(4_500)
    ]
    assert stats.chisquare(np.bincount(drawn, minlength=9)).pvalue > UNLIKELY


def test_every_one_of_the_63_bits_is_set_half_of_the_time() -> None:
    drawn = random_bits(torch.arange(20_000), seed=3, epoch=1, stream=0)
    shares = [((drawn >> bit) & 1).sum().item() for bit in range(63)]
    assert all(stats.binomtest(count, 20_000).pvalue > UNLIKELY for count in shares)
    assert (drawn >= 0).all()


@pytest.mark.parametrize("other", [{"stream": 2}, {"epoch": 1}, {"seed": 1}])
def test_streams_epochs_and_seeds_are_independent(other: dict[str, int]) -> None:
    ids = torch.arange(40_000)
    key = {"seed": 0, "epoch": 0, "stream": 1}
    first = random_integers(ids, 9, **key)
    second = random_integers(ids, 9, **{**key, **other})
    assert_independent(first, second, 9)


def test_neighbouring_samples_are_independent() -> None:
    drawn = random_integers(torch.arange(40_001), 9, seed=0, epoch=0, stream=1)
    assert_independent(drawn[:-1], drawn[1:], 9)


def test_seed_epoch_and_stream_cannot_stand_for_each_other() -> None:
    """(1, 0, 0), (0, 1, 0) and (0, 0, 1) are different keys, not one sum."""
    ids = torch.arange(64)
    drawn = [
        tuple(random_bits(ids, seed=seed, epoch=epoch, stream=stream).tolist())
        for seed in range(3)
        for epoch in range(3)
        for stream in range(3)
    ]
    assert len(set(drawn)) == 27


def test_units_and_normals_are_distributed_as_they_should_be() -> None:
    ids = torch.arange(20_000)
    units = random_units(ids, seed=1, epoch=2, stream=3).numpy()
    normals = random_normals(ids, seed=1, epoch=2, stream=3).numpy()
    assert units.min() >= 0
    assert units.max() < 1
    assert stats.kstest(units, "uniform").pvalue > 1e-4
    assert stats.kstest(normals, "norm").pvalue > 1e-4
    again = random_normals(ids[5:9], seed=1, epoch=2, stream=3).numpy()
    np.testing.assert_array_equal(again, normals[5:9])
