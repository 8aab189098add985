"""Shards: the same bytes whoever computes them, and each image exactly once."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster
from PIL import Image

from resnetkit.cli import shards as commands
from resnetkit.errors import Interrupted
from resnetkit.inference import shards as shards_module
from resnetkit.inference.features import read_features, read_tensors
from resnetkit.training.run_folder import Run
from resnetkit.training.signals import StopRequest

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
    commands.loaded.cache_clear()


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

    def killed(path: Path, content: Any) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(path)
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "write_part", killed)
        assert resnet(*words, "--out", "killed").code == 130
    assert not (tmp_path / "killed" / "answers.jsonl").exists()
    (photos / "99.png").write_bytes((photos / "00.png").read_bytes())  # not listed any more
    assert resnet(*words, "--out", "killed").code == 3
    answers = [(tmp_path / out / "answers.jsonl").read_bytes() for out in ("whole", "killed")]
    assert answers[0] == answers[1]


def test_without_locks_the_answers_are_the_same(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", str(whole.folder), str(photos), "--shards", "2", "--backend", "sequential")
    assert resnet(*words, "--out", "locked").code == 3

    def flock(_: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / ".writing-0123456789ab-images.jsonl").touch()  # perhaps of another command
    assert resnet(*words, "--out", "open").code == 3
    assert (tmp_path / "open" / ".writing-0123456789ab-images.jsonl").exists()
    answers = [(tmp_path / out / "answers.jsonl").read_bytes() for out in ("locked", "open")]
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
        (("answers", "--shards", "4"), "of another question: shards was 3, and is 4 now"),
        (("answers", "--shards", "3", "--top", "2"), "wanted was top 5, and is top 2 now"),
        (("other",), "is not empty and holds no shards"),
        (("new", "--shards", "0"), "--shards 0: expected from 1 to 512"),
        (("new", "--format", "csv"), "--format csv and --out"),
    ):
        said = resnet(*words, *more)
        assert (said.code, message in said.err) == (2, True), said.err
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"


def test_other_images_are_not_answered_with_the_answers_of_earlier_ones(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path
) -> None:
    words = ("predict", str(whole.folder), "--shards", "2", "--backend", "sequential", "--out")
    resnet(*words, "answers", str(photos))
    before = (tmp_path / "answers" / "answers.jsonl").read_bytes()
    for others in ([str(tmp_path)], [str(photos), str(photos)], ["-"]):
        said = resnet(*words, "answers", *others)
        assert (said.code, f"images was {photos}" in said.err) == (2, True), said.err
    assert (tmp_path / "answers" / "answers.jsonl").read_bytes() == before
    manifest = json.loads((tmp_path / "answers" / "manifest.json").read_text())
    del manifest["question"]["images"]  # as an earlier version wrote it
    (tmp_path / "answers" / "manifest.json").write_text(json.dumps(manifest))
    assert resnet(*words, "answers", str(photos)).code == 3
    assert (tmp_path / "answers" / "answers.jsonl").read_bytes() == before


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
    (answers / "images.jsonl").write_text(listed.replace('"', "", 1))
    said = resnet(*words, "--out", "answers")
    assert (said.code, "has changed since the images were listed" in said.err) == (3, True)
    (answers / "images.jsonl").unlink()
    said = resnet(*words, "--out", "answers")
    assert (said.code, "has changed since the images were listed" in said.err) == (3, True)
    (answers / "answers.jsonl").write_text('{"error": null}\n{"err')
    said = resnet(*words, "--out", "answers")
    assert (said.code, "answers.jsonl is corrupt" in said.err) == (3, True)
    (answers / "answers.jsonl").unlink()
    (answers / "manifest.json").write_text("{")
    said = resnet(*words, "--out", "answers")
    assert (said.code, "manifest.json is corrupt" in said.err) == (3, True)
    shutil.rmtree(answers)


@pytest.mark.parametrize(
    ("command", "needed"), [("predict", "--out FOLDER"), ("features", "--shards N")]
)
@pytest.mark.parametrize(
    "given",
    [
        ("--shards", "3"),
        ("--jobs", "2"),
        ("--backend", "dask"),
        ("--scheduler", "tcp://10.0.0.1:8786"),
        ("--address", "auto"),
    ],
)
def test_options_of_several_processes_need_a_folder(
    resnet: Resnet, tmp_path: Path, command: str, needed: str, given: tuple[str, str]
) -> None:
    if (command, given[0]) == ("features", "--shards"):
        pytest.skip("it is what the others need")
    out = ("--out", "f.safetensors") if command == "features" else ()
    said = resnet(command, "run", "photos", *given, *out)
    assert said.code == 2
    assert f"resnet: {given[0]}: expected together with {needed}." in said.err
    assert list(tmp_path.iterdir()) == []


def test_networks_are_found_from_another_folder(tmp_path: Path) -> None:
    def loaded_from(name: str) -> Path:
        return commands.load_options(Path(name), None, "cpu", None, 8).network

    (tmp_path / "run").mkdir()
    (tmp_path / "last.pth").touch()
    for name in ("run", "last.pth", "last.pth#ema"):
        assert loaded_from(name) == Path.cwd() / name
    assert loaded_from("resnet50.a1_in1k") == Path("resnet50.a1_in1k")


def test_addresses_need_their_backend(resnet: Resnet, tmp_path: Path) -> None:
    for option, value, backend in (
        ("--scheduler", "tcp://10.0.0.1:8786", "dask"),
        ("--address", "auto", "ray"),
    ):
        said = resnet("predict", "run", "photos", "--out", "answers", option, value)
        expected = f"resnet: {option} {value}: expected together with --backend {backend}."
        assert (said.code, expected in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_person_sees_how_many_shards_are_complete(
    terminal: Callable[..., str], whole: Run, photos: Path
) -> None:
    words = ("predict", str(whole.folder), str(photos), "--out", "answers", "--shards", "23")
    screen = terminal(*words, "--backend", "sequential", "--batch-size", "1")
    assert "shards" in screen
    assert "23 of 23" in screen
    assert "100%" in screen


# Features


@pytest.fixture
def compute(resnet: Resnet, whole: Run, photos: Path) -> Callable[..., Any]:
    """Calls resnet features with 4 shards, in this process unless told otherwise."""

    def call(out: str, *words: str) -> Any:
        given = words or ("--backend", "sequential")
        shards = ("--shards", "4", "--batch-size", "4")
        return resnet("features", str(whole.folder), str(photos), "--out", out, *shards, *given)

    return call


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns the content of all files below a folder, without the lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_features_in_shards_are_those_of_one_file(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path, compute: Callable[..., Any]
) -> None:
    said = compute("shards", "--backend", "sequential", "--json")
    assert said.code == 3  # one image is bad
    facts = json.loads(said.out)
    assert (facts["images"], facts["bad"], facts["width"]) == (22, 1, 64)
    assert facts["parts"] == [5, 6, 6, 5]  # of 23 images in turn, of which row 12 is bad
    resnet("features", str(whole.folder), str(photos), "--out", "one.safetensors")
    one = read_features(tmp_path / "one.safetensors")
    rows: dict[int, tuple[str, np.ndarray]] = {}
    for shard in range(4):
        path = tmp_path / "shards" / "parts" / f"{shard:05d}.safetensors"
        part = read_features(path)  # each is a file of features itself
        assert part.metadata == one.metadata
        for row, name, values in zip(rows_in(path), part.paths, part.values, strict=True):
            rows[row] = (name, values)
    assert sorted(rows) == [row for row in range(23) if row != 12]
    in_order = [rows[row] for row in sorted(rows)]
    assert [name for name, _ in in_order] == list(one.paths)
    together = np.stack([values for _, values in in_order])
    np.testing.assert_allclose(together, one.values, rtol=1e-4, atol=1e-5)
    bad = json.loads((tmp_path / "shards" / "bad.jsonl").read_text())
    assert (bad["row"], Path(bad["path"]).name) == (12, "11x.png")
    assert str(photos / "11x.png") in bad["error"]


def rows_in(path: Path) -> list[int]:
    """Returns the tensor `rows` of a part."""
    tensors, _ = read_tensors(path)
    return tensors["rows"].tolist()


def test_the_nearest_in_shards_are_those_in_one_file(
    resnet: Resnet, whole: Run, photos: Path, compute: Callable[..., Any]
) -> None:
    compute("shards")
    resnet("features", str(whole.folder), str(photos), "--out", "one.safetensors")
    queries = [str(photos / f"{number:02d}.png") for number in (3, 17)]
    answers = []
    for library in ("shards", "one.safetensors"):
        said = resnet(
            "nearest", library, *queries, "--model", str(whole.folder), "--top", "9", "--json"
        )
        assert said.code == 0
        assert "22 image(s), pool of resnet8" in said.err
        answers.append(said.values)
    for of_shards, of_file in zip(*answers, strict=True):
        assert of_shards["query"] == of_file["query"]
        found, expected = of_shards["nearest"], of_file["nearest"]
        assert [near["path"] for near in found] == [near["path"] for near in expected]
        np.testing.assert_allclose(
            [near["similarity"] for near in found], [near["similarity"] for near in expected]
        )
        assert len(found) == 9


def test_workers_change_no_byte_of_features(tmp_path: Path, compute: Callable[..., Any]) -> None:
    contents = []
    for jobs, backend in (("1", "sequential"), ("2", "threading"), ("8", "threading")):
        assert compute(jobs, "--jobs", jobs, "--backend", backend).code == 3
        contents.append(files_of(tmp_path / jobs))
    assert contents[0] == contents[1] == contents[2]
    assert set(contents[0]) == {
        *(f"parts/{shard:05d}.safetensors" for shard in range(4)),
        *("bad.jsonl", "images.jsonl", "index.json", "manifest.json"),
    }


@pytest.mark.parametrize("after", [0, 3])
def test_killed_features_are_resumed(
    resnet: Resnet,
    whole: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    compute: Callable[..., Any],
) -> None:
    compute("whole")
    real, written = shards_module.write_part, []

    def killed(path: Path, content: Any) -> None:
        if len(written) == after:
            path.parent.mkdir(exist_ok=True)
            (path.parent / ".writing-0123456789ab-half").touch()  # as a killed process leaves it
            raise KeyboardInterrupt
        written.append(path)
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "write_part", killed)
        assert compute("killed").code == 130
    said = resnet("nearest", "killed", "x.png", "--model", str(whole.folder))
    assert (said.code, "killed holds no finished features" in said.err) == (3, True)
    assert compute("killed").code == 3
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "killed")


def test_a_dask_cluster_changes_no_byte(tmp_path: Path, compute: Callable[..., Any]) -> None:
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",  # any free port
    ) as local:
        assert (
            compute("there", "--backend", "dask", "--scheduler", local.scheduler_address).code == 3
        )
    assert compute("here").code == 3
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def test_a_network_that_sees_no_image_has_no_features(
    resnet: Resnet, whole: Run, tmp_path: Path
) -> None:
    words = ("features", str(whole.folder), "none.png", "--out", "f", "--shards", "2")
    said = resnet(*words, "--backend", "sequential")
    assert (said.code, said.out) == (3, "")
    assert "there is no image to take features of" in said.err
    assert not (tmp_path / "f" / "index.json").exists()


def test_parts_of_something_else_are_refused(
    resnet: Resnet, whole: Run, photos: Path, tmp_path: Path, compute: Callable[..., Any]
) -> None:
    compute("shards")
    part = tmp_path / "shards" / "parts" / "00001.safetensors"
    words = ("nearest", "shards", str(photos / "03.png"), "--model", str(whole.folder))
    content = part.read_bytes()
    for wrong, message in (
        (content[:-1], "00001.safetensors is not a file of features, or it is corrupt"),
        (content.replace(b'"pool"', b'"poor"'), "it is not the part that the index describes"),
        (None, "00001.safetensors cannot be read"),
    ):
        if wrong is None:
            part.unlink()
        else:
            part.write_bytes(wrong)
        said = resnet(*words)
        assert (said.code, message in said.err) == (3, True), said.err
    os.mkfifo(part)  # nobody writes into it
    said = resnet(*words)
    assert (said.code, "00001.safetensors cannot be read" in said.err) == (3, True), said.err
    part.unlink()
    part.write_bytes(content)
    (tmp_path / "shards" / "index.json").write_text("[]")
    said = resnet(*words)
    assert (said.code, "index.json is corrupt" in said.err) == (3, True)
    said = compute("f.safetensors")
    assert (said.code, "shards are a folder, not one file" in said.err) == (2, True)


def test_work_stops_when_the_command_is_gone(tmp_path: Path) -> None:
    stop = StopRequest()
    images = commands.until_stopped(iter("abc"), stop)
    assert next(images) == "a"
    stop.signal_number = 15
    with pytest.raises(Interrupted, match="the command that started this process is gone"):
        next(images)
