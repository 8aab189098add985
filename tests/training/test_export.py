"""The folder that is exchanged: complete, correct, and readable without us."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits

from resnetkit.data.datasets import open_dataset
from resnetkit.models.zoo import Architecture, create_model
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run

Recipes = Callable[..., Recipe]
CHANGES: dict[str, Any] = {
    "length": "3 steps",
    "model.options": {"shortcut": "B", "zero_init_residual": True},
    "seed": 11,
}


@pytest.fixture(scope="module")
def run(on_digits: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(on_digits(CHANGES), tmp_path_factory.mktemp("run"))


def config_of(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.model / "config.json").read_text()))


def test_the_folder_is_complete(run: Run) -> None:
    assert sorted(path.name for path in run.model.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessing.safetensors",
    ]


def test_the_configuration_says_what_the_network_is(run: Run) -> None:
    config = config_of(run)
    assert config["architecture"] == "resnet20"
    assert config["class_names"] == [str(digit) for digit in range(10)]
    assert config["image_size"] == [8, 8]
    assert config["recipe_sha256"] == run.recipe.digest
    assert config["data"] == {"name": "digits", "sha256": open_dataset("digits").sha256}


def test_the_network_can_be_built_from_the_configuration_alone(run: Run) -> None:
    layers = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config_of(run)["layers"].items()
    }
    asked = create_model("resnet20", num_classes=10, in_channels=1, shortcut="B").state_dict()
    built = Architecture(**layers).build()
    weights = safetensors.torch.load_file(run.model / "model.safetensors")
    built.load_state_dict(weights, strict=True)
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in asked.items()
    }


def test_the_weights_are_those_of_the_last_step(run: Run) -> None:
    exported = safetensors.torch.load_file(run.model / "model.safetensors")
    last = safetensors.torch.load_file(run.checkpoints / "step-3" / "model.safetensors")
    assert exported.keys() == last.keys()
    assert all(torch.equal(exported[name], last[name]) for name in last)


def test_the_weights_are_plain_safetensors(run: Run) -> None:
    content = (run.model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header["fc.weight"] == {
        "dtype": "F32",
        "shape": [10, 64],
        "data_offsets": header["fc.weight"]["data_offsets"],
    }


def test_the_preprocessing_is_measured_on_what_was_trained_on(run: Run) -> None:
    scale = safetensors.torch.load_file(run.model / "preprocessing.safetensors")
    ids = open_dataset("digits").splits["train"].numpy()
    pixels = np.rint(load_digits().images[ids] * 255 / 16)
    assert scale["mean"].item() == pytest.approx(pixels.mean(), rel=1e-6)
    assert scale["std"].item() == pytest.approx(pixels.std(), rel=1e-6)


def test_the_card_tells_the_numbers(run: Run) -> None:
    card = (run.model / "README.md").read_text()
    final = run.final
    assert final is not None
    assert card.startswith("# resnet20 trained on digits\n")
    for split in ("train", "validation", "test"):
        score = final.scores[split]
        row = f"| {split} | {score.error:.2f} | {score.loss:.4f} | {score.count:,} |"
        assert row in card
    model = create_model("resnet20", num_classes=10, in_channels=1, shortcut="B")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"20 layers, {parameters:,} parameters, " in card
    assert "for an image of 8x8 pixels" in card
    assert "from seed 11" in card
    assert run.recipe.digest in card
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card


def test_the_card_counts_multiply_adds(run: Run) -> None:
    """Of resnet20 on 8x8: every convolution's outputs times what each sums, written out."""
    stages = [(16, 16, 64), (16, 32, 16), (32, 64, 4)]  # inputs, width, pixels
    total = 16 * 9 * 64  # the stem sees one channel
    for inputs, width, pixels in stages:
        total += (inputs * width * 9 + 5 * width * width * 9) * pixels
        total += inputs * width * pixels if inputs != width else 0  # the projection
    total += 64 * 10
    card = (run.model / "README.md").read_text()
    assert f" {total / 1e6:.1f} million multiply-adds" in card


def test_an_export_replaces_what_was_there(tmp_path: Path, few: Recipes) -> None:
    (tmp_path / "run").mkdir()
    first = train(few(), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in first.model.iterdir()}
    lines = first.metrics_path.read_text().splitlines(keepends=True)
    first.metrics_path.write_text("".join(lines[:-1]))  # killed between export and last event
    (first.model / "stray").write_text("stray")
    again = train(few(), tmp_path / "run")
    assert {path.name: path.read_bytes() for path in again.model.iterdir()} == before
    assert again.metrics_path.read_text() == "".join(lines)
