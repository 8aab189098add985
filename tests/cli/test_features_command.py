"""resnet features and resnet nearest: what they write, find and refuse."""

import csv
import errno
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from resnetkit.data.datasets import open_dataset
from resnetkit.inference.features import network_sha256
from resnetkit.training.recipe import Recipe
from resnetkit.weights import load as load_module
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]
Resnet = Callable[..., Any]
COUNT = 12


@pytest.fixture
def folder(digits_run: Path) -> Path:
    return digits_run


@pytest.fixture(autouse=True)
def _images_in_this_folder(tmp_path: Path) -> None:
    digits = open_dataset("digits")
    (tmp_path / "photos").mkdir()
    for number, sample in enumerate(digits.splits["test"][:COUNT].tolist()):
        image = Image.fromarray(digits.images[sample, 0].numpy())
        image.save(tmp_path / f"photos/{number:02}.png")


def by_hand(folder: Path) -> np.ndarray:
    """Returns what enters the head for each image, as a hook sees it: float32 (N, D)."""
    network, seen = load_network(folder), []
    network.model.fc.register_forward_hook(lambda *call: seen.append(call[1][0][0].numpy()))
    for number in range(COUNT):
        pixels = torch.from_numpy(np.array(Image.open(f"photos/{number:02}.png"))).float()
        with torch.no_grad():
            network.model(((pixels - network.normalization.mean) / network.normalization.std)[None])
    return np.stack(seen)


def test_features_are_written_with_what_made_them(resnet: Resnet, folder: Path) -> None:
    answer = resnet("features", str(folder), "photos", "--out", "new/f.safetensors")
    assert (answer.code, answer.out) == (
        0,
        "new/f.safetensors: 12 image(s), 64 features of pool each\n",
    )
    assert "12 image(s) in " in answer.err
    with safetensors.safe_open("new/f.safetensors", framework="pt") as file:
        facts, paths = file.metadata(), file.get_tensor("paths").numpy().tobytes().split(b"\0")
        values = file.get_tensor("features")
    assert paths == [f"photos/{number:02}.png".encode() for number in range(COUNT)]
    np.testing.assert_allclose(values.numpy(), by_hand(folder), rtol=1e-4, atol=1e-5)
    assert facts == {
        "layer": "pool",
        "origin": "resnet20 trained by resnetkit on digits",
        "network_sha256": network_sha256(load_network(folder)),
    }


def test_bad_images_are_reported_and_left_out(resnet: Resnet, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos/05.png").write_bytes(b"")
    words = ("features", str(folder), "none.png", "photos", "--out", "f.safetensors")
    answer = resnet(*words, "--layer", "fc", "--json")
    assert answer.code == 3
    assert {key: answer.values[key] for key in ("file", "images", "width", "bad", "layer")} == {
        "file": "f.safetensors",
        "images": 11,
        "width": 10,
        "bad": 2,
        "layer": "fc",
    }
    assert "bad: none.png: it cannot be read: No such file" in answer.err
    assert "bad: photos/05.png: the file is empty." in answer.err
    paths = safetensors.torch.load_file("f.safetensors")["paths"].numpy().tobytes()
    assert b"05.png" not in paths


def test_nothing_is_written_when_every_image_is_bad(
    resnet: Resnet, folder: Path, tmp_path: Path
) -> None:
    answer = resnet("features", str(folder), "none.png", "--out", "f.safetensors")
    assert (answer.code, answer.out) == (3, "")
    assert "there is no image to take features of: nothing was written." in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.fixture
def features(resnet: Resnet, folder: Path) -> str:
    assert resnet("features", str(folder), "photos", "--out", "f.safetensors").code == 0
    return "f.safetensors"


def test_the_nearest_are_those_of_a_brute_force(
    resnet: Resnet, folder: Path, features: str
) -> None:
    queries = ["photos/03.png", "none.png", "photos/07.png", "photos/03.png"]
    words = ("nearest", features, *queries, "--model", str(folder), "--batch-size", "2")
    answer = resnet(*words, "--top", "4", "--json")
    assert answer.code == 3
    assert [each["query"] for each in answer.values] == queries
    assert answer.values[1] == {
        "query": "none.png",
        "nearest": [],
        "error": "none.png: it cannot be read: No such file or directory.",
    }
    rows = by_hand(folder).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for place, number in ((0, 3), (2, 7), (3, 3)):
        cosines = rows @ rows[number]
        best = np.argsort(-cosines)[:4]
        found = answer.values[place]["nearest"]
        assert [each["path"] for each in found] == [f"photos/{n:02}.png" for n in best]
        np.testing.assert_allclose([each["similarity"] for each in found], cosines[best], atol=1e-5)
        assert answer.values[place]["error"] is None


def test_the_nearest_for_people_and_as_csv(resnet: Resnet, folder: Path, features: str) -> None:
    words = ("nearest", features, "photos/03.png", "--model", str(folder), "--top", "1")
    assert resnet(*words).out == "photos/03.png\n  1.0000  photos/03.png\n"
    rows = list(csv.DictReader(io.StringIO(resnet(*words, "--format", "csv").out)))
    assert len(rows) == 1
    assert (rows[0]["query"], rows[0]["rank"], rows[0]["path"]) == (
        "photos/03.png",
        "1",
        "photos/03.png",
    )
    assert float(rows[0]["similarity"]) == pytest.approx(1)


def test_features_of_other_weights_are_refused(
    resnet: Resnet, folder: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(load_network(folder), origin="another one")
    other.model.fc.bias.data[0] += 1
    monkeypatch.setattr(load_module, "load_network", lambda path, *, variant: other)
    answer = resnet("nearest", features, "photos/03.png", "--model", "other")
    assert (answer.code, answer.out) == (3, "")
    assert "the features were computed by another network (resnet20 trained by resn" in answer.err
    assert "than this one (another one)" in answer.err


REFUSED = {
    "no out": (["features", "RUN", "photos"], 2, "--out"),
    "another suffix": (["features", "RUN", "photos", "--out", "f.csv"], 2, ".safetensors or .par"),
    "no images": (["features", "RUN", "--out", "f.safetensors"], 2, "no images: name files"),
    "unknown layer": (
        ["features", "RUN", "photos", "--out", "f.safetensors", "--layer", "stage5"],
        2,
        "unknown layer 'stage5': expected one of stem, stage2, stage3, stage4, pool, fc.",
    ),
    "a folder in the way": (
        ["features", "RUN", "photos", "--out", "photos/00.png/f.safetensors"],
        1,
        "cannot write photos/00.png/f.safetensors",
    ),
    "a folder": (["features", "RUN", "photos", "--out", "d.safetensors"], 2, "it is a folder, exp"),
    "no model": (["nearest", "photos/00.png", "photos/00.png"], 2, "--model"),
    "no features": (
        ["nearest", "photos/00.png", "photos", "--model", "RUN"],
        3,
        "not a file of fea",
    ),
    "no file": (["nearest", "none", "photos", "--model", "RUN"], 3, "none cannot be read"),
    "no queries": (["nearest", "f.safetensors", "--model", "RUN"], 2, "no images: name files"),
    "none wanted": (["nearest", "f", "photos", "--model", "RUN", "--top", "0"], 2, "--top 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(
    resnet: Resnet, case: str, folder: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    words, code, message = REFUSED[case]
    Path("d.safetensors").mkdir()
    before = contents(Path())
    answer = resnet(*(str(folder) if word == "RUN" else word for word in words))
    assert (answer.code, answer.out) == (code, "")
    assert message in " ".join(answer.err.split())
    assert contents(Path()) == before


def test_a_file_that_cannot_be_written_is_noticed_before_the_work(
    resnet: Resnet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("resnetkit.storage.write_synced", refuse)
    monkeypatch.setattr(
        "resnetkit.cli.features.computed_features", lambda *_: pytest.fail("computed")
    )
    answer = resnet("features", str(folder), "photos", "--out", "f.safetensors")
    assert (answer.code, answer.out) == (1, "")
    assert "cannot write f.safetensors: the file system is read-only." in answer.err
