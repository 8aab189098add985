"""Random numbers as a pure function of (seed, epoch, sample id).

There is no generator state to save: every process and device computes the same numbers for the same
sample. The mixing function is SplitMix64 (Steele, Lea and Flood 2014).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

import torch
from torch import Tensor

__all__ = ["Draws", "Stream"]

WORD = 2**64
GOLDEN_RATIO = 0x9E3779B97F4A7C15
FIRST_FACTOR = 0xBF58476D1CE4E5B9
SECOND_FACTOR = 0x94D049BB133111EB


class Stream(Enum):
    """A random decision about a sample, with the numbers of its streams, which are unique to it.

    The numbers decide what a seed produces: never change one that is in use.
    """

    ORDER = range(1)
    ROW = range(1, 2)
    COLUMN = range(2, 3)
    FLIP = range(3, 4)
    SPLIT = range(10, 11)
    AREA = range(100, 110)  # one for each attempt at a crop, as for SHAPE
    SHAPE = range(200, 210)
    LEFT = range(300, 301)
    UPPER = range(301, 302)
    SIDE = range(302, 303)
    COLOR = range(400, 406)  # two for each color axis
    OPERATION = range(500, 501)
    STRENGTH = range(501, 502)
    SIGN = range(502, 503)
    ERASING = range(600, 605)  # whether to erase, area, shape, row, column


@dataclass(frozen=True)
class Draws:
    """Random numbers for samples in one epoch, with the shape of their ids.

    Attributes:
        sample_ids: int64, any shape.
        seed: of the run, at least 0.
        epoch: from 0.
    """

    sample_ids: Tensor
    seed: int
    epoch: int = 0

    def in_epoch(self, epoch: int) -> Self:
        """Returns the draws of the same samples in another epoch."""
        return replace(self, epoch=epoch)

    def bits(self, stream: Stream, index: int = 0) -> Tensor:
        """Returns 63 random bits for each sample: int64 in [0, 2**63).

        Args:
            stream: the decision; different streams are independent.
            index: which of the numbers of the stream.
        """
        key = 0
        for number in (self.seed, self.epoch, stream.value[index]):
            key = mix_integer((key + number + 1) * GOLDEN_RATIO % WORD)
        return mix_tensor(self.sample_ids * signed(GOLDEN_RATIO) + signed(key)) & (2**63 - 1)

    def integers(self, stream: Stream, bound: int, index: int = 0) -> Tensor:
        """Returns an int64 in [0, bound) for each sample; `bound` is below 2**31."""
        return ((self.bits(stream, index) >> 32) * bound) >> 31

    def units(self, stream: Stream, index: int = 0) -> Tensor:
        """Returns a float64 in [0, 1), a multiple of 2**-53, for each sample."""
        return (self.bits(stream, index) >> 10).to(torch.float64) / 2**53

    def normals(self, stream: Stream, index: int = 0) -> Tensor:
        """Returns a float64 drawn from the standard normal distribution for each sample.

        It uses two numbers of the stream, `index` and the next (Box and Muller 1958).
        """
        radii, angles = (self.units(stream, index + offset) for offset in (0, 1))
        return (-2 * torch.log1p(-radii)).sqrt() * torch.cos(2 * torch.pi * angles)


def mix_integer(word: int) -> int:
    """Returns the SplitMix64 finalizer of a 64-bit word."""
    word = (word ^ (word >> 30)) * FIRST_FACTOR % WORD
    word = (word ^ (word >> 27)) * SECOND_FACTOR % WORD
    return word ^ (word >> 31)


def mix_tensor(words: Tensor) -> Tensor:
    """Returns `mix_integer` of each element of an int64 tensor, whose arithmetic wraps around."""
    words = (words ^ shifted_right(words, 30)) * signed(FIRST_FACTOR)
    words = (words ^ shifted_right(words, 27)) * signed(SECOND_FACTOR)
    return words ^ shifted_right(words, 31)


def shifted_right(words: Tensor, count: int) -> Tensor:
    """Shifts signed words right as if they were unsigned."""
    return torch.bitwise_and(words >> count, 2 ** (64 - count) - 1)


def signed(word: int) -> int:
    """Returns the signed integer with the bits of a 64-bit word."""
    return word - WORD if word >= WORD // 2 else word
