"""The images whose features are most alike those of others: exact, by cosine similarity."""

import torch
from torch import Tensor

from resnetkit.errors import DataError
from resnetkit.inference.features import Features, network_sha256
from resnetkit.weights.network import TrainedNetwork

__all__ = ["check_made_by", "nearest"]

BLOCK = 16_384  # rows that are compared at a time


def check_made_by(features: Features, network: TrainedNetwork) -> None:
    """Checks that features can be compared with those of a network.

    Raises:
        DataError: when another network made them.
    """
    if features.network_sha256 != network_sha256(network):
        raise DataError(
            f"the features were made by another network ({features.origin}) than this one"
            f" ({network.origin}), or with other weights or options: they cannot be compared. Name"
            " the network that made them with --model, or write them again with 'resnet features'."
        )


def nearest(features: Tensor, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Returns the most similar rows: x.y / (|x| |y|), computed in float64, of each with each.

    Of equally similar ones the first comes first. A row of zeros is similar to nothing: 0.

    Args:
        features: float (N, D).
        queries: float (B, D).
        top: how many, at most.

    Returns:
        Similarities, float64 (B, min(top, N)), and which rows they are, int64 of that shape.
    """
    asked = directions(queries)
    similarities = torch.empty(len(queries), 0, dtype=torch.float64)
    places = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(features), BLOCK):
        found = asked @ directions(features[start : start + BLOCK]).T
        here = torch.arange(start, start + found.shape[1]).expand_as(found)
        similarities, places = torch.cat([similarities, found], 1), torch.cat([places, here], 1)
        similarities, order = similarities.sort(dim=1, descending=True, stable=True)
        similarities, places = similarities[:, :top], places.gather(1, order[:, :top])
    return similarities.clamp(-1, 1), places


def directions(rows: Tensor) -> Tensor:
    """Returns rows of length 1, or 0 where they are zero: float64."""
    rows = rows.double()
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / lengths.where(lengths > 0, 1)
