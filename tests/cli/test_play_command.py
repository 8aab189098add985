"""resnet play: what it says before it trains, and what it refuses."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.play import write_studies
from resnetkit.report.play import page
from resnetkit.report.play.values import LiveData
from resnetkit.studies import runner

Resnet = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("_undrawn")


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **_: object) -> None:
        raise AssertionError(f"trained {words}")

    monkeypatch.setattr(runner, "train", refuse)


@pytest.fixture
def _without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs no networks and draws no still pictures, which takes seconds."""
    monkeypatch.setattr(page, "live_data", lambda selection: LiveData([], {"count": 359}))
    monkeypatch.setattr(page, "still_pictures", lambda runs, t: defaultdict(list))


@pytest.fixture
def _trained_by_a_spell(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(tasks: object, name: str, root: Path, **_: object) -> None:
        write_studies(root)

    monkeypatch.setattr(runner, "run_tasks", write)


@pytest.mark.usefixtures("_without_networks")
def test_a_page_is_written_of_finished_runs(resnet: Resnet, tmp_path: Path) -> None:
    write_studies(tmp_path / "studies")
    answer = resnet("play", "--lang", "ko")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"{tmp_path / 'play.html'}\n"
    assert '<html lang="ko">' in (tmp_path / "play.html").read_text()


@pytest.mark.usefixtures("_trained_by_a_spell", "_without_networks")
def test_what_is_missing_is_said_with_its_cost(resnet: Resnet, tmp_path: Path) -> None:
    answer = resnet("play", "--runs", "nowhere")
    first = answer.err.splitlines()[0]
    assert first.startswith("14 of the trainings of the study of degradation are missing in")
    assert "they take about 105 s on 2 cores (AMD EPYC)." in first
    assert answer.code == 0


def test_a_run_of_another_recipe_is_a_sentence(resnet: Resnet, tmp_path: Path) -> None:
    root = write_studies(tmp_path / "studies")
    recipe = next(root.glob("runs/plain20*seed0*")) / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.02", "lr: 0.03"))
    answer = resnet("play")
    assert answer.code == 2
    assert "holds a run of another recipe" in answer.err
    assert not (tmp_path / "play.html").exists()


def test_corrupt_runs_are_a_sentence(resnet: Resnet, tmp_path: Path) -> None:
    root = write_studies(tmp_path / "studies")
    run = next(root.glob("runs/resnet56*seed0*"))
    (run / "metrics.jsonl").write_text("{}\n")
    answer = resnet("play")
    assert answer.code == 3
    assert "metrics.jsonl is corrupt: line 1" in answer.err


def test_corrupt_weights_are_a_sentence(resnet: Resnet, tmp_path: Path) -> None:
    root = write_studies(tmp_path / "studies")
    (next(root.glob("runs/plain20*seed0*")) / "model/model.safetensors").write_bytes(b"x" * 99)
    answer = resnet("play")
    assert answer.code == 3
    assert answer.err.startswith("resnet: ")


def test_a_file_that_cannot_be_written_is_said_before_training(
    resnet: Resnet, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    answer = resnet("play", "--out", "taken")
    assert answer.code == 2
    assert "--out taken is a folder: expected a file, such as taken/play.html." in answer.err
    answer = resnet("play", "--out", "file/play.html")
    assert answer.code == 1
    assert "cannot be written. Choose another file with --out." in answer.err
    if os.getuid():  # the superuser may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "Choose another file" in resnet("play", "--out", "locked/play.html").err


@pytest.mark.usefixtures("_without_networks")
def test_the_report_of_the_study_names_the_command(resnet: Resnet, tmp_path: Path) -> None:
    write_studies(tmp_path / "studies")
    resnet("study", "degradation")
    report = tmp_path / "studies/degradation-quick/report.html"
    assert "resnet play --runs studies --out studies/play.html" in report.read_text()
    assert "../play.html" not in report.read_text()
    resnet("play", "--out", "studies/play.html")
    resnet("study", "degradation")
    assert 'href="../play.html"' in report.read_text()
