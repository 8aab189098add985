"""resnet study: verdicts on stdout, the report beside them, and an exit code that tells."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetkit.cli.study import CLAIM_NOT_CONFIRMED
from resnetkit.studies import runner
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.table import STUDIES

Resnet = Callable[..., Any]
Studies = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("_undrawn")


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **_: object) -> None:
        raise AssertionError(f"trained {words}")

    monkeypatch.setattr(runner, "train", refuse)


@pytest.mark.parametrize("words", [("study",), ("study", "list")], ids=" ".join)
def test_studies_are_listed_with_their_scales(resnet: Resnet, words: tuple[str, ...]) -> None:
    answer = resnet(*words)
    assert (answer.code, answer.err) == (0, "")
    heading, *rows = answer.rows
    assert heading[:4] == ["name", "scale", "data", "trainings"]
    expected = [(s.name, scale) for s in STUDIES.values() for scale in s.scales]
    assert [(row[0], row[1]) for row in rows] == expected
    assert ["degradation", "quick", "digits", "14"] in [row[:4] for row in rows]
    values = resnet(*words, "--json").values
    assert [(each["name"], each["scale"]) for each in values] == expected
    assert values[0]["question"].endswith("?")


REFUSED_SCALES = {
    "another scale's data": (
        ("--scale", "quick", "--data", "cifar10"),
        "the scale 'quick' of 'degradation' uses digits, not cifar10: leave --data or --scale out.",
    ),
    "data no scale has": (
        ("--data", "mnist"),
        "the study 'degradation' does not use 'mnist': expected digits, cifar10.",
    ),
    "no such scale": (("--scale", "huge"), "the study 'degradation' has no scale 'huge'"),
}


@pytest.mark.parametrize("case", REFUSED_SCALES)
def test_scales_and_data_that_do_not_fit_are_refused(case: str, resnet: Resnet) -> None:
    words, message = REFUSED_SCALES[case]
    answer = resnet("study", "degradation", *words)
    assert answer.code == 2
    assert message in answer.err


def test_data_chooses_the_scale() -> None:
    assert DEGRADATION.choose_scale(None, None) == "quick"
    assert DEGRADATION.choose_scale(None, "digits") == "quick"
    assert DEGRADATION.choose_scale(None, "cifar10") == "short"
    assert DEGRADATION.choose_scale("paper", "cifar10") == "paper"
    assert DEGRADATION.choose_scale("paper", None) == "paper"


def test_confirmed_claims_end_with_0(resnet: Resnet, finished_study: Studies) -> None:
    studies = finished_study()
    answer = resnet("study", "degradation")
    assert answer.code == 0
    verdicts = [line for line in answer.out.splitlines() if not line.startswith(" ")]
    assert [line.split(":")[0] for line in verdicts] == ["confirmed"] * 4
    assert "    training error of plain56: 40.10 % +- 0.10 (n = 3)\n" in answer.out
    report = studies / "degradation-quick" / "report.html"
    assert f"report: {report}\n" in answer.err
    assert "4 of 4 claims confirmed" in " ".join(report.read_text().split())


def test_a_claim_that_is_not_confirmed_ends_with_4(resnet: Resnet, finished_study: Studies) -> None:
    finished_study({"resnet56": (0.2, 45.0)})
    answer = resnet("study", "degradation")
    assert answer.code == CLAIM_NOT_CONFIRMED == 4
    verdicts = [line.split(":")[0] for line in answer.out.splitlines() if line[0] != " "]
    assert verdicts == ["confirmed"] * 3 + ["not confirmed"]


def test_machines_get_the_findings_and_the_code(resnet: Resnet, finished_study: Studies) -> None:
    studies = finished_study({"resnet56": (0.2, 45.0)})
    answer = resnet("study", "degradation", "--json")
    assert answer.code == 4
    assert answer.values == json.loads(
        (studies / "degradation-quick" / "findings.json").read_text()
    )
    assert [finding["verdict"] for finding in answer.values["findings"]][2:] == [
        "confirmed",
        "not confirmed",
    ]


def test_changes_make_another_study(resnet: Resnet, finished_study: Studies) -> None:
    finished_study()
    words = ("--set", "optimizer.lr=0.5", "--jobs", "1", "--backend", "sequential")
    with pytest.raises(AssertionError, match="trained"):
        resnet("study", "degradation", *words)


def test_the_folder_may_have_any_name(
    resnet: Resnet, finished_study: Studies, tmp_path: Path
) -> None:
    finished_study().rename(tmp_path / "my stud\u00edes")
    answer = resnet("study", "degradation", "--out", "my stud\u00edes")
    assert answer.code == 0
    assert (tmp_path / "my stud\u00edes" / "degradation-quick" / "report.html").is_file()


def test_a_terminal_gets_a_bar(finished_study: Studies, terminal: Callable[..., str]) -> None:
    finished_study()
    shown = terminal("study", "degradation", columns=120)
    assert "study degradation" in shown
    assert "%" in shown.split("confirmed:")[0]


def members(group: int) -> list[int]:
    """Returns the processes of a group that still run."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    fields = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, leader, state in fields if int(leader) == group and "Z" not in state]


def wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_leaves_no_process_and_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A whole study of very short trainings, twice: about a minute on two cores."""
    words = [sys.executable, "-m", "resnetkit", "study", "degradation", "--jobs", "2"]
    words += ["--set", "length=6 steps", "--set", "checkpoint.every=1 steps"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: any(tmp_path.glob("studies/runs/*/checkpoints/step-2")), seconds=60)
    assert len(members(process.pid)) > 2
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "The same command resumes it." in err
    assert "Traceback" not in err
    wait_until(lambda: not members(process.pid), seconds=10)

    finished = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.glob("studies/runs/*/model/model.safetensors")
    }
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert again.returncode == CLAIM_NOT_CONFIRMED  # nothing is learned in six steps
    assert again.stdout.count("confirmed: ") == 4
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
