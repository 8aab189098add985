"""Random numbers: a slow twin in plain integers, uniformity, and independence."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnetkit.data.draws import Draws, Stream, mix_integer, mix_tensor

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15
UNLIKELY = 1e-4  # every draw is fixed, so a good generator passes always or never

words_of_64_bits = st.integers(min_value=-(2**63), max_value=2**63 - 1)
seeds = st.integers(min_value=0, max_value=2**63 - 1)
epochs = st.integers(min_value=0, max_value=2**40)
streams = st.sampled_from(list(Stream))


def finalized(word: int) -> int:
    """Steele, Lea and Flood 2014, figure 16, with the constants of SplitMix64."""
    word &= MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def slow_bits(sample_id: int, seed: int, epoch: int, number: int) -> int:
    key = 0
    for part in (seed, epoch, number):
        key = finalized((key + part + 1) * GAMMA)
    return finalized(sample_id * GAMMA + key) & (2**63 - 1)


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
    ids: list[int], seed: int, epoch: int, stream: Stream
) -> None:
    for index, number in enumerate(stream.value):
        fast = Draws(torch.tensor(ids), seed, epoch).bits(stream, index)
        assert fast.tolist() == [slow_bits(sample_id, seed, epoch, number) for sample_id in ids]


@given(
    sample_id=words_of_64_bits,
    bound=st.integers(min_value=1, max_value=2**31 - 1),
    seed=seeds,
    epoch=epochs,
    stream=streams,
)
def test_integers_equal_those_of_plain_integers_and_stay_below_the_bound(
    sample_id: int, bound: int, seed: int, epoch: int, stream: Stream
) -> None:
    (fast,) = Draws(torch.tensor([sample_id]), seed, epoch).integers(stream, bound).tolist()
    assert 0 <= fast < bound
    assert fast == (slow_bits(sample_id, seed, epoch, stream.value[0]) >> 32) * bound // 2**31


def test_a_sample_has_the_same_number_in_any_company_and_shape() -> None:
    ids = torch.arange(60)
    together = Draws(ids, 1, 2).bits(Stream.FLIP)
    alone = torch.stack([Draws(one, 1, 2).bits(Stream.FLIP) for one in ids])
    shaped = Draws(ids.reshape(3, 20), 1, 2).bits(Stream.FLIP)
    assert torch.equal(together, alone)
    assert torch.equal(together, shaped.flatten())


@pytest.mark.parametrize("bound", [2, 3, 9, 10, 17, 81, 1000])
def test_integers_are_uniform(bound: int) -> None:
    drawn = Draws(torch.arange(100_000), 0).integers(Stream.ROW, bound)
    counts = np.bincount(drawn.numpy(), minlength=bound)
    assert len(counts) == bound
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_integers_of_the_largest_bound_are_uniform() -> None:
    bound = 2**31 - 1
    drawn = Draws(torch.arange(100_000), 0).integers(Stream.ROW, bound)
    assert stats.kstest(drawn.numpy() / bound, "uniform").pvalue > UNLIKELY


def test_one_sample_gets_uniform_integers_over_epochs() -> None:
    drawn = [
        Draws(torch.tensor([7]), 0, epoch).integers(Stream.ROW, 9).item() for epoch in range(1_800)
    ]
    assert stats.chisquare(np.bincount(drawn, minlength=9)).pvalue > UNLIKELY


def test_every_one_of_the_63_bits_is_set_half_of_the_time() -> None:
    drawn = Draws(torch.arange(20_000), 3, 1).bits(Stream.ORDER)
    counts = [((drawn >> bit) & 1).sum().item() for bit in range(63)]
    assert all(stats.binomtest(count, 20_000).pvalue > UNLIKELY for count in counts)
    assert (drawn >= 0).all()


@pytest.mark.parametrize(
    ("stream", "epoch", "seed"),
    [(Stream.COLUMN, 0, 0), (Stream.ROW, 1, 0), (Stream.ROW, 0, 1)],
    ids=["stream", "epoch", "seed"],
)
def test_streams_epochs_and_seeds_are_independent(stream: Stream, epoch: int, seed: int) -> None:
    ids = torch.arange(40_000)
    first = Draws(ids, 0).integers(Stream.ROW, 9)
    second = Draws(ids, seed, epoch).integers(stream, 9)
    assert_independent(first, second, 9)


def test_neighboring_samples_are_independent() -> None:
    drawn = Draws(torch.arange(40_001), 0).integers(Stream.ROW, 9)
    assert_independent(drawn[:-1], drawn[1:], 9)


def test_seed_epoch_and_stream_cannot_stand_for_each_other() -> None:
    """(1, 0, 0), (0, 1, 0) and (0, 0, 1) are different keys, not one sum."""
    ids = torch.arange(64)
    drawn = [
        tuple(Draws(ids, seed, epoch).bits(stream).tolist())
        for seed in range(3)
        for epoch in range(3)
        for stream in (Stream.ORDER, Stream.ROW, Stream.COLUMN)
    ]
    assert len(set(drawn)) == 27


def test_units_and_normals_are_distributed_as_they_should_be() -> None:
    ids = torch.arange(20_000)
    units = Draws(ids, 1, 2).units(Stream.COLOR).numpy()
    normals = Draws(ids, 1, 2).normals(Stream.COLOR).numpy()
    assert units.min() >= 0
    assert units.max() < 1
    assert stats.kstest(units, "uniform").pvalue > 1e-4
    assert stats.kstest(normals, "norm").pvalue > 1e-4
    again = Draws(ids[5:9], 1, 2).normals(Stream.COLOR).numpy()
    np.testing.assert_array_equal(again, normals[5:9])


def test_no_number_belongs_to_two_streams() -> None:
    """The split of a user's images was once drawn from the numbers of the first epoch's order."""
    numbers = [number for stream in Stream for number in stream.value]
    assert len(Stream.__members__) == len(list(Stream))  # no stream is another name of one
    assert len(set(numbers)) == len(numbers)
    with pytest.raises(IndexError):
        Draws(torch.arange(3), 0).normals(Stream.COLOR, 5)  # would take a number beyond its own


def test_the_numbers_of_a_seed_never_change() -> None:
    """Trainings that were begun with an earlier version resume with the same draws."""
    assert Draws(torch.arange(3), 1, 2).integers(Stream.ORDER, 1000).tolist() == [674, 127, 612]
    assert {stream.name: next(iter(stream.value)) for stream in Stream} == {
        **{"ORDER": 0, "ROW": 1, "COLUMN": 2, "FLIP": 3, "SPLIT": 10, "AREA": 100, "SHAPE": 200},
        **{"LEFT": 300, "UPPER": 301, "SIDE": 302, "COLOR": 400, "OPERATION": 500},
        **{"STRENGTH": 501, "SIGN": 502, "ERASING": 600},
    }
