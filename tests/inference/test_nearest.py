"""The nearest images against a brute force in numpy."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from resnetkit.errors import DataError
from resnetkit.inference import nearest as nearest_module
from resnetkit.inference.engines.torch import TorchEngine
from resnetkit.inference.features import Features, network_sha256
from resnetkit.inference.nearest import check_computed_by, nearest, nearest_in
from resnetkit.weights.network import TrainedNetwork

MakeNetwork = Callable[..., TrainedNetwork]


@pytest.mark.parametrize("block", [1, 7, 64, 16_384])
@pytest.mark.parametrize("top", [1, 5, 200])
def test_the_nearest_are_those_of_a_brute_force(
    block: int, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_module, "BLOCK", block)
    generator = np.random.default_rng(1)
    features = generator.standard_normal((100, 12), np.float32)
    queries = np.concatenate([generator.standard_normal((6, 12), np.float32), features[40:41] * 3])
    similarities, rows = nearest(features, queries, top)
    x, y = queries.astype(np.float64), features.astype(np.float64)
    cosines = (x @ y.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    order = np.argsort(-cosines, axis=1)[:, :top]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(similarities, np.take_along_axis(cosines, order, 1))
    assert rows[-1, 0] == 40
    assert similarities[-1, 0] == pytest.approx(1)
    assert similarities.max() <= 1


@pytest.mark.parametrize("block", [2, 100, 16_384])
def test_of_equally_similar_ones_the_first_comes_first(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_module, "BLOCK", block)
    features = np.tile(np.eye(2, dtype=np.float32)[::-1], (500, 1))
    similarities, rows = nearest(features, np.array([[2, 0]], np.float32), 501)
    assert rows.tolist() == [[*range(1, 1000, 2), 0]]
    assert similarities.tolist() == [[*[1] * 500, 0]]


class Shards:
    """Features in three blocks, every third row in each, of which one is in memory at a time."""

    layer, origin, network_sha256 = "pool", "a network", "0" * 64

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.images = len(values)
        self.read: list[weakref.ref[Features]] = []

    def blocks(self) -> Iterator[tuple[np.ndarray, Features]]:
        for shard in range(3):
            rows = np.arange(shard, self.images, 3)
            assert [block() for block in self.read] == [None] * shard
            yield rows, self.block(rows)

    def block(self, rows: np.ndarray) -> Features:
        paths = [f"{row}.png" for row in rows]
        block = Features(self.values[rows], paths, self.layer, "a network", "0" * 64)
        self.read.append(weakref.ref(block))
        return block


@pytest.mark.parametrize("top", [1, 7, 200])
def test_the_nearest_in_blocks_are_those_of_all(top: int) -> None:
    generator = np.random.default_rng(2)
    values = generator.integers(-1, 2, (100, 3)).astype(np.float32)  # many are equally similar
    queries = list(generator.standard_normal((5, 3), np.float32))
    similarities, rows = nearest(values, np.stack(queries), top)
    found = nearest_in(Shards(values), queries, top)
    assert [[near.row for near in ranked] for ranked in found] == rows.tolist()
    assert [[near.similarity for near in ranked] for ranked in found] == similarities.tolist()
    assert {near.path == f"{near.row}.png" for ranked in found for near in ranked} == {True}
    assert nearest_in(Shards(values), [], top) == []


def test_zeros_are_similar_to_nothing() -> None:
    features = np.array([[0, 0], [-1, 0], [1e-30, 0]], np.float32)
    assert nearest(features, np.array([[1, 0]], np.float32), 3)[0].tolist() == [[1, 0, -1]]
    assert nearest(features, np.zeros((1, 2), np.float32), 3)[0].tolist() == [[0, 0, 0]]


def test_features_of_another_network_are_refused(make_network: MakeNetwork) -> None:
    network = make_network()
    values = np.ones((1, 2), np.float32)
    features = Features(values, ["a"], "pool", "a drawn one", network_sha256(network))
    check_computed_by(features, TorchEngine(network))
    with pytest.raises(DataError, match=r"computed by another network \(a drawn one\)"):
        check_computed_by(
            features,
            TorchEngine(
                replace(
                    network,
                    normalization=replace(
                        network.normalization, mean=network.normalization.mean + 1
                    ),
                )
            ),
        )
