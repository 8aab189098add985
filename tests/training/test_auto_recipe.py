"""What is chosen for custom images, and said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetkit.errors import DataError
from resnetkit.training.auto_recipe import auto_recipe
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.weights.published import find_published

Recipes = Callable[..., Recipe]


def folder(root: Path, counts: dict[str, int], size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


CHOSEN: dict[str, tuple[dict[str, int], tuple[int, int], dict[str, Any]]] = {
    "small images keep their size": (
        {"a": 20, "b": 20},
        (50, 41),
        {
            "model.name": "resnet20",
            "data.image_size": 40,
            "length": "60 epochs",
            "data.crop_pct": 1.0,
        },
    ),
    "tiny images grow a little": ({"a": 9, "b": 9}, (12, 9), {"data.image_size": 32}),
    "photos are shown smaller": (
        {"a": 5, "b": 5},
        (200, 150),
        {"model.name": "resnet18", "data.image_size": 128},
    ),
    "uneven classes are evened out": ({"a": 40, "b": 5}, (20, 20), {"class_weights": "balanced"}),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_the_choice_follows_the_images_and_makes_a_recipe(tmp_path: Path, case: str) -> None:
    counts, size, expected = CHOSEN[case]
    choice = auto_recipe(folder(tmp_path / "photos", counts, size))
    assert expected.items() <= choice.changes.items()
    recipe = load_recipe("finetune", choice.changes)
    assert recipe.data.name == str(tmp_path / "photos")
    train_images = sum(count - 2 * max(1, round(count / 10)) for count in counts.values())
    words = choice.in_words(recipe)
    assert words.startswith(f"{train_images} training images, about {min(size)} pixels")
    assert f"{recipe.model.name} at {recipe.data.image_size}x" in words
    assert ("weights fetch" in words) == (recipe.model.name == "resnet18")
    assert find_published("resnet18.IMAGENET1K_V1") is not None  # which the words name
    assert ("class_weights=balanced" in words) == (recipe.class_weights == "balanced")
    assert "5 epochs in batches" in choice.in_words(load_recipe("finetune", {"length": "5 epochs"}))


def test_weights_decide_network_size_and_rates(tiny: Recipes, tmp_path: Path) -> None:
    learned = train(tiny({"model.options": {"shortcut": "B"}}), tmp_path / "run")
    photos = folder(tmp_path / "photos", {"a": 9, "b": 9}, (20, 20))
    choice = auto_recipe(photos, weights=str(learned.folder))
    assert choice.changes["model.name"] == "resnet8"
    assert choice.changes["model.options"] == {"shortcut": "B", "in_channels": 1}
    assert choice.changes["data.image_size"] == 8
    assert choice.changes["finetune.backbone_lr"] == 0.1
    recipe = load_recipe("finetune", {**choice.changes, "length": "2 epochs", "log_every": 1})
    assert str(learned.folder) in choice.in_words(recipe)
    run = train(recipe, tmp_path / "tuned")  # the gray network looks at color photos in gray
    assert run.final is not None
    assert run.final.train.count == 14


def test_a_folder_whose_images_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the images can be read"):
        auto_recipe(tmp_path)
