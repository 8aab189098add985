"""Exact nearest neighbors by the cosine similarity of features."""

import torch
from torch import Tensor

from resnetkit.errors import DataError
from resnetkit.inference.features import Features, network_sha256
from resnetkit.weights.network import TrainedNetwork

__all__ = ["check_computed_by", "nearest"]

BLOCK = 16_384  # rows per matrix product


def check_computed_by(features: Features, network: TrainedNetwork) -> None:
    """Checks that a network computed some features, so that they can be compared with its own.

    Raises:
        DataError: when another network computed them.
    """
    if features.network_sha256 != network_sha256(network):
        raise DataError(
            f"the features were computed by another network ({features.origin}) than this one"
            f" ({network.origin}), or with other weights or options: they cannot be compared."
            " Choose that network with --model, or compute them again with 'resnet features'."
        )


def nearest(features: Tensor, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Returns the most similar features of each query: x.y / (|x| |y|), in float64.

    Of equally similar features, the first comes first. The similarity of zeros is 0.

    Args:
        features: float (N, D).
        queries: float (B, D).
        top: the largest number of features per query.

    Returns:
        Similarities, float64 (B, min(top, N)), and the rows of the features, int64 of that shape.
    """
    directions = normalized(queries)
    similarities = torch.empty(len(queries), 0, dtype=torch.float64)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(features), BLOCK):
        block = directions @ normalized(features[start : start + BLOCK]).T
        block_rows = torch.arange(start, start + block.shape[1]).expand_as(block)
        similarities, rows = torch.cat([similarities, block], 1), torch.cat([rows, block_rows], 1)
        similarities, order = similarities.sort(dim=1, descending=True, stable=True)
        similarities, rows = similarities[:, :top], rows.gather(1, order[:, :top])
    return similarities.clamp(-1, 1), rows


def normalized(rows: Tensor) -> Tensor:
    """Returns rows divided by their length, in float64; rows of zeros stay zero."""
    rows = rows.double()
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / lengths.where(lengths > 0, 1)
