"""How an image of any size becomes one of a network's size in evaluation: facts, without pixels."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["BILINEAR", "FULL", "INTERPOLATIONS", "Interpolation", "Resize"]

Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Filters of Pillow, in the order of its numbers."""

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Resize:
    """How images are resized before their middle is cut out.

    Attributes:
        interpolation: the filter.
        mode: center keeps the shape of the image and resizes its shorter side; squash resizes both
            sides, whatever the shape.
        rounding: of the side that is resized to, where size / crop is no whole number: round as
            here, floor as in timm and transformers.
        offset: of the middle that is cut out, where what is left over is odd: round as in
            torchvision and timm, floor as in transformers.
        draft: whether a large JPEG may be decoded at a half, a quarter or an eighth of its size
            where that suffices, as in training: several times faster, but other libraries decode
            all of it and see slightly other pixels.
    """

    interpolation: Interpolation = "bilinear"
    mode: Literal["center", "squash"] = "center"
    rounding: Literal["round", "floor"] = "round"
    offset: Literal["round", "floor"] = "round"
    draft: bool = True

    def margin(self, side: int, size: int) -> int:
        """Returns what is cut off before the middle of one side, in pixels."""
        return (side - size) // 2 if self.offset == "floor" else round((side - size) / 2)

    def side(self, size: int, crop: float) -> int:
        """Returns what is resized to, in pixels, before `size` of it are cut out.

        Args:
            size: pixels that the network is shown.
            crop: part of the resized side that these are, such as 0.875 for 224 of 256.
        """
        return math.floor(size / crop) if self.rounding == "floor" else round(size / crop)

    def least_side(self, side: int) -> int:
        """Returns the shorter side that an image must be decoded with; 0 stands for all of it.

        Args:
            side: that is resized to, in pixels.
        """
        return side if self.draft else 0


BILINEAR = Resize()
"""As the networks trained here are shown images."""

FULL = Resize(draft=False)
"""As torchvision's weights of 2015 are shown images."""
