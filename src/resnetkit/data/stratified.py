"""Splits the samples of each class at random."""

from typing import get_args

import torch
from torch import Tensor

from resnetkit.data.draws import Draws, Stream
from resnetkit.data.splits import Split

__all__ = ["stratified_split"]

SPLIT_SEED = 20151210  # the day the paper appeared: arXiv 1512.03385


def stratified_split(
    labels: Tensor,
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int = SPLIT_SEED,
    stream: Stream = Stream.ORDER,
    at_least_one: bool = False,
) -> dict[Split, Tensor]:
    """Splits the samples of each class at random; the same seed always gives the same split.

    Args:
        labels: int64 (N,).
        test_fraction: of each class, rounded to whole samples.
        validation_fraction: of each class, rounded to whole samples.
        seed: of the split.
        stream: the random stream; the published data sets have always used `Stream.ORDER`.
        at_least_one: whether a fraction above 0 takes at least one sample of each class, as long as
            a training sample is left.

    Returns:
        Ascending sample ids of each split; every sample is in exactly one.
    """
    none = torch.arange(0)
    splits: dict[Split, list[Tensor]] = {name: [none] for name in get_args(Split)}
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[Draws(members, seed).bits(stream).argsort()]
        tests = round(test_fraction * len(members))
        validations = round(validation_fraction * len(members))
        if at_least_one:
            validations = max(validations, int(validation_fraction > 0 and len(members) > 1))
            tests = max(tests, int(test_fraction > 0 and len(members) > 1 + validations))
        sizes = [len(members) - tests - validations, validations, tests]
        for split, ids in zip(splits.values(), shuffled.split(sizes), strict=True):
            split.append(ids)
    return {name: torch.cat(ids).sort().values for name, ids in splits.items()}
