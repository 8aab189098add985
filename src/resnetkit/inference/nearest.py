"""Exact nearest neighbors by the cosine similarity of features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resnetkit.errors import DataError
from resnetkit.inference.engine import Engine, Floats, Scores
from resnetkit.inference.features import Library

__all__ = ["Neighbor", "check_computed_by", "nearest", "nearest_in"]

BLOCK = 16_384  # rows per matrix product


@dataclass(frozen=True)
class Neighbor:
    """An image that is similar to a query.

    Attributes:
        similarity: cosine of both features, from -1 to 1.
        row: its position among all images.
        path: as it was given.
    """

    similarity: float
    row: int
    path: str


def check_computed_by(features: Library, engine: Engine) -> None:
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


def nearest_in(library: Library, queries: Sequence[Floats], top: int) -> list[list[Neighbor]]:
    """Returns the most similar images of each query, of which one block is in memory at a time.

    Of equally similar images, the first comes first.

    Args:
        library: the features of all images.
        queries: each float32 (D,).
        top: the largest number of images per query.

    Raises:
        DataError: when a block cannot be read.
    """
    if not queries:
        return []
    best: list[list[Neighbor]] = [[] for _ in queries]
    for rows, features in library.blocks():
        similarities, positions = nearest(features.values, np.stack(queries), top)
        for query, found in enumerate(zip(similarities.tolist(), positions.tolist(), strict=True)):
            more = [
                Neighbor(similarity, int(rows[position]), features.paths[position])
                for similarity, position in zip(*found, strict=True)
            ]
            ranked = sorted(best[query] + more, key=lambda near: (-near.similarity, near.row))
            best[query] = ranked[:top]
        del rows, features  # before the next block is read
    return best


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
