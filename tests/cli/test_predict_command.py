"""resnet predict: its formats, its order, bad files, standard input, and what it refuses."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.cli.app import run
from resnetkit.data.datasets import open_dataset
from resnetkit.inference.engines.torch import TorchEngine
from resnetkit.training.recipe import Recipe
from resnetkit.weights import load as load_module
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]
Resnet = Callable[..., Any]

REPORTED = re.compile(r"(\d+) image\(s\) in \d+\.\d\d s: [\d,]+\.\d images/s(, \d+ bad)?\n$")


@pytest.fixture
def folder(digits_run: Path) -> Path:
    return digits_run


@pytest.fixture(autouse=True)
def _images_in_this_folder(tmp_path: Path) -> None:
    """Writes test digits a, b, c and d below 'photos', and a file that is none."""
    digits = open_dataset("digits")
    for number, name in enumerate(("a.png", "two/b.png", "two/c.png", "two/deep/d.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sample = digits.splits["test"][number]
        Image.fromarray(digits.images[sample, 0].numpy()).save(path)
    (tmp_path / "photos/two/bad.png").write_bytes(b"")


def expected(folder: Path, path: str) -> dict[int, float]:
    """Returns what the network says of an image of its own size, worked out by hand."""
    network = load_network(folder)
    pixels = torch.from_numpy(np.array(Image.open(path))).float()
    with torch.no_grad():
        logits = network.model(
            ((pixels - network.normalization.mean) / network.normalization.std)[None]
        )
    return dict(enumerate(logits[0].double().softmax(0).tolist()))


def assert_right(folder: Path, path: str, predictions: Sequence[dict[str, Any]]) -> None:
    truth = expected(folder, path)
    best = sorted(truth, key=lambda label: -truth[label])[: len(predictions)]
    assert [each["label"] for each in predictions] == best
    assert [each["class"] for each in predictions] == list(map(str, best))
    for each in predictions:
        assert each["probability"] == pytest.approx(truth[each["label"]], rel=1e-4)


def read_lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Puts bytes on standard input."""
    buffer = io.BufferedReader(io.BytesIO(content))  # type: ignore[type-var]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(buffer))


GOOD = ["photos/a.png", "photos/two/b.png", "photos/two/c.png", "photos/two/deep/d.png"]
IN_ORDER = [GOOD[0], GOOD[1], "photos/two/bad.png", *GOOD[2:]]


def test_a_folder_is_answered_in_order_and_a_bad_file_does_not_stop_it(
    resnet: Resnet, folder: Path
) -> None:
    answer = resnet("predict", str(folder), "photos", "--format", "lines", "--top", "3")
    assert answer.code == 3
    found = read_lines(answer.out)
    assert [each["path"] for each in found] == IN_ORDER
    for each in found:
        assert set(each) == {"path", "predictions", "error"}
        if "bad" in each["path"]:
            assert each["predictions"] == []
            assert each["error"] == "photos/two/bad.png: the file is empty."
        else:
            assert each["error"] is None
            assert_right(folder, each["path"], each["predictions"])
            assert len(each["predictions"]) == 3
    assert "bad: photos/two/bad.png: the file is empty.\n" in answer.err
    reported = REPORTED.search(answer.err)
    assert reported
    assert reported.groups() == ("4", ", 1 bad")


def test_json_is_one_list_of_the_same(resnet: Resnet, folder: Path) -> None:
    words = ("predict", str(folder), "photos", "photos", "photos/a.png", "--batch-size", "2")
    lines, whole = resnet(*words, "--format", "lines"), resnet(*words, "--json")
    assert whole.values == read_lines(lines.out)
    assert [each["path"] for each in whole.values] == [*IN_ORDER, *IN_ORDER, "photos/a.png"]
    one = resnet("predict", str(folder), "photos/a.png", "--json")
    assert one.code == 0
    assert_right(folder, "photos/a.png", one.values[0]["predictions"])
    reported = REPORTED.search(one.err)
    assert reported
    assert reported.groups() == ("1", None)


def test_csv_survives_odd_names(resnet: Resnet, folder: Path, tmp_path: Path) -> None:
    names = [
        "with, comma.png",
        'with "quotes".png',
        "new\nline.png",
        "re\rturn.png",
        "\u00e9\u4e2d.png",
    ]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "photos/a.png").read_bytes())
    (tmp_path / "bad,\n.png").write_text("nothing")
    answer = resnet("predict", str(folder), *names, "bad,\n.png", "--format", "csv", "--top", "2")
    assert answer.code == 3
    rows = list(csv.DictReader(io.StringIO(answer.out, newline="")))
    assert answer.out.startswith("path,rank,label,class,probability,error\n")
    assert [row["path"] for row in rows] == [name for name in names for _ in range(2)] + [
        "bad,\n.png"
    ]
    truth = expected(folder, "photos/a.png")
    for row in rows[:-1]:
        assert float(row["probability"]) == pytest.approx(truth[int(row["label"])], rel=1e-4)
        assert (row["class"], row["error"]) == (row["label"], "")
    assert [row["rank"] for row in rows] == ["1", "2"] * len(names) + [""]
    assert rows[-1]["error"].startswith("bad,\n.png: it is text")
    assert rows[-1]["probability"] == rows[-1]["label"] == ""


PREDICTS = """
import sys
HEAVY = ("resnetkit.training", "torchvision", "scipy", "huggingface_hub")
from resnetkit.cli.app import run
code = run(["predict", *sys.argv[1:]])
print([m for m in sys.modules if m.startswith(HEAVY)])

from resnetkit.models.summary import count, trace
from resnetkit.models.zoo import ARCHITECTURES
for name in ("resnet20", "preresnet50", "resnext50_32x4d"):
    count(ARCHITECTURES[name])
trace(ARCHITECTURES["resnet18"])
print("torch._dynamo" in sys.modules)
sys.exit(code)
"""


def test_names_that_are_no_text_are_escaped(resnet: Resnet, folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    (tmp_path / "photos/a.png").rename(tmp_path / name)
    (each,) = resnet("predict", str(folder), name, "--json").values
    assert each["path"] == name
    command = [sys.executable, "-c", PREDICTS, str(folder), name]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    first, *_, imported, compiles = done.stdout.splitlines()
    assert (done.returncode, first) == (0, rb"\udcff.png"), done.stderr
    assert imported == b"[]"  # neither training nor what takes long to import
    assert compiles == b"False"  # counting layers does not import torch's compiler either


def test_people_get_a_line_a_class(resnet: Resnet, folder: Path) -> None:
    answer = resnet("predict", str(folder), *GOOD[:2], "--top", "2")
    lines = []
    for path in GOOD[:2]:
        truth = expected(folder, path)
        best = sorted(truth, key=lambda label: -truth[label])[:2]
        lines += [path, *(f"  {truth[label]:.4f}  {label}" for label in best)]
    assert answer.out.splitlines() == lines
    assert answer.err.startswith("resnet20 trained by resnetkit on digits\n")


def test_classes_without_names_have_numbers(
    resnet: Resnet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = replace(load_network(folder), class_names=())
    monkeypatch.setattr(load_module, "load_network", lambda path, *, variant: loaded)
    (each,) = resnet("predict", "weights.th", "photos/a.png", "--json").values
    assert [p["class"] for p in each["predictions"]] == [
        f"class {p['label']}" for p in each["predictions"]
    ]


def test_more_classes_than_there_are_are_all_of_them(resnet: Resnet, folder: Path) -> None:
    words = ("predict", str(folder), "photos/a.png", "--json", "--top", "1000000")
    (each,) = resnet(*words).values
    assert_right(folder, "photos/a.png", each["predictions"])
    assert len(each["predictions"]) == 10


def test_patterns_are_matched(resnet: Resnet, folder: Path) -> None:
    answer = resnet("predict", str(folder), "photos/**/[bd].png", "none*", "--json")
    assert answer.code == 3
    paths = ["photos/two/b.png", "photos/two/deep/d.png", "none*"]
    assert [each["path"] for each in answer.values] == paths
    assert answer.values[-1]["error"] == "none*: nothing matches this pattern."


def test_standard_input_is_a_list_or_an_image(
    resnet: Resnet, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give(monkeypatch, b"photos/two/c.png\nnone.png\nphotos/a.png\n")
    listed = resnet("predict", str(folder), "-", "photos/two/b.png", "--json")
    assert listed.code == 3
    assert [each["path"] for each in listed.values] == [
        "photos/two/c.png",
        "none.png",
        "photos/a.png",
        "photos/two/b.png",
    ]
    give(monkeypatch, (tmp_path / "photos/two/c.png").read_bytes())
    (image,) = resnet("predict", str(folder), "-", "--json").values
    assert image["path"] == "-"
    assert_right(folder, "photos/two/c.png", image["predictions"])


@pytest.mark.parametrize("closed", [True, False])
def test_an_empty_standard_input_is_no_image(
    resnet: Resnet, folder: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    if closed:
        monkeypatch.setattr("sys.stdin", None)
    else:
        give(monkeypatch, b"")
    answer = resnet("predict", str(folder), "-", "--json")
    assert (answer.code, answer.values) == (0, [])
    assert "\n0 image(s) in " in answer.err


REFUSED = {
    "no network": ([], 2, "NETWORK"),
    "no images": (["RUN"], 2, "no images: name files, folders or patterns, or - for standard"),
    "nothing there": (["none", "photos"], 3, "there is no none: expected a run folder"),
    "no network there": (["photos", "photos"], 3, "photos holds no network"),
    "none wanted": (["RUN", "photos", "--top", "0"], 2, "the 0 most probable classes"),
    "no batch": (["RUN", "photos", "--batch-size", "0"], 2, "a batch of 0 images"),
    "two formats": (["RUN", "photos", "--json", "--format", "csv"], 2, "choose one of them"),
    "unknown format": (["RUN", "photos", "--format", "xml"], 2, "--format"),
    "unknown device": (["RUN", "photos", "--device", "tpu"], 2, "unknown device 'tpu'"),
    "unknown variant": (["RUN", "photos", "--variant", "v2"], 2, "unknown variant 'v2'"),
    "unknown option": (["RUN", "--tpo", "3"], 2, "unknown option --tpo"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(resnet: Resnet, case: str, folder: Path) -> None:
    words, code, message = REFUSED[case]
    answer = resnet("predict", *(str(folder) if word == "RUN" else word for word in words))
    assert (answer.code, answer.out) == (code, "")
    assert message in answer.err


def test_a_file_may_look_like_an_option(resnet: Resnet, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "-x.png").write_bytes((tmp_path / "photos/a.png").read_bytes())
    assert resnet("predict", str(folder), "--", "-x.png").code == 0


def test_a_folder_without_images_is_bad(resnet: Resnet, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    answer = resnet("predict", str(folder), "void", "--json")
    assert answer.code == 3
    assert answer.values[0]["error"].startswith("void: the folder contains no images")


def test_answers_that_are_no_numbers_are_errors(
    resnet: Resnet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_network(folder)
    loaded.model.fc.weight.data.fill_(torch.inf)
    monkeypatch.setattr(load_module, "load_network", lambda path, *, variant: loaded)
    answer = resnet("predict", "weights.th", "photos/a.png", "--json")
    assert answer.code == 3
    assert "photos/a.png: the output of the network is not finite" in answer.err
    assert answer.values[0]["predictions"] == []


def test_it_can_be_interrupted(
    resnet: Resnet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TorchEngine, "probabilities", interrupt)
    answer = resnet("predict", str(folder), "photos")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.endswith("resnet: interrupted.\n")


def test_a_reader_that_has_left_is_no_error(
    folder: Path, left_reader: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    left_reader("stdout")
    assert run(["predict", str(folder), "photos/a.png", "--format", "lines"]) == 0
    assert capsys.readouterr().err == "resnet20 trained by resnetkit on digits\n"


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    words = ["predict", str(folder), *["photos/a.png"] * 500, "--format", "lines"]
    process = subprocess.Popen(
        [sys.executable, "-m", "resnetkit", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert json.loads(first)["path"] == "photos/a.png"
    assert (process.returncode, err) == (0, b"resnet20 trained by resnetkit on digits\n")
