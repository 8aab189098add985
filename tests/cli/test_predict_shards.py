"""Answers in a folder: the same bytes whoever computes them, and each image exactly once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnetkit.cli import predict_shards
from resnetkit.inference import shards as shards_module
from resnetkit.training.run_folder import Run

Resnet = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Returns a folder of 23 images, one of which cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(22):
        Image.new("L", (8, 8), 10 * number).save(folder / f"{number:02d}.png")
    (folder / "11x.png").write_bytes(b"no image at all")
    return folder


@pytest.fixture(autouse=True)
def _forget_networks() -> None:
    predict_shards.loaded.cache_clear()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_every_image_is_answered_once_in_order(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path
) -> None:
    words = ("predict", str(whole.folder), str(photos))
    said = resnet(*words, "--out", "answers", "--shards", "5", "--backend", "sequential", "--json")
    assert said.code == 3  # one image is bad
    facts = json.loads(said.out)
    assert (facts["images"], facts["bad"]) == (23, 1)
    answers = lines(tmp_path / "answers")
    assert [Path(answer["path"]).name for answer in answers] == sorted(os.listdir(photos))
    plain = resnet(*words, "--format", "lines")
    expected = [json.loads(line) for line in plain.out.splitlines()]
    for answer, other in zip(answers, expected, strict=True):
        assert (answer["error"] is None) == (other["error"] is None)
        assert [guess["label"] for guess in answer["predictions"]] == [
            guess["label"] for guess in other["predictions"]
        ]
    assert sorted(entry.name for entry in (tmp_path / "answers").iterdir()) == [
        ".lock",
        "answers.jsonl",
        "images.jsonl",
        "manifest.json",
    ]


def test_workers_change_no_byte(resnet: Resnet, whole: Run, photos: Path, tmp_path: Path) -> None:
    contents = set()
    for jobs, backend in (("1", "sequential"), ("2", "threading"), ("8", "threading")):
        out = f"answers-{jobs}"
        words = ("predict", str(whole.folder), str(photos), "--out", out, "--shards", "7")
        assert resnet(*words, "--jobs", jobs, "--backend", backend).code == 3
        contents.add((tmp_path / out / "answers.jsonl").read_bytes())
    assert len(contents) == 1


@pytest.mark.slow
def test_processes_change_no_byte(resnet: Resnet, whole: Run, photos: Path, tmp_path: Path) -> None:
    words = ("predict", str(whole.folder), str(photos), "--shards", "7")
    resnet(*words, "--out", "one", "--backend", "sequential")
    resnet(*words, "--out", "two", "--jobs", "2")
    answers = [(tmp_path / out / "answers.jsonl").read_bytes() for out in ("one", "two")]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("line", [0, 5])
def test_killed_while_the_images_are_listed_they_are_listed_again(
    resnet: Resnet,
    whole: Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: int,
) -> None:
    words = ("predict", str(whole.folder), str(photos), "--shards", "4", "--backend", "sequential")
    real, listed = shards_module.line_of, []

    def killed(image: Any) -> bytes:
        if len(listed) == line:
            raise KeyboardInterrupt
        listed.append(image)
        return real(image)

    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "line_of", killed)
        assert resnet(*words, "--out", "killed").code == 130
    assert resnet(*words, "--out", "killed").code == 3
    assert len(lines(tmp_path / "killed")) == 23


@pytest.mark.parametrize("after", [0, 1, 3])
def test_killed_anywhere_the_same_command_answers_the_rest(
    resnet: Resnet,
    whole: Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    words = ("predict", str(whole.folder), str(photos), "--shards", "4", "--backend", "sequential")
    resnet(*words, "--out", "whole")
    real, written = shards_module.write_part, []

    def killed(folder: Path, shard: int, lines: Any) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(shard)
        real(folder, shard, lines)

    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "write_part", killed)
        assert resnet(*words, "--out", "killed").code == 130
    assert not (tmp_path / "killed" / "answers.jsonl").exists()
    (photos / "99.png").write_bytes((photos / "00.png").read_bytes())  # not listed any more
    assert resnet(*words, "--out", "killed").code == 3
    answers = [(tmp_path / out / "answers.jsonl").read_bytes() for out in ("whole", "killed")]
    assert answers[0] == answers[1]


def test_a_killed_listing_begins_again(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "images.jsonl").write_text('"half"\n')
    words = ("predict", str(whole.folder), str(photos), "--shards", "2", "--backend", "sequential")
    resnet(*words, "--out", "answers")
    assert len(lines(tmp_path / "answers")) == 23


def test_what_cannot_be_is_refused(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path
) -> None:
    words = ("predict", str(whole.folder), str(photos), "--backend", "sequential", "--out")
    assert resnet(*words, "answers", "--shards", "3").code == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    for more, message in (
        (("answers", "--shards", "4"), "another question: shards was 3, and is 4 now"),
        (("answers", "--shards", "3", "--top", "2"), "top was 5, and is 2 now"),
        (("other",), "is not empty and holds no answers"),
        (("new", "--shards", "0"), "--shards 0: expected from 1 to 4,096"),
        (("new", "--format", "csv"), "--format csv and --out"),
    ):
        said = resnet(*words, *more)
        assert (said.code, message in said.err) == (2, True), said.err
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"
    said = resnet("predict", str(whole.folder), str(photos), "--shards", "3")
    assert (said.code, "--shards: expected together with --out" in said.err) == (2, True)


def test_changed_files_are_refused(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path
) -> None:
    words = ("predict", str(whole.folder), str(photos), "--shards", "2", "--backend", "sequential")
    resnet(*words, "--out", "answers")
    answers = tmp_path / "answers"
    (answers / "answers.jsonl").unlink()
    (answers / "parts").mkdir()
    listed = (answers / "images.jsonl").read_text()
    (answers / "images.jsonl").write_text(listed.replace("05.png", "06.png"))
    said = resnet(*words, "--out", "answers")
    assert (said.code, "has changed since the images were listed" in said.err) == (3, True)
    (answers / "manifest.json").write_text("{")
    said = resnet(*words, "--out", "answers")
    assert (said.code, "manifest.json is corrupt" in said.err) == (3, True)
    shutil.rmtree(answers)
