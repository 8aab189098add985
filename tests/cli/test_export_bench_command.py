"""resnet export bench, and int8 as the command line shows it, with measurements made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetkit.errors import DataError
from resnetkit.evaluation.paired import ErrorDifference
from resnetkit.inference import bench as module
from resnetkit.inference.bench import Answers
from resnetkit.inference.bench_process import Measured

Resnet = Callable[..., Any]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements and answers that take no time."""

    def measured(network: Path, precision: str, seconds: float) -> tuple[float, Measured]:
        rates = {1: 1234.5, 32: 5678.9}
        return 0.75, Measured("openvino", precision, 0.81, 0.92, rates, 300 * 2**20)

    difference = ErrorDifference(0.12, -0.05, 0.29)
    monkeypatch.setattr(module, "in_fresh_process", measured)
    monkeypatch.setattr(
        module, "compared_answers", lambda *_: [Answers(10_000, 8.25, 99.1, difference)] * 2
    )


@pytest.mark.usefixtures("made_up")
def test_a_line_for_each_network(resnet: Resnet) -> None:
    answer = resnet("export", "bench", "one", "two", "--data", "cifar10", "--rounds", "2")
    assert answer.code == 0
    header, *lines = answer.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["one", "two"]
    cells = dict(zip(header.split("\t"), lines[1].split("\t"), strict=True))
    assert cells["p50, ms"] == "0.81 (0.81 to 0.81)"
    assert cells["best images/s"] == "5,678.9 (5,678.9 to 5,678.9)"
    assert (cells["batch"], cells["memory, MiB"]) == ("32", "300")
    assert (cells["same top-1"], cells["error"]) == ("99.10 %", "8.25 %")
    assert cells["more error, points"] == "+0.12 (-0.05 to +0.29)"
    assert "medians of 2 process(es) each" in answer.err
    assert "compared with one on 10,000 test images" in answer.err


@pytest.mark.usefixtures("made_up")
def test_json_and_chart(resnet: Resnet, tmp_path: Path) -> None:
    chart = tmp_path / "bench.svg"
    answer = resnet("export", "bench", "one", "two", "--json", "--chart", str(chart))
    first, _ = json.loads(answer.out)
    assert first["name"] == "one"
    assert first["best_batch"] == 32
    assert first["start"] == {"median": 0.75, "low": 0.75, "high": 0.75}
    assert first["answers"] is None
    assert chart.read_text().startswith("<svg")


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no networks: name exported folders, runs or weights"),
        (("one", "--chart", "bench.png"), "expected a name that ends in .svg"),
        (("one", "--rounds", "0"), "0 rounds: expected from 1 to 100"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: tuple[str, ...], message: str, resnet: Resnet
) -> None:
    answer = resnet("export", "bench", *words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def test_data_that_cannot_be_read_is_noticed_before_the_measurements(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DataError("there is no nowhere")

    def measured(*_: object) -> None:
        pytest.fail("measured first")

    monkeypatch.setattr(module, "compared_answers", refuse)
    monkeypatch.setattr(module, "in_fresh_process", measured)
    answer = resnet("export", "bench", "one", "--data", "nowhere/")
    assert (answer.code, answer.out) == (3, "")
    assert "there is no nowhere" in answer.err


def test_a_budget_is_for_int8(resnet: Resnet, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    answer = resnet("export", "net", "--to", "openvino", "--out", out, "--budget", "1")
    assert answer.code == 2
    assert "--budget 1 is for --precision int8" in answer.err


def test_a_chart_that_cannot_be_written_is_noticed_before_the_measurements(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "in_fresh_process", lambda *_: pytest.fail("measured first"))
    Path("file").touch()
    Path("folder.svg").mkdir()
    for chart in ("file/chart.svg", "folder.svg"):
        answer = resnet("export", "bench", "one", "--chart", chart)
        assert (answer.code, answer.out) == (1, "")
        assert f"cannot write {chart}: " in answer.err
