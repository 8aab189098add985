"""resnet evaluate: its words, its JSON, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetkit.cli.app import run as run_command
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import read_run

Recipes = Callable[..., Recipe]


@pytest.fixture
def folder(digits_run: Path) -> Path:
    return digits_run


def test_it_prints_errors_classes_and_mistakes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["evaluate", str(folder)]) == 0
    printed = capsys.readouterr()
    final = read_run(folder).final
    assert final is not None
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"top-1 error  {final.test.error:.2f} % (95 % interval ")
    assert lines[1].startswith(f"top-5 error  {final.test.top5_error:.2f} % (95 % interval ")
    assert "359 images, 1 view, float32" in lines
    assert "class\timages\terror\tprecision" in lines
    confusion = final.confusion
    worst = max(n for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j)
    after = lines[lines.index("most frequent mistakes") + 1]
    assert after.split()[0] == str(worst)
    assert printed.err == "resnet20 trained by resnetkit on digits; test split of digits\n"


def test_json_holds_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["evaluate", str(folder), "--split", "validation", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    final = read_run(folder).final
    assert final is not None
    assert facts["metrics"]["top1"]["error"] == pytest.approx(final.validation.error)
    assert (facts["split"], facts["flip"], facts["precision"]) == ("validation", False, "float32")
    assert len(facts["metrics"]["confusion"]) == len(facts["metrics"]["classes"]) == 10
    assert set(facts["metrics"]["top5"]) == {"error", "low", "high"}


REFUSED = {
    "nothing there": (["none"], 3, "there is no none: expected a run folder"),
    "other data": (["RUN", "--data", "cifar1"], 2, "unknown data set 'cifar1'"),
    "flips of digits": (["RUN", "--flip"], 3, "a mirrored image of 'digits'"),
    "unknown part": (["RUN", "--split", "all"], 2, "--split"),
    "no network": ([], 2, "NETWORK"),
    "unknown device": (["RUN", "--device", "tpu"], 2, "unknown device 'tpu'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, message = REFUSED[case]
    assert run_command(["evaluate", *(str(folder) if w == "RUN" else w for w in words)]) == code
    assert message in capsys.readouterr().err


def test_foreign_weights_do_not_say_what_they_learned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from resnetkit.weights import load

    loaded = replace(load.load_network(folder), data="")
    monkeypatch.setattr(load, "load_network", lambda path, **_: loaded)
    assert run_command(["evaluate", "weights.th"]) == 2
    assert "name the data, such as --data cifar10" in capsys.readouterr().err
    assert run_command(["evaluate", "weights.th", "--data", "digits"]) == 0


def test_a_folder_that_cannot_be_written_is_noticed_before_the_work(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "resnetkit.evaluation.evaluate.evaluate_all", lambda *_, **__: pytest.fail("evaluated")
    )
    (tmp_path / "file").touch()
    for out in ("file", "file/page"):
        assert run_command(["evaluate", str(folder), "--out", str(tmp_path / out)]) == 1
        assert "Choose another folder with --out." in capsys.readouterr().err


def test_results_are_printed_though_the_page_cannot_be_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from resnetkit.errors import StorageError

    def fail(*_: object) -> None:
        raise StorageError("the disk is full.")

    monkeypatch.setattr("resnetkit.report.evaluation_report.write_evaluation", fail)
    assert run_command(["evaluate", str(folder), "--out", str(tmp_path / "page")]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("top-1 error  ")
    assert "the disk is full." in printed.err


@pytest.mark.usefixtures("_undrawn")
def test_the_page_is_written_though_the_reader_of_stdout_has_left(
    folder: Path, tmp_path: Path, left_reader: Callable[[str], None]
) -> None:
    left_reader("stdout")
    assert run_command(["evaluate", str(folder), "--out", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page" / "report.html").is_file()
    assert (tmp_path / "page" / "evaluation.json").is_file()
