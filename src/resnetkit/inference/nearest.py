"""Exact nearest neighbors by the cosine similarity of features."""

import numpy as np
import numpy.typing as npt

from resnetkit.errors import DataError
from resnetkit.inference.engine import Engine, Floats, Scores
from resnetkit.inference.features import Features

__all__ = ["check_computed_by", "nearest"]

BLOCK = 16_384  # rows per matrix product


def check_computed_by(features: Features, engine: Engine) -> None:
    """Checks that a network computed some features, so that they can be compared with its own.

    Raises:
        DataError: when another network computed them.
    """
    if features.network_sha256 != engine.network_sha256:
        raise DataError(
            f"the features were computed by another network ({features.origin}) than this one"
            f" ({engine.origin}), or with other weights or options: they cannot be compared."
            " Choose that network with --model, or compute them again with 'resnet features'."
        )


def nearest(features: Floats, queries: Floats, top: int) -> tuple[Scores, npt.NDArray[np.int64]]:
    """Returns the most similar features of each query: x.y / (|x| |y|), in float64.

    Of equally similar features, the first comes first. The similarity of zeros is 0.

    Args:
        features: float32 (N, D).
        queries: float32 (B, D).
        top: the largest number of features per query.

    Returns:
        Similarities, float64 (B, min(top, N)), and the rows of the features, int64 of that shape.
    """
    directions = normalized(queries)
    similarities = np.empty((len(queries), 0))
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(features), BLOCK):
        block = directions @ normalized(features[start : start + BLOCK]).T
        block_rows = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        similarities = np.concatenate([similarities, block], axis=1)
        rows = np.concatenate([rows, block_rows], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :top]
        similarities = np.take_along_axis(similarities, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    return similarities.clip(-1, 1), rows


def normalized(rows: Floats) -> Scores:
    """Returns rows divided by their length, in float64; rows of zeros stay zero."""
    values = rows.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)
