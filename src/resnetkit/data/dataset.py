"""What a data set is, and how its samples are divided."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from resnetkit.data.randomness import random_bits

__all__ = ["Dataset", "Split", "stratified_split"]

Split = Literal["train", "validation", "test"]
"""train is learned from, validation is chosen on, test is only reported."""

SPLIT_SEED = 20151210  # the day the paper appeared: arXiv 1512.03385


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in memory or mapped into it.

    Attributes:
        name: on the command line and in recipes.
        images: uint8 (N, C, H, W), in any memory format.
        labels: int64 (N,), from 0.
        class_names: one a label.
        splits: int64 sample ids of each part.
        mirrored: whether the mirror image of a sample is an image of its class.
        sha256: digest of the content.
    """

    name: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    splits: dict[Split, Tensor]
    mirrored: bool
    sha256: str

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]


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
