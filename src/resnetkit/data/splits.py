"""The parts of a data set, and how samples are drawn into them."""

from typing import Literal, get_args

import torch
from torch import Tensor

from resnetkit.data.randomness import random_bits

__all__ = ["Split", "stratified_split"]

Split = Literal["train", "validation", "test"]
"""train is learned from, validation is chosen on, test is only reported."""

SPLIT_SEED = 20151210  # the day the paper appeared: arXiv 1512.03385


def stratified_split(
    labels: Tensor,
    *,
    test_share: float,
    validation_share: float,
    seed: int = SPLIT_SEED,
    at_least_one: bool = False,
) -> dict[Split, Tensor]:
    """Splits the samples of each class by shares; the same seed always gives the same split.

    Args:
        labels: int64 (N,).
        test_share: of each class, rounded to whole samples.
        validation_share: likewise.
        seed: of the split.
        at_least_one: whether a share above 0 is at least one sample of each class that has another
            one to learn from.

    Returns:
        Ascending sample ids of each part; every sample is in exactly one.
    """
    none = torch.arange(0)
    parts: dict[Split, list[Tensor]] = {name: [none] for name in get_args(Split)}
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[random_bits(members, seed=seed, epoch=0, stream=0).argsort()]
        tests = round(test_share * len(members))
        validations = round(validation_share * len(members))
        if at_least_one:
            validations = max(validations, int(validation_share > 0 and len(members) > 1))
            tests = max(tests, int(test_share > 0 and len(members) > 1 + validations))
        sizes = [len(members) - tests - validations, validations, tests]
        for part, ids in zip(parts.values(), shuffled.split(sizes), strict=True):
            part.append(ids)
    return {name: torch.cat(ids).sort().values for name, ids in parts.items()}
