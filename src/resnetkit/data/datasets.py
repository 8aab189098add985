"""Named data sets: open, verify by content, and hand out as uint8 tensors with a fixed split."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from resnetkit.data.randomness import random_bits
from resnetkit.errors import DataError, UsageError, did_you_mean

__all__ = ["DATASETS", "Dataset", "Split", "open_dataset", "stratified_split"]

Split = Literal["train", "validation", "test"]
"""train is learned from, validation is chosen on, test is only reported."""

SPLIT_SEED = 20151210  # the day the paper appeared: arXiv 1512.03385


@dataclass(frozen=True)
class Dataset:
    """Labelled images, all in memory.

    Attributes:
        name: as in `DATASETS`.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), from 0.
        class_names: one a label.
        splits: int64 sample ids of each part.
        mirrored: whether the mirror image of a sample is an image of its class.
    """

    name: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    splits: dict[Split, Tensor]
    mirrored: bool

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def sha256(self) -> str:
        """Returns the digest of images and labels."""
        content = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        return content.hexdigest()


def stratified_split(
    labels: Tensor, *, test_share: float, validation_share: float, seed: int = SPLIT_SEED
) -> dict[Split, Tensor]:
    """Splits the samples of each class by shares; the same seed always gives the same split.

    Args:
        labels: int64 (N,).
        test_share: of each class, rounded to whole samples.
        validation_share: likewise.
        seed: of the split.

    Returns:
        Ascending sample ids of each part; every sample is in exactly one.
    """
    parts: dict[Split, list[Tensor]] = {name: [] for name in get_args(Split)}
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[random_bits(members, seed=seed, epoch=0, stream=0).argsort()]
        tests = round(test_share * len(members))
        validations = round(validation_share * len(members))
        sizes = [len(members) - tests - validations, validations, tests]
        for part, ids in zip(parts.values(), shuffled.split(sizes), strict=True):
            part.append(ids)
    return {name: torch.cat(ids).sort().values for name, ids in parts.items()}


DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def open_digits() -> Dataset:
    """Opens scikit-learn's 1,797 scanned digits of 8x8 pixels, which come with the library.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target).to(torch.int64)
    sixteenths = torch.from_numpy(digits.images)  # float64 (N, 8, 8), whole numbers from 0 to 16
    dataset = Dataset(
        name="digits",
        images=(sixteenths * 255 / 16).round().to(torch.uint8)[:, None],
        labels=labels,
        class_names=tuple(map(str, digits.target_names)),
        splits=stratified_split(labels, test_share=0.2, validation_share=0.1),
        mirrored=False,
    )
    return verified(dataset, DIGITS_SHA256)


def verified(dataset: Dataset, sha256: str) -> Dataset:
    """Returns the data set when its content is what it should be.

    Raises:
        DataError: when it is not.
    """
    if dataset.sha256 != sha256:
        raise DataError(
            f"the data set '{dataset.name}' is not what it should be: its content has the SHA-256"
            f" {dataset.sha256[:16]}..., expected {sha256[:16]}.... Reinstall the library or fetch"
            " it again."
        )
    return dataset


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": open_digits}


def open_dataset(name: str) -> Dataset:
    """Opens a data set by name.

    Raises:
        UsageError: when there is none of that name.
        DataError: when its content is not what it should be.
    """
    if name not in DATASETS:
        raise UsageError(
            f"unknown data set '{name}': expected one of {', '.join(DATASETS)}."
            + did_you_mean(name, DATASETS)
        )
    return DATASETS[name]()
