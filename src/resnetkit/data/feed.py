"""From sample ids to the float batches a network sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from resnetkit.data.augment import Flip, Padding, augment, normalize
from resnetkit.data.batches import Batch, evaluation_batches
from resnetkit.data.dataset import Dataset

__all__ = ["Feed", "Normalization", "NormalizationKind", "measure_normalization"]

NormalizationKind = Literal["channel", "pixel-mean"]
"""channel: subtract each channel's mean and divide by its standard deviation; pixel-mean: subtract
the mean of each pixel and divide by 255 (He et al. 2015, sec. 4.2 subtract that mean)."""


@dataclass(frozen=True)
class Normalization:
    """What turns stored pixels into network inputs: (pixels - mean) / std, in units of 0 to 255.

    Attributes:
        mean: float32 (C, 1, 1) or (C, H, W).
        std: float32 (C, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def to(self, device: torch.device) -> "Normalization":
        return Normalization(self.mean.to(device), self.std.to(device))


def measure_normalization(images: Tensor, kind: NormalizationKind) -> Normalization:
    """Measures the normalisation exactly, in whole numbers, on the images that are trained on.

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
        shares = (
            torch.bincount(channel.flatten(), minlength=256).to(torch.float64) / channel.numel()
        )
        mean = (shares * levels).sum()
        means.append(mean)
        stds.append((shares * (levels - mean) ** 2).sum().sqrt().clamp(min=1.0))
    return Normalization(*(torch.stack(v).to(torch.float32)[:, None, None] for v in (means, stds)))


@dataclass(frozen=True)
class Feed:
    """A data set on the device that computes, with the way it is shown.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        normalization: of the images.
        seed: of the augmentation.
        crop_padding: see `augment`.
        padding: see `augment`.
        flip: see `augment`.
    """

    images: Tensor
    labels: Tensor
    normalization: Normalization
    seed: int
    crop_padding: int
    padding: Padding
    flip: Flip

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        normalization: Normalization,
        device: torch.device,
        *,
        seed: int,
        crop_padding: int,
        padding: Padding,
        flip: Flip,
    ) -> "Feed":
        """Puts a data set on a device."""
        return cls(
            dataset.images.to(device),
            dataset.labels.to(device),
            normalization.to(device),
            seed=seed,
            crop_padding=crop_padding,
            padding=padding,
            flip=flip,
        )

    def training(self, batch: Batch, *, size: int = 0) -> tuple[Tensor, Tensor]:
        """Returns this rank's share, augmented: float (B, C, H, W), and labels, int64 (B,).

        Args:
            batch: which samples.
            size: side of the crops that are shown of them; 0 for whole images.
        """
        sample_ids = batch.share.to(self.images.device)
        images = augment(
            self.normalized(sample_ids),
            sample_ids,
            seed=self.seed,
            epoch=batch.epoch,
            crop_padding=self.crop_padding,
            padding=self.padding,
            flip=self.flip,
            size=size,
        )
        return images, self.labels[sample_ids]

    def evaluation(
        self, sample_ids: Tensor, batch_size: int, *, rank: int, ranks: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields this rank's share of the samples as they are, in batches of (images, labels)."""
        for ids in evaluation_batches(sample_ids, batch_size, rank=rank, ranks=ranks):
            sample_ids_here = ids.to(self.images.device)
            yield self.normalized(sample_ids_here), self.labels[sample_ids_here]

    def normalized(self, sample_ids: Tensor) -> Tensor:
        """Returns the images in channels-last memory, normalised."""
        return normalize(self.images[sample_ids], self.normalization.mean, self.normalization.std)
