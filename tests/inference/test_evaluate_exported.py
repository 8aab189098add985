"""Exported networks are evaluated as the networks that they were exported from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.normalization import Normalization
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation.evaluate import evaluate, evaluate_all
from resnetkit.evaluation.network_data import data_of
from resnetkit.inference.export import export_network
from resnetkit.inference.exported import ExportedConfig, ExportedNetwork
from resnetkit.models.zoo import ARCHITECTURES, cifar
from resnetkit.weights.network import TrainedNetwork


@pytest.fixture(scope="module")
def network(make_network: Callable[..., TrainedNetwork]) -> TrainedNetwork:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "resnet8", cifar(8))
        return make_network(name="resnet8", size=(16, 16), classes=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Image.Image]) -> str:
    root = tmp_path_factory.mktemp("photos")
    for number in range(18):
        folder = root / f"kind {number % 3}"
        folder.mkdir(exist_ok=True)
        draw(number, (20 + number, 41 - number)).save(folder / f"{number}.png")
    return str(root)


@pytest.fixture(scope="module")
def exported(network: TrainedNetwork, tmp_path_factory: pytest.TempPathFactory) -> ExportedNetwork:
    folder = tmp_path_factory.mktemp("exported") / "openvino"
    return export_network(network, folder, engine="openvino")[0]


@pytest.mark.parametrize(
    "views", [{}, {"flip": True}, {"protocol": "ten-crop"}], ids=["center", "flip", "ten-crop"]
)
def test_errors_and_losses_are_those_of_torch(
    network: TrainedNetwork, exported: ExportedNetwork, photos: str, views: dict[str, Any]
) -> None:
    dataset = data_of(exported, photos)
    of_engine, of_torch, together = evaluate_all(
        [exported, network], dataset, device="cpu", **views
    )
    assert of_engine.metrics.top1 == of_torch.metrics.top1
    assert of_engine.metrics.loss == pytest.approx(of_torch.metrics.loss, rel=1e-4)
    assert together.metrics.loss == pytest.approx(of_torch.metrics.loss, rel=1e-4)
    assert together.precision == of_engine.precision == "float32"
    assert of_engine.origin == "openvino float32: a drawn resnet8"
    [center] = evaluate_all([exported], dataset)
    assert (views == {}) == (center.metrics.loss == of_engine.metrics.loss)


def test_the_flip_is_computed_by_hand_too(exported: ExportedNetwork, photos: str) -> None:
    dataset = data_of(exported, photos)
    ids = dataset.splits["test"]
    pixels = dataset.images[ids].numpy()
    flipped = np.ascontiguousarray(pixels[..., ::-1])
    rows = (exported.probabilities(pixels) + exported.probabilities(flipped)) / 2
    labels = dataset.labels[ids].numpy()
    found = evaluate(exported, dataset, flip=True).metrics.loss
    assert found == pytest.approx(-np.log(rows[np.arange(len(rows)), labels]).mean())


def test_several_sizes_are_refused(exported: ExportedNetwork, photos: str) -> None:
    with pytest.raises(UsageError, match="multi-scale computes images of several sizes"):
        evaluate(exported, data_of(exported, photos), protocol="multi-scale")


def test_a_flip_that_would_miss_the_mean_of_each_pixel_is_refused(
    network: TrainedNetwork, exported: ExportedNetwork, photos: str
) -> None:
    values = {**exported.config.model_dump(), "mean": None}
    other = ExportedNetwork(exported.folder, ExportedConfig.model_validate(values))
    with pytest.raises(UsageError, match="flipped after a mean of each pixel is subtracted"):
        evaluate(other, data_of(other, photos), flip=True)


def test_data_of_other_classes_are_refused(
    network: TrainedNetwork, photos: str, tmp_path: Path
) -> None:
    other = replace(network, class_names=("kind 0", "kind 1", "else"))
    with pytest.raises(DataError, match="kind 2"):
        export_network(other, tmp_path / "out", engine="openvino", data=photos)
    assert not (tmp_path / "out").exists()


def test_golden_images_are_those_of_the_data(
    network: TrainedNetwork, photos: str, tmp_path: Path
) -> None:
    from resnetkit.inference.golden import choose_golden

    chosen = choose_golden(network, photos)
    assert chosen.pixels.shape == (16, 3, 16, 16)
    assert chosen.source == f"16 images of the test split of {Path(photos).name}"
    drawn = choose_golden(network)
    assert drawn.source == "16 drawn images"
    assert len(np.unique(drawn.pixels.reshape(16, -1), axis=0)) == 16
    per_pixel = Normalization(torch.zeros(3, 16, 16), torch.ones(3, 1, 1))
    again = choose_golden(replace(network, normalization=per_pixel))
    np.testing.assert_array_equal(again.pixels, drawn.pixels)
