"""How evaluation resizes and crops an image to the input size of a network: the arithmetic."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["BILINEAR", "FULL", "INTERPOLATIONS", "ImageFormat", "Interpolation", "Resize"]

Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Pillow's filters, in the order of their numbers."""

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Resize:
    """How an image is resized before its center crop.

    Attributes:
        interpolation: the filter.
        mode: center resizes the shorter side and keeps the aspect ratio; squash resizes both sides
            to the same length.
        rounding: how size / crop is rounded to a side in pixels: round as in this package, floor as
            in timm and transformers.
        offset: how the offset of the center crop is rounded where it is not an integer: round as in
            torchvision and timm, floor as in transformers.
        draft: whether a large JPEG may be decoded at a half, a quarter or an eighth of its size
            where that suffices, as in training: several times faster, but the pixels differ
            slightly from those of libraries that decode the whole image.
    """

    interpolation: Interpolation = "bilinear"
    mode: Literal["center", "squash"] = "center"
    rounding: Literal["round", "floor"] = "round"
    offset: Literal["round", "floor"] = "round"
    draft: bool = True

    def margin(self, side: int, size: int) -> int:
        """Returns the offset of the center crop along one side, in pixels."""
        return (side - size) // 2 if self.offset == "floor" else round((side - size) / 2)

    def side(self, size: int, crop: float) -> int:
        """Returns the length that a side is resized to before the crop, in pixels.

        Args:
            size: of the crop, in pixels.
            crop: fraction of the resized side that the crop covers, such as 0.875 for 224 of 256.
        """
        return math.floor(size / crop) if self.rounding == "floor" else round(size / crop)

    def least_side(self, side: int) -> int:
        """Returns the least shorter side that an image is decoded at; 0 means its full size.

        Args:
            side: length that the shorter side is resized to, in pixels.
        """
        return side if self.draft else 0


BILINEAR = Resize()
"""The resizing used by networks trained with this package."""

FULL = Resize(draft=False)
"""Resizing that always decodes the whole image, as the libraries of pretrained weights do."""


@dataclass(frozen=True)
class ImageFormat:
    """The square images that image files of any size are converted to.

    Attributes:
        size: side in pixels.
        crop_pct: fraction of the shorter side that the center crop keeps; 0.875 is 224 of 256.
        channels: 3 for color, 1 for gray.
        resize: how an image is resized before the center crop.
    """

    size: int
    crop_pct: float
    channels: int = 3
    resize: Resize = BILINEAR
