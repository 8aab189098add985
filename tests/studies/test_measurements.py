"""Measurements of finished runs: taken once, kept in the run's folder, and what they hold."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnetkit.errors import DataError
from resnetkit.probes.memory import bytes_kept
from resnetkit.studies import measurements
from resnetkit.studies.measurements import (
    MEASUREMENTS,
    at_start,
    is_measured,
    measure,
    measured,
)
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run

Recipes = Callable[..., Recipe]

NETWORK = {"model.name": "resnet20"}


@pytest.fixture(scope="module")
def run(tiny: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = tiny({**NETWORK, "length": "2 epochs", "checkpoint.snapshots": 2})
    return train(recipe, tmp_path_factory.mktemp("measured") / "run")


@pytest.fixture(scope="module")
def everything(run: Run) -> dict[str, dict[str, list[float]]]:
    for name in MEASUREMENTS:
        measure(run, name)
    return {name: measured(run, name) for name in MEASUREMENTS}


def test_all_are_kept_and_finite(everything: dict[str, dict[str, list[float]]]) -> None:
    for name, measurement in everything.items():
        for key, values in measurement.items():
            assert values, (name, key)
            assert all(math.isfinite(v) or key in ("before", "after") for v in values), (name, key)


def test_a_measurement_is_taken_once(
    run: Run, everything: dict[str, dict[str, list[float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Run) -> dict[str, list[float]]:
        raise AssertionError("measured again")

    monkeypatch.setitem(measurements.MEASUREMENTS, "responses", refuse)
    assert is_measured(run, "responses")
    measure(run, "responses")
    run.probe_path("responses").unlink()
    with pytest.raises(AssertionError, match="measured again"):
        measure(run, "responses")
    monkeypatch.undo()
    threads = torch.get_num_threads()
    measure(run, "responses")
    assert measured(run, "responses") == everything["responses"]  # the same again
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 3}', '{"a": ["x"]}'])
def test_a_corrupt_measurement_is_refused_with_advice(
    content: str, run: Run, tmp_path: Path
) -> None:
    other = Run(tmp_path, run.recipe)
    other.probe_path("responses").parent.mkdir()
    other.probe_path("responses").write_text(content)
    with pytest.raises(DataError, match="the study measures the run again"):
        measured(other, "responses")


def test_gradients_are_those_before_training(
    run: Run, everything: dict[str, dict[str, list[float]]], tiny: Recipes, tmp_path: Path
) -> None:
    other = train(
        tiny({**NETWORK, "length": "1 steps"}), tmp_path / "other"
    )  # the same seed, hardly trained
    measure(other, "gradients")
    for key in ("input", "weight", "slope"):
        assert measured(other, "gradients")[key] == everything["gradients"][key]
    assert len(everything["gradients"]["weight"]) == 20
    assert len(everything["gradients"]["input"]) == 19


def test_numbers_are_of_the_whole_network(everything: dict[str, dict[str, list[float]]]) -> None:
    assert len(everything["responses"]["deviation"]) == 19
    assert len(everything["residuals"]["after"]) == len(everything["residuals"]["before"]) == 9
    assert len(everything["residuals"]["change"]) == 7
    assert len(everything["lesions"]["one"]) == 7
    assert set(everything["lesions"]) == {
        "whole",
        "one",
        "swapped",
        "without 2",
        "without 3",
        "without 4",
    }
    assert len(everything["lesions"]["swapped"]) == 4  # neighbors of one stage
    assert everything["paths"]["blocks"] == list(range(10))


def test_the_whole_networks_error_is_that_of_the_run(
    run: Run, everything: dict[str, dict[str, list[float]]]
) -> None:
    assert run.final is not None
    assert everything["lesions"]["whole"] == [pytest.approx(run.final.test.error)]


def test_the_memory_is_that_of_a_whole_batch(
    run: Run, everything: dict[str, dict[str, list[float]]]
) -> None:
    """The last stage sees 2x2 pixels, whose convolutions keep a matrix of the weights once."""
    model, dataset, normalization = at_start(run)
    images = normalization(dataset.images[dataset.splits["train"][: run.recipe.batch_size]])
    assert len(images) == run.recipe.batch_size > 16
    whole = bytes_kept(model, images) / 2**20
    assert everything["memory"]["mebibytes"] == [pytest.approx(whole, rel=0.02)]


def test_gradients_and_residuals_are_measured_along_training_too(
    tiny: Recipes, tmp_path: Path
) -> None:
    run = train(tiny({"checkpoint.snapshots": 3}), tmp_path / "kept")
    for name in ("gradients", "residuals"):
        measure(run, name)
    flow, residuals = measured(run, "gradients"), measured(run, "residuals")
    assert flow["steps"] == residuals["steps"] == [0.0, 2.0, 4.0, 6.0]
    assert flow["slope along"][0] == pytest.approx(flow["slope"][0])  # the first is untrained
    untrained = sum(residuals["before"]) / len(residuals["before"])
    assert residuals["mean along"][0] == pytest.approx(untrained)
    assert residuals["mean along"][-1] == pytest.approx(residuals["mean"][0])  # the last finished
    assert len(set(flow["slope along"])) == len(set(residuals["mean along"])) == 4
