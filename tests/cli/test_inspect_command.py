"""resnet inspect: outlines, comparisons, drawings, and what probes see in a run."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from resnetkit.cli.app import run as run_command
from resnetkit.models.zoo import Architecture
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import read_run

Recipes = Callable[..., Recipe]


@pytest.fixture
def folder(digits_run: Path) -> Path:
    return digits_run


def test_an_architecture_is_outlined(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["inspect", "resnet20", "--set", "shortcut=B"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "resnet20: 272,474 parameters, 40.8 M multiply-adds"
    rows = [line.split("\t") for line in lines[1:]]
    assert rows[0][:5] == ["stage", "output", "blocks", "layers", "shortcut"]
    assert ["stage3", "32x16x16", "1", "3x3, 32, /2 > 3x3, 32", "1x1 projection"] in [
        r[:5] for r in rows
    ]
    assert sum(int(row[2]) for row in rows[1:]) == 11


def test_two_networks_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    drawing = tmp_path / "new" / "both.svg"
    words = ["inspect", "plain56", "--compare", "resnet56", "--out", str(drawing)]
    assert run_command(words) == 0
    printed = capsys.readouterr()
    rows = [line.split("\t") for line in printed.out.splitlines()]
    assert ["parameters", "853,018", "853,018", "equal"] in rows
    assert ["shortcuts", "0", "27", ""] in rows
    assert drawing.read_text().startswith("<svg")
    assert f"drawn in {drawing}" in printed.err


def test_a_run_is_probed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["inspect", str(folder)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    for heading in ("gradient of weight", "deviation", "|F(x)| / |shortcut|", "pixels seen"):
        assert any(heading in row for row in rows), heading
    assert "layer3.0" in [row[0] for row in rows if len(row) == 3 and row[2] == "-"]


def test_json_holds_outline_and_probes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["inspect", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)[str(folder)]
    assert [stage["name"] for stage in facts["stages"]][1:-1] == ["stage2", "stage3", "stage4"]
    assert len(facts["gradients"]) == 20
    assert all(math.isfinite(each["weight"]) for each in facts["gradients"])
    assert [each["change"] is None for each in facts["residuals"]].count(True) == 2


@pytest.mark.slow
def test_a_run_is_probed_thoroughly(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole network's error is that of the run; a lesion's is the difference from it."""
    assert run_command(["inspect", str(folder), "--thorough", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)[str(folder)]
    final = read_run(folder).final
    assert final is not None
    assert [each["blocks"] for each in facts["lesions"]][:2] == [
        "without layer1.0",
        "without layer1.1",
    ]
    assert facts["lesions"][-1]["blocks"] == "layer3.1 and layer3.2 exchanged"
    for each in facts["lesions"]:
        assert each["error"] - each["points"] == pytest.approx(final.test.error)
    assert [each["blocks"] for each in facts["paths"]] == list(range(10))
    assert sum(each["paths"] for each in facts["paths"]) == 2**9
    assert run_command(["inspect", str(folder), "--thorough"]) == 0
    assert "points more" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["plain20", "preresnet20", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_an_architecture_is_probed_before_training(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", name, "--set", "initialization=normal", "--json"]
    assert run_command(words) == 0
    assert "gradients" not in json.loads(capsys.readouterr().out)[name]
    assert run_command([*words, "--thorough"]) == 0
    facts = json.loads(capsys.readouterr().out)[name]
    assert len(facts["gradients"]) == int(name[-2:])
    assert all(0 < each["input"] < math.inf for each in facts["gradients"])
    assert len(facts["receptive_fields"]) in (4, 5)


def test_a_plain_run_is_probed_as_far_as_it_goes(
    on_digits: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(on_digits({"model.name": "plain20"}), tmp_path / "plain")
    assert run_command(["inspect", str(tmp_path / "plain"), "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)[str(tmp_path / "plain")]
    assert len(facts["responses"]) == 19
    assert "residuals" not in facts
    assert "a plain network has none" in printed.err


REFUSED = {
    "unknown": (["resnet57"], 2, "Did you mean 'resnet56'?"),
    "unknown second": (["resnet56", "--compare", "plane56"], 2, "plane56"),
    "unknown option": (["resnet56", "--set", "shortcut=D"], 2, "shortcut is 'D'"),
    "options of a run": (["RUN", "--set", "shortcut=B"], 2, "is a trained network"),
    "a folder without a network": (["."], 3, "holds no network"),
    "a drawing where a folder is": (["resnet20", "--out", "RUN"], 1, "--out"),
    "a drawing in another format": (["resnet20", "--out", "x.png"], 2, "ends in .svg"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(
    case: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, message = REFUSED[case]
    assert run_command(["inspect", *(str(folder) if w == "RUN" else w for w in words)]) == code
    assert message in capsys.readouterr().err


# Saliency


def test_saliency_is_drawn_of_a_test_image_and_of_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "digit.png"
    Image.new("RGB", (30, 40), (200, 10, 10)).save(picture)
    for which in ("3", str(picture)):
        drawing = tmp_path / "new" / "saliency.png"
        words = ["inspect", str(folder), "--saliency", which, "--out", str(drawing), "--json"]
        assert run_command(words) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["answer"] in "0123456789"
        assert 0.1 <= facts["probability"] <= 1
        with Image.open(drawing) as drawn:
            assert drawn.size == (1080, 408)


SALIENCY_REFUSED = {
    "no such image": ("99999", 2, "has 359 test images, from 0"),
    "no such file": ("none.png", 3, "none.png: it cannot be read: No such file"),
    "not an image": (__file__, 3, "it is text"),
}


@pytest.mark.parametrize("case", SALIENCY_REFUSED)
def test_images_that_cannot_be_are_refused(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    which, code, message = SALIENCY_REFUSED[case]
    assert run_command(["inspect", str(folder), "--saliency", which]) == code
    assert message in capsys.readouterr().err


def test_an_architecture_has_nothing_to_say_of_an_image(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["inspect", "resnet20", "--saliency", "3"]) == 2
    assert "is an architecture without trained weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet20", "--compare", "resnet20"], "it is the same network"),
        (["RUN", "--saliency", "1", "--compare", "resnet20"], "leave out --compare, --set and"),
        (["RUN", "--saliency", "1", "--thorough"], "leave out --compare, --set and --thorough"),
        ([""], "holds no network"),
        (["resnet20", "--out", "."], "--out"),
    ],
)
def test_words_that_contradict_each_other_are_refused(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["inspect", *(str(folder) if w == "RUN" else w for w in words)]) in (1, 2, 3)
    assert message in capsys.readouterr().err


def test_a_picture_of_16_bits_is_shown_as_one_of_8(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("I;16", (8, 8), 256 * 125).save(tmp_path / "deep.png")
    Image.new("L", (8, 8), 125).save(tmp_path / "usual.png")
    said = []
    for name in ("deep", "usual"):
        words = ["inspect", str(folder), "--saliency", str(tmp_path / f"{name}.png")]
        assert run_command([*words, "--out", str(tmp_path / "drawn.png")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_a_drawing_that_cannot_be_written_is_noticed_before_the_work(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("resnetkit.probes.inspection.saliency", lambda *_, **__: pytest.fail("ran"))
    (tmp_path / "file").touch()
    words = ["inspect", str(folder), "--saliency", "3", "--out", str(tmp_path / "file" / "x.png")]
    assert run_command(words) == 1
    assert "Choose another path with --out." in capsys.readouterr().err


def test_an_entry_of_a_file_is_a_trained_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    architecture = Architecture("basic", (1, 1, 1, 1), (16, 16, 32, 32), "7x7", 224, False)
    state = architecture.with_options(num_classes=5).build(torch.Generator()).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "last.pth.tar")
    path = f"{tmp_path / 'last.pth.tar'}#state_dict_ema"
    assert run_command(["inspect", path]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: ")
    assert "no probe was run: the training data of the network is unknown" in printed.err


def test_a_run_whose_photos_are_gone_is_outlined_and_probed_on_others(
    tiny: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    for label in "ab":
        (photos / label).mkdir(parents=True)
        for number in range(8):
            color = (30 * number, 9, 200 if label == "a" else 0)
            Image.new("RGB", (20, 20), color).save(photos / label / f"{number}.png")
    changes = {
        "data.name": str(photos),
        "data.image_size": 8,
        "data.augment.crop": "area",
        "data.augment.crop_padding": 0,
        "length": "1 steps",
        "batch_size": 8,
    }
    run = str(train(tiny(changes), tmp_path / "run").folder)
    photos.rename(tmp_path / "moved")
    assert run_command(["inspect", run, "--json"]) == 0
    printed = capsys.readouterr()
    assert set(json.loads(printed.out)[run]) == {"stages"}
    assert "no probe was run: the images of the run in " in printed.err
    assert "name the folder or table where they are now with --data." in printed.err
    assert run_command(["inspect", run, "--json", "--data", str(tmp_path / "moved")]) == 0
    assert {"gradients", "responses"} <= set(json.loads(capsys.readouterr().out)[run])
    assert run_command(["inspect", run, "--saliency", "0"]) == 3
    assert "were moved" in capsys.readouterr().err
    assert run_command(["inspect", run, "--data", str(tmp_path / "nowhere")]) == 3
    assert "nowhere" in capsys.readouterr().err  # which was asked for
    assert run_command(["inspect", "resnet20", "--data", "digits"]) == 2
    assert "--data digits: an architecture has no data" in capsys.readouterr().err
