"""What is chosen for custom images, and said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetkit.errors import DataError, RecipeError
from resnetkit.models.summary import count
from resnetkit.models.zoo import Architecture
from resnetkit.training.auto_recipe import AutoRequest, auto_recipe, duration_words
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.time_budget import ReadCost, StepCost
from resnetkit.weights.published import find_published

Recipes = Callable[..., Recipe]


@dataclass
class FakeTimings:
    """A machine of a constant speed, which nobody has to measure.

    Attributes:
        speed: multiply-adds of training steps in a second.
        decoding: seconds for an image.
        fits: whether all images fit into the cache.
        timed: networks and image sizes of the steps that were asked for.
    """

    speed: float = 1e10
    decoding: float = 0.001
    fits: bool = True
    timed: list[tuple[str, int]] = field(default_factory=list)

    def step(
        self, architecture: Architecture, recipe: Recipe, *, expected: float | None
    ) -> StepCost:
        size = recipe.data.image_size
        seconds = 3 * count(architecture, size).multiply_adds / self.speed
        assert expected is None or expected == pytest.approx(seconds)
        self.timed.append((recipe.model.name, size))
        return StepCost(seconds, 0.001, 0.01)

    def reading(self, paths: Sequence[Path], recipe: Recipe) -> tuple[ReadCost, bool]:
        return ReadCost(self.decoding, self.decoding, 0.0005), self.fits


def folder(root: Path, counts: dict[str, int], size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    for name, images in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(images):
            tiles = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
            tiles.resize(size, Image.Resampling.NEAREST).save(root / name / f"{number}.png")
    return root


CHOSEN: dict[str, tuple[dict[str, int], tuple[int, int], dict[str, Any]]] = {
    "small images keep their size": (
        {"a": 20, "b": 20},
        (50, 41),
        {"model.name": "resnet20", "data.image_size": 40, "data.crop_pct": 1.0},
    ),
    "tiny images grow a little": ({"a": 9, "b": 9}, (12, 9), {"data.image_size": 32}),
    "photos are not enlarged": (
        {"a": 5, "b": 5},
        (200, 150),
        {"model.name": "resnet18", "data.image_size": 128, "length": "120 epochs"},
    ),
    "uneven classes are evened out": ({"a": 40, "b": 5}, (20, 20), {"class_weights": "balanced"}),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_the_choice_follows_the_images_and_makes_a_recipe(tmp_path: Path, case: str) -> None:
    counts, size, expected = CHOSEN[case]
    photos = folder(tmp_path / "photos", counts, size)
    choice = auto_recipe(AutoRequest(photos), FakeTimings())
    assert expected.items() <= choice.changes.items()
    recipe = choice.recipe
    assert recipe.data.name == str(photos)
    train_images = sum(count - 2 * max(1, round(count / 10)) for count in counts.values())
    words = choice.in_words()
    assert words.startswith(f"{train_images} training images, about {min(size)} pixels")
    assert f"{recipe.model.name} at {recipe.data.image_size}x" in words
    assert ("weights fetch" in words) == (recipe.model.name == "resnet18")
    assert find_published("resnet18.IMAGENET1K_V1") is not None  # which the words name
    assert ("class_weights=balanced" in words) == (recipe.class_weights == "balanced")
    assert f"{recipe.length} in batches" in words


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 training photos of 240 pixels."""
    return folder(tmp_path_factory.mktemp("own") / "photos", {"a": 100, "b": 100}, (250, 240))


@pytest.mark.parametrize(
    ("speed", "minutes", "network", "size"),
    [
        (1e8, 10, "resnet20", 32),
        (2e10, 10, "resnet18", 128),
        (5e9, 1, "resnet20", 32),
        (5e9, 100, "resnet18", 224),
        (1e12, 10, "resnet18", 224),
    ],
)
def test_network_and_image_size_follow_time_and_machine(
    photos: Path, speed: float, minutes: float, network: str, size: int
) -> None:
    timings = FakeTimings(speed)
    choice = auto_recipe(AutoRequest(photos, minutes), timings)
    assert (choice.recipe.model.name, choice.recipe.data.image_size) == (network, size)
    assert choice.recipe.length.count == choice.plan.epochs
    assert (network, size) in timings.timed  # what is chosen was timed at its own size
    assert len(timings.timed) <= 4
    fits = choice.plan.seconds <= 60 * minutes
    assert ("longer than the" in choice.in_words()) == (not fits)
    assert f"takes about {duration_words(choice.plan.seconds)}" in choice.in_words()


def test_nothing_is_cached_where_the_disk_has_no_room(photos: Path) -> None:
    for fits in (True, False):
        timings = FakeTimings(decoding=0.2, fits=fits)
        choice = auto_recipe(AutoRequest(photos), timings)
        assert (choice.recipe.data.cache == "disk") == fits
        assert ("cached on the disk" in choice.in_words()) == fits


def test_what_the_user_sets_is_kept_and_counted(photos: Path) -> None:
    changes = {"length": "5 epochs", "model.name": "resnet34", "data.image_size": 96}
    timings = FakeTimings()
    choice = auto_recipe(AutoRequest(photos, changes=changes), timings)
    assert changes.items() <= choice.changes.items()
    assert timings.timed == [("resnet34", 96)]
    assert choice.plan.epochs == 5
    assert "5 epochs in batches" in choice.in_words()
    assert "horizontal flips" in choice.in_words()
    unflipped = {**changes, "data.augment.flip": "none"}
    assert "flip" not in auto_recipe(AutoRequest(photos, changes=unflipped), timings).in_words()
    late = auto_recipe(AutoRequest(photos, 0.01, changes=changes), timings)
    assert "with these settings: longer than the 1 seconds asked for" in late.in_words()
    with pytest.raises(RecipeError, match="unknown key"):
        auto_recipe(AutoRequest(photos, changes={"lenght": 1}), timings)


def test_short_trainings_warm_up_for_one_epoch(photos: Path) -> None:
    short = auto_recipe(AutoRequest(photos, 0.01), FakeTimings())
    assert short.recipe.length.count < 10
    assert short.changes["warmup.length"] == "1 epochs"
    without = AutoRequest(photos, 0.01, changes={"warmup.kind": "none"})
    assert auto_recipe(without, FakeTimings()).recipe.warmup.kind == "none"
    assert "warmup.length" not in auto_recipe(AutoRequest(photos), FakeTimings()).changes


def test_the_folder_follows_the_request_alone(photos: Path) -> None:
    request = AutoRequest(photos, changes={"seed": 3, "batch_size": 8})
    assert request.folder_name.startswith("auto-photos-seed3-")
    reordered = AutoRequest(photos, 10, changes={"batch_size": 8, "seed": 3})
    assert reordered.folder_name == request.folder_name
    others = [
        AutoRequest(photos, 11, changes=request.changes),
        AutoRequest(photos / "a", changes=request.changes),
        AutoRequest(photos, weights="w", changes=request.changes),
        AutoRequest(photos, variant="v1", changes=request.changes),
        AutoRequest(photos, micro_batch=4, changes=request.changes),
        AutoRequest(photos, changes={"seed": 3}),
    ]
    assert len({request.folder_name, *(other.folder_name for other in others)}) == 7


def test_weights_decide_network_size_and_rates(tiny: Recipes, tmp_path: Path) -> None:
    learned = train(tiny({"model.options": {"shortcut": "B"}}), tmp_path / "run")
    photos = folder(tmp_path / "photos", {"a": 9, "b": 9}, (20, 20))
    choice = auto_recipe(AutoRequest(photos, weights=str(learned.folder)), FakeTimings())
    assert choice.changes["model.name"] == "resnet8"
    assert choice.changes["model.options"] == {"shortcut": "B", "in_channels": 1}
    assert choice.changes["data.image_size"] == 8
    assert choice.changes["finetune.backbone_lr"] == 0.1
    recipe = load_recipe("finetune", {**choice.changes, "length": "2 epochs", "log_every": 1})
    assert str(learned.folder) in choice.in_words()
    run = train(recipe, tmp_path / "tuned")  # the gray network looks at color photos in gray
    assert run.final is not None
    assert run.final.train.count == 14


def test_a_folder_whose_images_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the images can be read"):
        auto_recipe(AutoRequest(tmp_path), FakeTimings())
