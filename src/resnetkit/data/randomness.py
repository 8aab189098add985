"""Random numbers as a pure function of (seed, epoch, sample id).

There is no generator state to save: any process, on any device, asks for the numbers of any sample
and gets the same ones. The mixing function is SplitMix64 (Steele, Lea and Flood 2014).
"""

import torch
from torch import Tensor

__all__ = ["random_bits", "random_integers", "random_normals", "random_units"]

WORD = 2**64
GOLDEN_RATIO = 0x9E3779B97F4A7C15
FIRST_FACTOR = 0xBF58476D1CE4E5B9
SECOND_FACTOR = 0x94D049BB133111EB


def random_bits(sample_ids: Tensor, *, seed: int, epoch: int, stream: int) -> Tensor:
    """Returns 63 random bits for each sample.

    Args:
        sample_ids: int64, any shape.
        seed: of the run.
        epoch: from 0.
        stream: which decision about the sample; different streams are independent.

    Returns:
        int64 in [0, 2**63), of the shape of `sample_ids`.
    """
    key = 0
    for part in (seed, epoch, stream):
        key = mix_integer((key + part + 1) * GOLDEN_RATIO % WORD)
    return mix_tensor(sample_ids * signed(GOLDEN_RATIO) + signed(key)) & (2**63 - 1)


def random_integers(
    sample_ids: Tensor, bound: int, *, seed: int, epoch: int, stream: int
) -> Tensor:
    """Returns for each sample an int64 in [0, bound), where `bound` is below 2**31."""
    bits = random_bits(sample_ids, seed=seed, epoch=epoch, stream=stream)
    return ((bits >> 32) * bound) >> 31


def random_units(sample_ids: Tensor, *, seed: int, epoch: int, stream: int) -> Tensor:
    """Returns for each sample a float64 in [0, 1), a multiple of 2**-53."""
    bits = random_bits(sample_ids, seed=seed, epoch=epoch, stream=stream)
    return (bits >> 10).to(torch.float64) / 2**53


def random_normals(sample_ids: Tensor, *, seed: int, epoch: int, stream: int) -> Tensor:
    """Returns for each sample a float64 of the standard normal distribution (Box and Muller 1958).

    It takes the numbers of this stream and of the next.
    """
    radii, angles = (
        random_units(sample_ids, seed=seed, epoch=epoch, stream=stream + part) for part in (0, 1)
    )
    return (-2 * torch.log1p(-radii)).sqrt() * torch.cos(2 * torch.pi * angles)


def mix_integer(word: int) -> int:
    """Returns the SplitMix64 finaliser of a 64-bit word."""
    word = (word ^ (word >> 30)) * FIRST_FACTOR % WORD
    word = (word ^ (word >> 27)) * SECOND_FACTOR % WORD
    return word ^ (word >> 31)


def mix_tensor(words: Tensor) -> Tensor:
    """Returns the same for every element of an int64 tensor, whose arithmetic wraps around."""
    words = (words ^ shifted_right(words, 30)) * signed(FIRST_FACTOR)
    words = (words ^ shifted_right(words, 27)) * signed(SECOND_FACTOR)
    return words ^ shifted_right(words, 31)


def shifted_right(words: Tensor, count: int) -> Tensor:
    """Returns an unsigned shift of signed words."""
    return torch.bitwise_and(words >> count, 2 ** (64 - count) - 1)


def signed(word: int) -> int:
    """Returns the 64-bit word as the signed integer of the same bits."""
    return word - WORD if word >= WORD // 2 else word
