"""resnet runs and resnet report: what lies in a folder, and its report drawn again."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetkit.training.recipe import load_recipe

Resnet = Callable[..., Any]
NewRun = Callable[..., Path]


def test_runs_are_listed_with_what_they_reached(resnet: Resnet, finished_run: NewRun) -> None:
    finished_run("runs/b", {"model.name": "plain32", "seed": 3}, test=12.345)
    finished_run("runs/a/deep")
    unfinished = finished_run("runs/c")
    (unfinished / "metrics.jsonl").unlink()
    answer = resnet("runs")
    assert (answer.code, answer.err) == (0, "")
    assert answer.rows == [
        ["folder", "network", "data", "seed", "done", "test error", "training time"],
        ["runs/a/deep", "resnet20", "digits", "0", "100%", "6.00 %", "62 s"],
        ["runs/b", "plain32", "digits", "3", "100%", "12.35 %", "62 s"],
        ["runs/c", "resnet20", "digits", "0", "0%", "", "62 s"],
    ]


def test_machines_are_told_the_digest_too(resnet: Resnet, finished_run: NewRun) -> None:
    finished_run("elsewhere/run")
    (values,) = resnet("runs", "elsewhere", "--json").values
    assert values["folder"] == "elsewhere/run"
    assert values["recipe_sha256"] == load_recipe("digits").digest
    assert (values["test_error"], values["fraction_done"], values["seconds"]) == (6.0, 1.0, 61.5)


def test_runs_of_a_study_are_found(resnet: Resnet, finished_study: Callable[..., Path]) -> None:
    finished_study()
    _, *rows = resnet("runs", "studies").rows
    assert len(rows) == 14
    assert [row[1] for row in rows].count("plain56") == 3


def test_an_empty_folder_holds_no_runs(resnet: Resnet, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert len(resnet("runs").rows) == 1
    assert resnet("runs", "--json").values == []


@pytest.mark.parametrize("name", ["nowhere", "a file"])
def test_no_folder_is_said(resnet: Resnet, tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").touch()
    answer = resnet("runs", name)
    assert (answer.code, answer.out) == (2, "")
    message = f"the folder {name} does not exist: 'resnet train' creates the first run."
    assert answer.err == f"resnet: {message}\n"


def test_one_recipe_that_cannot_be_read_does_not_hide_the_others(
    resnet: Resnet, finished_run: NewRun
) -> None:
    (finished_run("runs/broken") / "recipe.yaml").write_text("color: blue")
    finished_run("runs/whole")
    answer = resnet("runs")
    assert answer.code == 0
    assert [row[0] for row in answer.rows] == ["folder", "runs/whole"]


@pytest.mark.parametrize(
    ("name", "cells"),
    [("metrics.jsonl", ["", "", "62 s"]), ("timing.jsonl", ["100%", "6.00 %", ""])],
)
@pytest.mark.parametrize("kind", ["line", "folder"])
def test_one_corrupt_run_does_not_hide_the_others(
    resnet: Resnet, finished_run: NewRun, name: str, cells: list[str], kind: str
) -> None:
    path = finished_run("runs/broken") / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("{]\n")
    finished_run("runs/whole")
    answer = resnet("runs")
    assert answer.code == 3
    assert [row[0] for row in answer.rows[1:]] == ["runs/broken", "runs/whole"]
    assert answer.rows[1][4:] == cells
    assert answer.err.startswith(f"runs/broken/{name} is corrupt: ")
    assert answer.err.count("\n") == 1
    broken, _ = resnet("runs", "--json").values
    keys = ("fraction_done", "test_error", "seconds")
    assert [broken[key] is None for key in keys] == [cell == "" for cell in cells]


def undated(path: Path) -> bytes:
    """Returns a file without the time it was made at, which a report says."""
    return re.sub(rb"<time [^>]*>[^<]*</time>", b"", path.read_bytes())


def test_the_report_of_a_run_is_drawn_again(resnet: Resnet, finished_run: NewRun) -> None:
    path = finished_run() / "report.html"
    answer = resnet("report", "runs/one")
    assert (answer.code, answer.out, answer.err) == (0, "runs/one/report.html\n", "")
    whole = undated(path)
    path.write_text("stale")
    assert resnet("report", "runs/one", "--json").values == {"report": str(path)}
    assert undated(path) == whole
    assert b"resnet20" in whole


def test_the_report_of_a_study_is_drawn_again(
    resnet: Resnet, finished_study: Callable[..., Path]
) -> None:
    folder = finished_study() / "degradation-quick"
    resnet("study", "degradation")
    whole = {path.name: undated(path) for path in folder.iterdir()}
    assert set(whole) == {"report.html", "findings.json", "degradation.svg"}
    (folder / "report.html").write_text("stale")
    (folder / "degradation.svg").unlink()
    answer = resnet("report", "studies/degradation-quick")
    assert (answer.code, answer.out) == (0, "studies/degradation-quick/report.html\n")
    assert {path.name: undated(path) for path in folder.iterdir()} == whole


def test_a_report_follows_the_runs(resnet: Resnet, finished_study: Callable[..., Path]) -> None:
    studies = finished_study()
    assert resnet("study", "degradation").code == 0
    (metrics,) = studies.glob("runs/plain56-digits-seed0-*/metrics.jsonl")
    metrics.write_text(metrics.read_text().replace("40.0", "1.0"))
    assert resnet("report", "studies/degradation-quick").code == 0
    findings = (studies / "degradation-quick" / "findings.json").read_text()
    assert '"not confirmed"' in findings


@pytest.mark.parametrize("name", ["nowhere", "empty", "a file", "runs"])
def test_what_is_neither_run_nor_study_has_no_report(
    resnet: Resnet, finished_run: NewRun, tmp_path: Path, name: str
) -> None:
    finished_run()
    (tmp_path / "a file").touch()
    (tmp_path / "empty").mkdir()
    answer = resnet("report", name)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"resnet: {name} holds neither a run (recipe.yaml) nor a study")
    assert "'resnet runs'" in answer.err


def test_a_study_that_lost_a_run_says_which(
    resnet: Resnet, finished_study: Callable[..., Path]
) -> None:
    studies = finished_study()
    resnet("study", "degradation")
    (metrics,) = studies.glob("runs/resnet32-digits-seed0-*/metrics.jsonl")
    metrics.unlink()
    answer = resnet("report", "studies/degradation-quick")
    assert (answer.code, answer.out) == (2, "")
    assert f"{metrics.parent.relative_to(studies.parent)} is not finished" in answer.err
    assert "'resnet study degradation --scale quick --out studies' resumes it" in answer.err
