"""Custom images on the command line: check, train with what is chosen, find a rate, evaluate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetkit.training import timings

Resnet = Callable[..., Any]
SMALL = ("--set", "model.name=resnet8")  # where the size of the network is not the point


def picture(label: int, number: int) -> Image.Image:
    """Returns a noisy image that is bright above or below, according to its label."""
    rng = np.random.default_rng(1000 * label + number)
    pixels = rng.integers(0, 120, (20, 24, 3))
    pixels[10 * label : 10 * label + 10] += 120
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(autouse=True)
def _timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times one step of four images where a machine is timed: no test here compares seconds."""
    monkeypatch.setattr(timings, "FEWEST", 1)
    monkeypatch.setattr(timings, "MOST", 1)
    monkeypatch.setattr(timings, "BATCH_SECONDS", 0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            picture(label, number).save(tmp_path / "photos" / name / f"{number:02}.png")
    return tmp_path / "photos"


def test_a_good_folder_is_counted(resnet: Resnet, photos: Path) -> None:
    answer = resnet("data", "check", str(photos))
    assert answer.code == 0
    assert answer.out.splitlines()[:3] == [
        "class\ttrain\tvalidation\ttest",
        "cat\t24\t3\t3",
        "dog\t24\t3\t3",
    ]
    assert f"{photos}: 60 images in 2 classes, the largest 1.0 times the smallest" in answer.out


def test_every_fault_is_named_and_the_exit_code_says_so(resnet: Resnet, photos: Path) -> None:
    (photos / "dog" / "03.png").write_bytes(b"")
    (photos / "cat" / "copy.png").write_bytes((photos / "dog" / "05.png").read_bytes())
    picture(0, 77).save(photos / "cat" / "77.jpg", format="PNG")
    (photos / "cat" / "notes.txt").write_text("x")
    answer = resnet("data", "check", str(photos))
    assert answer.code == 3
    assert f"bad: {photos}/dog/03.png: the file is empty." in answer.out
    assert "harmless in 1: the name ends in .jpg, but the format is PNG, such as" in answer.out
    assert "identical: 2 images, 1 in" in answer.out
    assert f"{photos}/cat/copy.png" in answer.out
    assert "not an image by its name, such as" in answer.out
    assert "1 of 62 images cannot be used" in answer.err
    facts = json.loads(resnet("data", "check", str(photos), "--json").out)
    assert [Path(bad["path"]).name for bad in facts["bad"]] == ["03.png"]
    assert facts["classes"]["dog"] == {"train": 24, "validation": 3, "test": 3}
    assert facts["duplicates"][0]["exact"] is True
    assert [image["label"] for image in facts["duplicates"][0]["images"]] == ["cat", "dog"]


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_an_estimate_says_that_it_is_without_the_cache(
    resnet: Resnet, photos: Path, cache: str
) -> None:
    values = {
        "data.image_size": 16,
        "data.augment.crop": "area",
        "data.augment.crop_padding": 0,
        "data.cache": cache,
        "batch_size": 16,
        "length": "2 steps",
    }
    changes = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    answer = resnet("train", "digits", "--data", str(photos), *SMALL, *changes, "--dry-run")
    assert answer.code == 0
    assert (" without the cache that data.cache=disk fills first;" in answer.err) == (
        cache == "disk"
    )


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_folder_named_like_a_data_set_is_meant_by_its_path(
    resnet: Resnet, photos: Path, name: str
) -> None:
    photos.rename(name)
    for words in (("data", "check"), ("data", "show"), ("train", "--dry-run", *SMALL, "--data")):
        answer = resnet(*words, f"./{name}")
        assert answer.code == 0, answer.err
        assert "means the data set" not in answer.err
    assert Path(f"{name}.png").is_file()
    assert "48 training images" in answer.err


def test_which_one_is_meant_is_said_when_both_are_there(resnet: Resnet, photos: Path) -> None:
    photos.rename("digits")
    for words in (("data", "check", "digits"), ("data", "show", "digits")):
        answer = resnet(*words)
        assert answer.code == 0
        assert (
            "'digits' means the data set of that name: write './digits' for the file or fold"
            in (answer.err)
        )
    assert resnet("study", "degradation", "--data", "./digits").code == 2
    assert "1,259 train" in resnet("data", "check", "digits").out


def test_training_says_what_it_chose_and_learns(
    resnet: Resnet, photos: Path, tmp_path: Path
) -> None:
    words = ["train", "--data", str(photos), "--out", str(tmp_path / "run")]
    answer = resnet(*words, "--set", "length=8 epochs", "--set", "warmup.length=1 epochs")
    assert answer.code == 0, answer.err
    assert "48 training images, about 20 pixels on the shorter side: resnet20 at 32" in answer.err
    assert "test error" in answer.out
    again = resnet("evaluate", str(tmp_path / "run"), "--out", str(tmp_path / "report"), "--json")
    assert again.code == 0, again.err
    facts = json.loads(again.out)
    assert facts["metrics"]["images"] == 6
    line = next(line for line in answer.out.splitlines() if line.startswith("test error"))
    assert f"test error {facts['metrics']['top1']['error']:.2f} %" in line
    assert (tmp_path / "report" / "report.html").exists()


def test_what_was_begun_goes_on_though_images_were_added(
    resnet: Resnet, photos: Path, tmp_path: Path
) -> None:
    """With more images another number of epochs would be chosen: another recipe."""
    words = ["train", "--data", str(photos), "--out", str(tmp_path / "run")]
    words += ["--set", "length=2 epochs", "--set", "warmup.kind=none", *SMALL]
    first = resnet(*words)
    for number in range(200, 290):
        picture(0, number).save(photos / "cat" / f"{number}.png")
    second = resnet(*words)
    assert (first.code, second.code) == (0, 0), second.err
    assert second.out == first.out
    assert f"resuming with the recipe in {tmp_path / 'run'}" in second.err
    assert "is already finished; nothing was trained" in second.err


@pytest.mark.parametrize("words", [[], ["finetune"], ["--recipe", "finetune"]])
def test_the_recipe_for_own_images_may_be_named(
    resnet: Resnet, photos: Path, words: list[str]
) -> None:
    answer = resnet("train", *words, "--data", str(photos), *SMALL, "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["recipe"]["data"]["image_size"] == 32


def test_weights_are_tuned(resnet: Resnet, photos: Path, tmp_path: Path) -> None:
    base = ["train", "--data", str(photos), "--set", "length=2 epochs", "--set", "warmup.kind=none"]
    base += SMALL
    assert resnet(*base, "--out", str(tmp_path / "a")).code == 0
    answer = resnet(*base, "--weights", str(tmp_path / "a"), "--out", str(tmp_path / "b"))
    assert answer.code == 0, answer.err
    assert f"from {tmp_path / 'a'} at 32x32 pixels" in answer.err
    recipe = (tmp_path / "b" / "recipe.yaml").read_text()
    assert "backbone_lr: 0.1" in recipe


def test_micro_batches_come_with_their_caveat(resnet: Resnet, photos: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(photos), "--set", "length=1 epochs", "--micro-batch", "8"]
    answer = resnet(*words, *SMALL, "--set", "warmup.kind=none", "--out", str(tmp_path / "run"))
    assert answer.code == 0, answer.err
    assert "batch normalization sees one micro-batch" in answer.err


def test_a_learning_rate_is_found_and_drawn(resnet: Resnet, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rate.svg"
    words = ["lr-find", "--data", str(photos), "--steps", "20", "--out", str(out)]
    words += [*SMALL, "--set", "batch_size=8"]
    answer = resnet(*words)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("--set optimizer.lr=")
    assert out.read_text().startswith("<svg")
    facts = json.loads(resnet(*words, "--json").out)
    assert answer.out.strip() == f"--set optimizer.lr={facts['suggested']:.2g}"


def test_a_rate_that_could_not_be_drawn_is_not_searched(
    resnet: Resnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetkit.training.lr_find.find_lr", lambda *_, **__: pytest.fail("ran"))
    (tmp_path / "rate.svg").mkdir()
    answer = resnet("lr-find", "--out", str(tmp_path / "rate.svg"))
    assert (answer.code, answer.out) == (1, "")
    assert "Choose another path with --out." in answer.err


REFUSED = {
    "no such folder": (["train", "--data", "/none/here"], 3, "there is no /none/here"),
    "no such data set": (["train", "--data", "cifar"], 2, "unknown data set 'cifar'"),
    "no such weights": (["train", "--weights", "/none"], 3, "there is no /none"),
    "few steps": (["lr-find", "--steps", "2"], 2, "20 or more"),
    "another variant": (["train", "--variant", "v2"], 2, "v1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_requests_are_refused_in_a_sentence(
    resnet: Resnet, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, code, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    answer = resnet(*words)
    assert (answer.code, answer.out) == (code, "")
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.mark.parametrize("words", [["--dry-run"], ["--set", "length=1 epochs"]])
@pytest.mark.parametrize("recipe", [[], ["digits", "--set", "data.image_size=32"]])
def test_the_classes_that_are_learned_are_said(
    resnet: Resnet, photos: Path, tmp_path: Path, words: list[str], recipe: list[str]
) -> None:
    more = [
        *SMALL,
        "--set",
        "warmup.kind=none",
        "--set",
        "data.augment.flip=none",
        "--set",
        "data.augment.crop_padding=0",
    ]
    answer = resnet(
        "train", *recipe, "--data", str(photos), *words, *more, "--out", str(tmp_path / "run")
    )
    assert answer.code == 0, answer.err
    assert "2 classes: cat, dog" in answer.err.splitlines()
    (photos / "fox").mkdir()
    answer = resnet("train", *recipe, "--data", str(photos), *words, "--out", str(tmp_path / "x"))
    assert answer.code == 3
    assert "the class 'fox' has no image" in answer.err


def test_what_is_passed_over_is_counted_by_its_reason(resnet: Resnet, photos: Path) -> None:
    (photos / "cat" / "1.heic").touch()
    (photos / "cat" / "gone.png").symlink_to("/nowhere")
    answer = resnet("data", "check", str(photos))
    assert answer.code == 0, answer.err
    assert "ignored 1: a broken link, such as" in answer.out
    assert "ignored 1: HEIC, which is not supported" in answer.out
    facts = json.loads(resnet("data", "check", str(photos), "--json").out)
    gone = {"a broken link": [str(photos / "cat" / "gone.png")]}
    assert gone.items() <= facts["skipped"].items()


QUICK = ("--set", "length=1 epochs", "--set", "warmup.kind=none", *SMALL)


def test_the_same_command_resumes_without_timing_again(resnet: Resnet, photos: Path) -> None:
    words = ("train", "--data", str(photos), "--minutes", "2", *QUICK)
    first = resnet(*words)
    assert first.code == 0, first.err
    assert "timed on this machine" in first.err
    assert "after 1 epoch(s): about" in first.err
    (run,) = Path("runs").iterdir()
    assert "minutes" not in (run / "recipe.yaml").read_text()
    for number in range(200, 290):
        picture(0, number).save(photos / "cat" / f"{number}.png")
    second = resnet(*words)
    assert (second.code, second.out) == (0, first.out), second.err
    assert f"resuming with the recipe in {run}; nothing is timed again" in second.err
    assert "timed on this machine" not in second.err
    assert "is already finished; nothing was trained" in second.err
    assert resnet(*words[:3], "--minutes", "3", *QUICK, "--dry-run").code == 0
    assert list(Path("runs").iterdir()) == [run]
    assert resnet(*words[:3], "--minutes", "3", *QUICK).code == 0
    assert len(list(Path("runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "photos", "--minutes", "0"], "--minutes 0: expected a number above 0"),
        (["--data", "photos", "--minutes", "-5"], "--minutes -5: expected a number above 0"),
        (["--data", "photos", "--minutes", "nan"], "--minutes nan: expected a number above 0"),
        (["--data", "photos", "--minutes", "1e12"], "--minutes 1e+12: expected a number above 0"),
        (["--minutes", "5"], "--minutes chooses a recipe for your images"),
        (["--data", "digits", "--minutes", "5"], "--minutes chooses a recipe for your images"),
        (["paper-imagenet", "--data", "photos", "--minutes", "5"], "no other recipe"),
    ],
)
def test_impossible_minutes_are_refused(
    resnet: Resnet, photos: Path, words: list[str], message: str
) -> None:
    answer = resnet("train", *(str(photos) if word == "photos" else word for word in words))
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert not Path("runs").exists()


def test_a_time_that_is_too_short_is_said_with_the_estimate(resnet: Resnet, photos: Path) -> None:
    answer = resnet("train", "--data", str(photos), "--minutes", "0.0001", *SMALL, "--dry-run")
    assert answer.code == 0, answer.err
    assert "the shortest training that makes sense here: longer than the 0 seconds" in answer.err
    assert "length: 3 epochs" in answer.out


def test_a_data_set_becomes_a_folder_of_images(resnet: Resnet, tmp_path: Path) -> None:
    words = ("data", "export", "digits", "--out", "photos", "--split", "validation")
    answer = resnet(*words, "--split", "test")
    assert (answer.code, answer.out) == (
        0,
        "photos: 179 validation, 359 test images in 10 classes\n",
    )
    assert resnet("data", "check", "photos").out.splitlines()[:2] == [
        "class\tvalidation\ttest",
        "0\t18\t36",
    ]
    again = resnet(*words)
    assert again.code == 1
    assert "photos already exists: choose another folder with --out." in again.err


def test_only_data_sets_of_the_table_are_exported(resnet: Resnet, photos: Path) -> None:
    answer = resnet("data", "export", str(photos), "--out", "copy")
    assert answer.code == 2
    assert f"{photos} is a path: expected a data set of 'resnet data list'." in answer.err
    answer = resnet("data", "export", "digit", "--out", "copy")
    assert answer.code == 2
    assert "unknown data set 'digit'" in answer.err
    assert not Path("copy").exists()
