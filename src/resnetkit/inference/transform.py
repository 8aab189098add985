"""The evaluation transform: from an image of any size to the pixels that a network takes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resnetkit.data.images.crops import center_crop, resampling
from resnetkit.data.images.decode import (
    check_range,
    decoding,
    in_8_bits,
    in_mode,
    load_bytes,
    refusals,
    upright,
)
from resnetkit.errors import DataError
from resnetkit.inference.engine import Pixels
from resnetkit.resizing import BILINEAR, Resize

if TYPE_CHECKING:
    from resnetkit.weights.network import TrainedNetwork

__all__ = ["EvalTransform", "Picture"]

Picture = str | Path | bytes | Image.Image
"""The path of an image file, its content, or a decoded image."""


@dataclass(frozen=True)
class EvalTransform:
    """Resizes an image and takes its center crop.

    Attributes:
        channels: 3 for RGB, 1 for gray.
        size: height and width of the crop, in pixels.
        crop_pct: fraction of the shorter side that the crop keeps; 1 does not change an image that
            already has this size.
        resize: how the image is resized before the crop.
    """

    channels: int
    size: tuple[int, int]
    crop_pct: float
    resize: Resize = BILINEAR

    @classmethod
    def of(cls, network: "TrainedNetwork") -> "EvalTransform":
        """Returns the transform that a network was trained with.

        Raises:
            DataError: when the network takes neither 1 nor 3 channels.
        """
        channels = network.architecture.in_channels
        if channels not in (1, 3):
            raise DataError(
                f"the network takes images with {channels} channels, but image files have 3, or 1"
                " for gray."
            )
        return cls(channels, network.image_size, network.crop_pct, network.resize)

    @property
    def side(self) -> int:
        """Returns the length that the shorter side is resized to before the crop, in pixels."""
        return self.resize.side(max(self.size), self.crop_pct)

    def pixels(self, picture: Picture) -> Pixels:
        """Decodes, resizes and crops an image: uint8 (C, H, W).

        Raises:
            DataError: when it cannot be read, is not a supported image, or is refused as unsafe.
        """
        if isinstance(picture, Image.Image):
            with refusals("the image"):
                check_range(picture)
                mode = "RGB" if self.channels == 3 else "L"
                eight_bits = in_8_bits(upright(picture), picture)
                crop = self.center_crop(in_mode(eight_bits, mode))
        else:
            options = {"channels": self.channels, "short_side": self.resize.least_side(self.side)}
            content, name = (
                (picture, "the image")
                if isinstance(picture, bytes)
                else (load_bytes(Path(os.fspath(picture))), os.fspath(picture))
            )
            with decoding(content, name, **options) as decoded:
                crop = self.center_crop(decoded.image)
        return np.array(crop).reshape(*self.size, self.channels).transpose(2, 0, 1)

    def center_crop(self, image: Image.Image) -> Image.Image:
        """Returns the center crop of an upright image."""
        height, width = self.size
        if height == width:
            return center_crop(image, width, self.side, self.resize)
        # Not square, as in timm: the least size that covers both sides, or exactly both for squash.
        sides = [self.resize.side(side, self.crop_pct) for side in (width, height)]
        if self.resize.mode == "center":
            ratio = min(side / least for side, least in zip(image.size, sides, strict=True))
            sides = [round(side / ratio) for side in image.size]
        resized = image.resize((sides[0], sides[1]), resampling(self.resize))
        left, upper = self.resize.margin(sides[0], width), self.resize.margin(sides[1], height)
        return resized.crop((left, upper, left + width, upper + height))
