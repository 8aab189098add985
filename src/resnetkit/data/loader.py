"""From sample ids to the float batches of a network."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from resnetkit.data.augment.crop_and_flip import (
    Augmentation,
    augment,
    color_shifts,
    erased,
    flipped,
)
from resnetkit.data.augment.mixup import mixed
from resnetkit.data.batches import Batch, evaluation_batches
from resnetkit.data.dataset import Dataset, Images
from resnetkit.data.draws import Draws
from resnetkit.data.images.photos import Photos
from resnetkit.data.normalization import Normalization
from resnetkit.data.prefetch import BATCHES_AHEAD, prefetch

__all__ = [
    "NO_AXES",
    "DeviceLoader",
]

NO_AXES = torch.zeros(3, 3, dtype=torch.float64)


@dataclass(frozen=True)
class DeviceLoader:
    """A data set on the device that computes, with its normalization and augmentation.

    Attributes:
        images: uint8 (N, C, H, W), on the device; photos stay in their files.
        labels: int64 (N,), on the device.
        normalization: of the images.
        seed: of the augmentation.
        augmentation: of images in training.
        color_axes: float64 (3, 3), for shifts of colors; see `measure_color_axes`.
        num_classes: of the labels.
    """

    images: Images
    labels: Tensor
    normalization: Normalization
    seed: int
    augmentation: Augmentation
    color_axes: Tensor
    num_classes: int

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        normalization: Normalization,
        device: torch.device,
        *,
        seed: int,
        augmentation: Augmentation,
        color_axes: Tensor = NO_AXES,
    ) -> "DeviceLoader":
        """Puts a data set on a device."""
        return cls(
            dataset.images.to(device),
            dataset.labels.to(device),
            normalization.to(device),
            seed,
            augmentation,
            color_axes.to(device),
            len(dataset.class_names),
        )

    def stream(
        self, batches: Iterable[Batch], size_of: Callable[[int], int]
    ) -> Iterator[tuple[Batch, Callable[[], tuple[Tensor, Tensor]]]]:
        """Yields each batch with the function that returns its images and labels.

        Photos of the next batches are decoded while the network computes; images in memory are
        indexed when the function is called.

        Args:
            batches: in the order of training.
            size_of: returns the side of the crops of a step; see `training`.
        """
        if isinstance(self.images, Tensor):
            for batch in batches:
                yield batch, partial(self.training, batch, size=size_of(batch.step))
            return

        def load(batch: Batch) -> tuple[Tensor, Tensor]:
            return self.training(batch, size=size_of(batch.step))

        for batch, loaded in prefetch(load, batches, most=BATCHES_AHEAD, threads=1):
            yield batch, loaded.result

    def training(self, batch: Batch, *, size: int = 0) -> tuple[Tensor, Tensor]:
        """Returns the augmented images of this rank, float (B, C, H, W), and their labels.

        Labels are int64 (B,); for mixed images they are float (B, K), with rows that add up to 1.

        Args:
            batch: which samples.
            size: side of the crops in pixels; 0 for images in their full size.

        Raises:
            DataError: when a photo cannot be decoded; it names the file.
        """
        augmentation = self.augmentation
        sample_ids = batch.local_ids.to(self.labels.device)
        draws = Draws(sample_ids, self.seed, batch.epoch)
        if augmentation.crop == "padded":
            images = augment(
                self.normalized(batch.local_ids),
                draws,
                crop_padding=augmentation.crop_padding,
                padding=augmentation.padding,
                flip=augmentation.flip,
                size=size,
            )
        else:
            assert isinstance(self.images, Photos)  # the recipe was checked
            of_files = Draws(batch.local_ids, self.seed, batch.epoch)  # on the CPU
            pixels = self.images.random_views(of_files, augmentation, size=size or self.images.size)
            images = flipped(self.normalization(pixels), draws, augmentation.flip)
        if augmentation.color == "pca":
            shifts = color_shifts(draws, self.color_axes)
            images = images + shifts / self.normalization.std
        if augmentation.erasing:
            images = erased(images, draws, augmentation.erasing)
        labels = self.labels[sample_ids]
        if not augmentation.mixes:
            return images, labels
        return mixed(
            images,
            functional.one_hot(labels, self.num_classes).to(images.dtype),
            mixup=augmentation.mixup,
            cutmix=augmentation.cutmix,
            seed=self.seed,
            step=batch.step,
        )

    def evaluation(
        self, sample_ids: Tensor, batch_size: int, *, rank: int, ranks: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the samples of this rank without augmentation, in batches of (images, labels)."""
        for ids in evaluation_batches(sample_ids, batch_size, rank=rank, ranks=ranks):
            yield self.normalized(ids), self.labels[ids.to(self.labels.device)]

    def normalized(self, sample_ids: Tensor) -> Tensor:
        """Returns normalized images in channels-last memory."""
        if isinstance(self.images, Tensor):
            sample_ids = sample_ids.to(self.images.device)
        return self.normalization(self.images[sample_ids])
