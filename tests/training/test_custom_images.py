"""Training on a user's images: what is written down, what goes on after a crash, bad files."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.datasets import open_dataset
from resnetkit.data.images.folder import read_images
from resnetkit.data.normalization import Normalization
from resnetkit.errors import DataError, RecipeError, WeightsError
from resnetkit.runtime.process_group import World
from resnetkit.training import checks
from resnetkit.training import setup as training_setup
from resnetkit.training.checks import check_same_data
from resnetkit.training.dry_run import dry_run
from resnetkit.training.events import Event, Session
from resnetkit.training.loop import train
from resnetkit.training.lr_find import find_lr
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]
Results = Callable[[Path], dict[str, bytes]]
CLASSES = ("cat", "dog")


def picture(label: int, number: int) -> Image.Image:
    """Returns a noisy image that is bright above or below, according to its label."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 120, (20, 24, 3))
    pixels[10 * label : 10 * label + 10] += 120
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            picture(label, 100 * label + number).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def own(tiny: Recipes, photos: Path) -> Callable[..., Recipe]:
    """Makes recipes of six steps on the photos."""
    basic = {
        "data.name": str(photos),
        "data.image_size": 16,
        "data.augment.crop": "area",
        "data.augment.crop_padding": 0,
        "batch_size": 16,
        "log_every": 1,
        "length": "6 steps",
        "checkpoint.every": "2 steps",
    }

    def make(changes: dict[str, Any] | None = None) -> Recipe:
        return tiny({**basic, **(changes or {})})

    return make


def crash_in(folder: Path, recipe: Recipe) -> None:
    """Trains in a folder until the fifth event, after a checkpoint, and dies there."""
    seen: list[Event] = []

    def crash(event: Event) -> None:
        seen.append(event)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, observe=crash)
    assert any((folder / "checkpoints").iterdir())


def test_a_run_writes_down_what_it_learns_from_and_learns(
    own: Recipes, photos: Path, tmp_path: Path
) -> None:
    run = train(own({"length": "12 epochs", "optimizer.lr": 0.05}), tmp_path / "run")
    listed = read_images(run.images_path)
    assert len(listed.files) == 80
    assert listed.class_names == CLASSES
    assert {file.split for file in listed.files} == {"train", "validation", "test"}
    assert run.final is not None
    assert (run.final.train.count, run.final.test.count) == (64, 8)
    assert run.final.train.error < 15  # the task is easy: guessing is wrong in half


def test_the_network_does_not_say_where_the_images_lie(
    own: Recipes, photos: Path, tmp_path: Path
) -> None:
    run = train(own({"length": "1 steps"}), tmp_path / "run")
    for path in run.model.iterdir():
        assert str(photos.parent).encode() not in path.read_bytes(), path.name
    assert "trained on photos" in (run.model / "README.md").read_text()
    images = load_network(run.folder).images
    assert images is not None
    assert (images.path, images.read()) == (run.images_path, run.images)
    copy = shutil.copytree(run.model, tmp_path / "given away")
    assert load_network(copy).images is None
    assert load_network(copy).origin == "resnet8 trained by resnetkit on photos"


@pytest.mark.parametrize("crop", ["area", "scale", "padded"])
def test_a_crash_changes_no_byte_of_the_result(
    own: Recipes, photos: Path, tmp_path: Path, results: Results, crop: str
) -> None:
    recipe = own(
        {"data.augment.crop": crop, "data.augment.side": [16, 24], "data.augment.flip": "random"}
    )
    whole = train(recipe, tmp_path / "whole")
    crash_in(tmp_path / "crashed", recipe)
    picture(0, 999).save(photos / "cat" / "later.png")  # what came later is not learned from
    resumed = train(recipe, tmp_path / "crashed")
    assert results(resumed.folder) == results(whole.folder)
    assert resumed.images_path.read_bytes() == whole.images_path.read_bytes()


def test_a_damaged_photo_ends_training_with_its_name_or_is_skipped(
    own: Recipes, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "dog" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"dog/3\.png: the file is empty\. 1 image") as caught:
        train(own({"length": "6 epochs"}), tmp_path / "run")
    assert "nothing was trained" in str(caught.value)
    assert not (tmp_path / "run").exists()
    run = train(own({"data.on_bad_image": "skip"}), tmp_path / "skipping")
    assert len(read_images(run.images_path).files) == 79
    assert "dog/3.png" in caplog.text


@pytest.mark.parametrize(
    "when", ["before", "before, to be cached", "during", "searching a rate", "in a dry run"]
)
def test_a_damaged_photo_that_was_not_checked_ends_training_with_both_ways_out(
    own: Recipes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(checks, "MOST_CHECKED", 10)
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    files = train(own({"length": "1 steps"}), tmp_path / "first").images.files
    training = [file.path for file in files if file.split == "train"]

    def damage(event: Event | None = None) -> None:
        if event is None or isinstance(event, Session):
            for path in training:
                path.write_bytes(b"")

    if when != "during":
        damage()
    recipe = own({"data.cache": "disk" if "cached" in when else "none"})
    work = partial(train, recipe, tmp_path / "run", observe=damage if when == "during" else print)
    if when in ("searching a rate", "in a dry run"):
        unmeasured = Normalization(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
        monkeypatch.setattr(training_setup, "find_normalization", lambda *_: unmeasured)
        work = partial(dry_run if "dry run" in when else find_lr, recipe)
    with pytest.raises(DataError) as caught:
        work()
    path, _, rest = str(caught.value).partition(": ")
    assert Path(path) in training
    assert rest == (
        f"the file is empty. 'resnet data check {photos}' lists all images that cannot be used; a"
        " new run with data.on_bad_image=skip leaves them out."
    )


@pytest.mark.parametrize("change", ["parts exchanged", "labels exchanged", "cut off", "removed"])
def test_a_run_does_not_go_on_with_other_images(
    own: Recipes, photos: Path, tmp_path: Path, change: str
) -> None:
    """Else the images that it will be tested on would be learned from."""
    crash_in(tmp_path / "run", own())
    path = tmp_path / "run" / "images.csv"
    text = path.read_text()  # with plain ends of lines
    changed = {
        "parts exchanged": text.replace(",test\n", ",t\n").replace(",train\n", ",test\n"),
        "labels exchanged": text.replace(",cat,", ",c,").replace(",dog,", ",cat,"),
        "cut off": "\n".join(text.splitlines()[:60]) + "\n",
        "removed": "",
    }[change]
    changed = changed.replace(",t\n", ",train\n").replace(",c,", ",dog,")
    path.write_text(changed)
    if change == "removed":
        path.unlink()
        picture(0, 999).save(photos / "cat" / "later.png")
    with pytest.raises(WeightsError, match="images, their classes or splits differ from those it"):
        train(own(), tmp_path / "run")


def test_training_from_the_cache_is_repeated_to_the_bit(
    own: Recipes, tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    recipe = own({"data.cache": "disk", "data.augment.area": [0.5, 1.0]})
    first, second = (train(recipe, tmp_path / name) for name in ("first", "second"))
    assert results(first.folder) == results(second.folder)
    assert len(list((tmp_path / "cache" / "photos").glob("*/pixels"))) == 1


def test_the_validation_part_that_serves_as_test_part_is_not_learned_from(
    own: Recipes, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "divided").mkdir()
    (tmp_path / "divided" / "train").symlink_to(photos)
    (tmp_path / "divided" / "val").symlink_to(shutil.copytree(photos, tmp_path / "held"))
    changes = {"data.name": str(tmp_path / "divided"), "data.train_on": "train+validation"}
    with pytest.raises(RecipeError, match="'divided' has no test split: the validation"):
        train(own({**changes, "evaluation.split": "test"}), tmp_path / "run")


class TwoRanks(World):
    """A world in which another rank has seen other images."""

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([values, values + 1])


def test_ranks_that_see_other_images_are_refused(own: Recipes, photos: Path) -> None:
    dataset = open_dataset(str(photos), image_size=16)
    check_same_data(dataset, World(0, 1, torch.device("cpu")))
    with pytest.raises(DataError, match="the 2 processes do not read the same images"):
        check_same_data(dataset, TwoRanks(0, 2, torch.device("cpu")))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no size": ({"data.image_size": 0}, "set it for a folder of images"),
    "crops below the size": (
        {"data.augment.crop": "scale", "data.augment.side": [8, 20]},
        "side begins at 8",
    ),
    "sides the wrong way round": (
        {"data.augment.side": [30, 20]},
        "expected the smaller one first",
    ),
    "small crops of pixel means": (
        {"data.normalize": "pixel-mean", "data.early_size": 8},
        "does not fit smaller crops",
    ),
    "a size for the digits": ({"data.name": "digits"}, "leave it out for a named data set"),
    "a crop for the digits": (
        {"data.name": "digits", "data.image_size": 0},
        "crop 'area' is for custom images",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_own_images_is_refused(own: Recipes, case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(RecipeError) as caught:
        own(changes)
    assert message in str(caught.value)


def test_a_relative_path_means_the_same_from_everywhere(
    own: Recipes, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    assert own({"data.name": "photos"}).data.name == str(photos)
    assert own({"data.name": "photos"}).digest == own().digest
    assert own().name.startswith("resnet8-photos-seed")


# Images that were moved


def test_a_run_whose_images_were_moved_goes_on_to_the_same_result(
    own: Recipes, photos: Path, tmp_path: Path, results: Results
) -> None:
    recipe = own()
    whole = train(recipe, tmp_path / "whole")
    crash_in(tmp_path / "crashed", recipe)
    moved = photos.rename(tmp_path / "moved")
    with pytest.raises(
        DataError, match=r"images of the run: 80 of 80 are missing, such as cat/0\.png"
    ):
        train(recipe, tmp_path / "crashed")
    resumed = train(own({"data.name": str(moved)}), tmp_path / "crashed")
    expected, found = results(whole.folder), results(resumed.folder)
    expected.pop("images.csv")
    assert [file.path.is_file() for file in read_images(resumed.images_path).files] == [True] * 80
    assert str(moved).encode() in found.pop("images.csv")
    assert found == expected
    moved.rename(photos)  # and back: its recipe has said so from the beginning
    assert train(recipe, resumed.folder).final == whole.final
    assert resumed.images_path.read_bytes() == whole.images_path.read_bytes()


def test_images_keep_their_numbers_when_only_some_of_them_were_moved(
    own: Recipes, photos: Path, tmp_path: Path, results: Results
) -> None:
    """Those whose paths begin at the table move with it, from before the others to after them."""
    near = tmp_path / "near"
    near.mkdir()
    (photos / "dog").rename(near / "dog")
    paths = [*sorted((photos / "cat").iterdir()), *sorted((near / "dog").iterdir())]
    rows = [f"{str(path).removeprefix(f'{near}/')},{path.parent.name}\n" for path in paths]
    (near / "table.csv").write_text("path,label\n" + "".join(rows))
    recipe = own({"data.name": str(near / "table.csv")})
    whole = train(recipe, tmp_path / "whole")
    crash_in(tmp_path / "crashed", recipe)
    moved = near.rename(tmp_path / "remote")
    resumed = train(own({"data.name": str(moved / "table.csv")}), tmp_path / "crashed")
    expected, found = results(whole.folder), results(resumed.folder)
    assert expected.pop("images.csv") != found.pop("images.csv")
    assert found == expected


def test_a_run_does_not_go_on_with_other_images_elsewhere(
    own: Recipes, photos: Path, tmp_path: Path, contents: Results
) -> None:
    crash_in(tmp_path / "run", own())
    before = contents(tmp_path / "run")
    copy = shutil.copytree(photos, tmp_path / "copy")
    picture(0, 999).save(copy / "cat" / "7.png")
    elsewhere = own({"data.name": str(copy)})
    with pytest.raises(DataError, match=r"content of 1 of 80 differs, such as cat/7\.png"):
        train(elsewhere, tmp_path / "run")
    with pytest.raises(RecipeError, match="holds a run of another recipe"):
        train(own({"data.name": str(copy), "seed": 1}), tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_a_class_of_which_no_image_can_be_used_is_an_error(
    own: Recipes, photos: Path, tmp_path: Path
) -> None:
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of the class 'cat' can be used"):
        train(own({"data.on_bad_image": "skip"}), tmp_path / "run")


def test_what_is_passed_over_is_said(
    own: Recipes, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "cat" / "last.heic").touch()
    (photos / "cat" / "gone.png").symlink_to("/nowhere")
    train(own({"length": "1 steps"}), tmp_path / "run")
    assert "skipped 2: 1 (" in caplog.text
    assert "a broken link" in caplog.text
    assert "HEIC" in caplog.text
