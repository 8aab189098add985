"""Normalization: from stored pixels to the input of a network."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Normalization", "NormalizationKind", "measure_normalization"]

NormalizationKind = Literal["channel", "pixel-mean", "weights"]
"""channel: subtract the mean of each channel and divide by its standard deviation; pixel-mean:
subtract the mean of each pixel (He et al. 2015, sec. 4.2) and divide by 255; weights: that of the
weights that training starts from; nothing is measured."""


@dataclass(frozen=True)
class Normalization:
    """(pixels - mean) / std, for pixels from 0 to 255.

    Attributes:
        mean: float32 (C, 1, 1), or (C, H, W) for a mean of each pixel.
        std: float32 (C, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Returns images as float32 in channels-last memory, on the device of the constants.

        Args:
            images: uint8 (B, C, H, W).
        """
        normalized = (images.to(self.mean.device).to(torch.float32) - self.mean) / self.std
        return normalized.contiguous(memory_format=torch.channels_last)

    @property
    def is_per_pixel(self) -> bool:
        """Returns whether each pixel has its own mean, which fits images of one size only."""
        return self.mean.shape[1:] != (1, 1)

    def per_channel(self) -> "Normalization":
        """Returns a normalization for images of any size: the mean of each channel."""
        return Normalization(self.mean.mean((1, 2), keepdim=True), self.std)

    def to(self, device: torch.device) -> "Normalization":
        """Returns a copy on a device."""
        return Normalization(self.mean.to(device), self.std.to(device))


def measure_normalization(images: Tensor, kind: NormalizationKind) -> Normalization:
    """Measures the normalization exactly, in integers, on the images that are trained on.

    Args:
        images: uint8 (N, C, H, W).
        kind: see `NormalizationKind`.
    """
    channels = images.shape[1]
    if kind == "pixel-mean":
        mean = images.sum(0, dtype=torch.int64).to(torch.float64) / len(images)
        return Normalization(mean.to(torch.float32), torch.full((channels, 1, 1), 255.0))
    levels = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256)
        frequencies = counts.to(torch.float64) / channel.numel()
        mean = (frequencies * levels).sum()
        means.append(mean)
        stds.append((frequencies * (levels - mean) ** 2).sum().sqrt().clamp(min=1.0))
    return Normalization(*(torch.stack(v).to(torch.float32)[:, None, None] for v in (means, stds)))
