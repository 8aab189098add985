"""An image of any size -> the pixels that a network is shown of it, as evaluation shows them."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.data.images.decode import (
    check_range,
    decoding,
    in_mode,
    load_bytes,
    refusals,
    upright,
)
from resnetkit.data.images.photos import center_view, resampling
from resnetkit.errors import DataError
from resnetkit.resizing import BILINEAR, Resize
from resnetkit.weights.network import TrainedNetwork

__all__ = ["EvalTransform", "Picture"]

Picture = str | Path | bytes | Image.Image
"""The path of an image file, its content, or a decoded image."""


@dataclass(frozen=True)
class EvalTransform:
    """What a network is shown of an image: its middle.

    Attributes:
        channels: 3 for RGB, 1 for gray.
        size: height and width in pixels.
        crop_pct: share of the shorter side that is shown. 1 leaves an image of this size untouched.
        resize: how it is resized before.
    """

    channels: int
    size: tuple[int, int]
    crop_pct: float
    resize: Resize = BILINEAR

    @classmethod
    def of(cls, network: TrainedNetwork) -> "EvalTransform":
        """Returns how the data that a network was trained on was shown to it.

        Raises:
            DataError: when the network takes images of neither one nor three channels.
        """
        channels = network.architecture.in_channels
        if channels not in (1, 3):
            raise DataError(
                f"the network takes images of {channels} channels: image files have 3, or 1 for"
                " gray."
            )
        return cls(channels, network.image_size, network.crop_pct, network.resize)

    @property
    def side(self) -> int:
        """Returns what the shorter side is resized to before the middle is cut out, in pixels."""
        return self.resize.side(max(self.size), self.crop_pct)

    def pixels(self, picture: Picture) -> Tensor:
        """Decodes an image and returns what is shown of it: uint8 (C, H, W).

        Raises:
            DataError: when it cannot be read or is no image that can be trusted.
        """
        if isinstance(picture, Image.Image):
            with refusals("the image"):
                check_range(picture)
                mode = "RGB" if self.channels == 3 else "L"
                middle = self.middle(in_mode(upright(picture), mode))
        else:
            options = {"channels": self.channels, "short_side": self.resize.least_side(self.side)}
            content, name = (
                (picture, "the image")
                if isinstance(picture, bytes)
                else (load_bytes(Path(os.fspath(picture))), os.fspath(picture))
            )
            with decoding(content, name, **options) as decoded:
                middle = self.middle(decoded.image)
        pixels = torch.from_numpy(np.array(middle))
        return pixels.reshape(*self.size, self.channels).permute(2, 0, 1)

    def middle(self, image: Image.Image) -> Image.Image:
        """Returns the middle of an upright image."""
        height, width = self.size
        if height == width:
            return center_view(image, width, self.side, self.resize)
        # Oblong, as timm shows it: as small as covers both sides, or both sides at once.
        sides = [self.resize.side(side, self.crop_pct) for side in (width, height)]
        if self.resize.mode == "center":
            ratio = min(own / wanted for own, wanted in zip(image.size, sides, strict=True))
            sides = [round(own / ratio) for own in image.size]
        resized = image.resize((sides[0], sides[1]), resampling(self.resize))
        left, upper = self.resize.margin(sides[0], width), self.resize.margin(sides[1], height)
        return resized.crop((left, upper, left + width, upper + height))
