"""Evaluation of a trained network against the run's own measurement and a plain loop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnetkit.data.datasets import open_dataset
from resnetkit.errors import DataError
from resnetkit.evaluation.evaluate import evaluate
from resnetkit.evaluation.network_data import check_fit
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import read_run
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

Recipes = Callable[..., Recipe]


@pytest.fixture(scope="module")
def run(on_digits: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    train(on_digits({"length": "2 epochs", "batch_size": 128, "model.name": "resnet8"}), folder)
    return folder


@pytest.fixture
def network(run: Path) -> TrainedNetwork:
    return load_network(run)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_it_measures_what_the_run_measured(split: str, run: Path, network: TrainedNetwork) -> None:
    final = read_run(run).final
    assert final is not None
    found = evaluate(network, open_dataset("digits"), split=split, device="cpu")  # type: ignore[arg-type]
    expected = final.scores[split]
    assert found.metrics.images == expected.count
    assert found.metrics.top1.error == pytest.approx(expected.error)
    assert found.metrics.top5.error == pytest.approx(expected.top5_error)
    assert found.metrics.loss == pytest.approx(expected.loss, rel=1e-4)
    if split == "test":
        assert [list(row) for row in found.metrics.confusion] == final.confusion


def test_flips_average_probabilities(network: TrainedNetwork) -> None:
    digits = replace(open_dataset("digits"), mirrored=True)
    found = evaluate(network, digits, flip=True, device="cpu")
    wrong = 0
    for sample in digits.splits["test"].tolist():  # one image at a time
        image = (
            digits.images[sample].float() - network.normalization.mean
        ) / network.normalization.std
        with torch.inference_mode():
            views = network.model(torch.stack([image, image.flip(2)])).softmax(1)
        wrong += int(views.mean(0).argmax()) != int(digits.labels[sample])
    assert found.metrics.top1.error == pytest.approx(100 * wrong / found.metrics.images)
    assert found.metrics.top1 != evaluate(network, digits, device="cpu").metrics.top1


def test_flips_of_digits_are_refused(network: TrainedNetwork) -> None:
    with pytest.raises(DataError, match="a mirrored image of 'digits' is not an image"):
        evaluate(network, open_dataset("digits"), flip=True)


def test_progress_is_told(network: TrainedNetwork) -> None:
    shares: list[float] = []
    evaluate(network, open_dataset("digits"), device="cpu", observe=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


MISFITS: dict[str, tuple[dict[str, object], str]] = {
    "class count": ({"class_names": ("a", "b")}, "has 10 classes, but 'digits' has 2"),
    "class names": (
        {"class_names": tuple("abcdefghij")},
        "digits contains classes that the network was not trained on: a (10 in all). Its classes"
        " are 0, 1, 2, ....",
    ),
    "channels": (
        {"images": torch.zeros(1797, 3, 8, 8, dtype=torch.uint8)},
        "takes images of 1 channel(s), those of 'digits' have 3",
    ),
    "size": (
        {"images": torch.zeros(1797, 1, 28, 28, dtype=torch.uint8)},
        "was trained on images of 8x8 pixels, those of 'digits' have 28x28",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_other_data_is_refused(misfit: str, network: TrainedNetwork) -> None:
    changes, message = MISFITS[misfit]
    other = replace(open_dataset("digits"), **changes)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        evaluate(network, other)
    assert message in str(caught.value)


def test_classes_in_another_order_are_the_same_classes(network: TrainedNetwork) -> None:
    digits = open_dataset("digits")
    backwards = replace(digits, class_names=digits.class_names[::-1], labels=9 - digits.labels)
    found, expected = (evaluate(network, data, device="cpu") for data in (backwards, digits))
    assert found.metrics.loss == pytest.approx(expected.metrics.loss)
    assert found.metrics.top1 == expected.metrics.top1
    with pytest.raises(DataError, match="another order than 'digits': its class 0 is '0', there"):
        check_fit(network, backwards)  # for all who do not match them
    twice = replace(digits, class_names=("1", *digits.class_names[1:]))
    with pytest.raises(DataError, match="several classes of the same name"):
        evaluate(network, twice, device="cpu")
