"""Networks side by side: who is measured when, what is computed of it, and real processes."""

import re
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from resnetkit.errors import DataError, ResnetkitError, UsageError
from resnetkit.inference import bench as module
from resnetkit.inference.bench import Plan, as_json, bench, compare, compared_answers, failure
from resnetkit.inference.bench_process import Measured
from resnetkit.inference.export import export_network
from resnetkit.models.zoo import ARCHITECTURES, cifar
from resnetkit.report.bench_chart import bench_chart
from resnetkit.weights.network import TrainedNetwork

MakeNetwork = Callable[..., TrainedNetwork]


def measured(scale: float) -> Measured:
    return Measured(
        engine="openvino",
        precision="float32",
        p50=2 / scale,
        p99=3 / scale,
        rates={1: 400 * scale, 8: 900 * scale, 32: 700 * scale},
        peak_bytes=100 * 2**20,
    )


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks in the order in which they are measured: each is faster every time."""
    measured_networks: list[str] = []

    def fake(network: Path, precision: str, seconds: float) -> tuple[float, Measured]:
        measured_networks.append(str(network))
        return 0.5, measured(float(measured_networks.count(str(network))))

    monkeypatch.setattr(module, "in_fresh_process", fake)
    return measured_networks


def test_networks_take_turns_and_each_is_first_now_and_then(order: list[str]) -> None:
    rows = bench([Path("a"), Path("b"), Path("c")], plan=Plan(rounds=3))
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [row.name for row in rows] == ["a", "b", "c"]
    row = rows[0]
    assert row.processes == 3
    assert (row.p50.low, row.p50.median, row.p50.high) == (2 / 3, 1, 2)
    assert row.best.batch == 8
    assert row.best.images_per_second.median == 1800
    assert row.memory.median == 100
    assert row.answers is None
    assert as_json(rows)[0]["best_batch"] == 8


def test_chart_shows_each_network_with_its_figures(order: list[str]) -> None:
    drawing = bench_chart(bench([Path("one"), Path("<two>")], plan=Plan(rounds=3)))
    assert drawing.startswith("<svg")
    assert "1,800.0 (batch 8)" in drawing
    assert "&lt;two&gt;" in drawing
    assert "<two>" not in drawing
    label = re.search('aria-label="([^"]*)"', drawing)
    assert label is not None
    assert "one with openvino in float32: 800.0 images per second one at a time" in label[1]


def test_answers_are_compared_with_the_first_network() -> None:
    labels = np.arange(200) % 5
    reference = labels.copy()
    reference[:20] = (labels[:20] + 1) % 5
    predicted = reference.copy()
    predicted[:4] = labels[:4]
    predicted[50:60] = (labels[50:60] + 2) % 5
    answers = compare(predicted, reference, labels)
    assert answers.error == pytest.approx(13)
    assert answers.agreement == pytest.approx(93)
    assert answers.difference.points == pytest.approx(3)


def test_classes_in_another_order_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def predicting(*words: object) -> nullcontext[None]:
        labels = np.array([0, 1, 1]) if words[1] == Path("one") else np.array([1, 0, 0])
        np.save(str(words[-1]), np.stack([labels, labels]))
        return nullcontext()

    monkeypatch.setattr(module, "started", predicting)
    monkeypatch.setattr(module, "finish", lambda *_: None)
    with pytest.raises(DataError, match="or numbers their classes in another order: compare"):
        compared_answers([Path("one"), Path("two")], "float32", "photos")


@pytest.mark.parametrize(
    ("rounds", "seconds"), [(0, 1), (101, 1), (3, 0), (3, float("nan")), (3, 1e9)]
)
def test_plans_out_of_range_are_refused(rounds: int, seconds: float) -> None:
    with pytest.raises(UsageError, match="expected from"):
        Plan(rounds=rounds, seconds=seconds)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="no networks"):
        bench([], plan=Plan())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ('first answer\n{"error": "not enough."}\n', "net: not enough."),
        ("Killed\n", r"net: its process failed \(Killed\)\."),
        ("", "without a word"),
    ],
)
def test_a_process_that_fails_says_why(output: str, message: str) -> None:
    assert re.search(message, str(failure(Path("net"), output)))


@pytest.mark.parametrize("line", ["", "first answer"])
def test_a_process_that_hangs_is_killed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def hanging(*arguments: object) -> "subprocess.Popen[str]":
        command = ["sh", "-c", f"echo '{line}'; exec sleep 100" if line else "exec sleep 100"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(module, "started", hanging)
    monkeypatch.setattr(module, "STARTING_SECONDS", 0.2)
    monkeypatch.setattr(module, "SECONDS_EACH", 0)
    with pytest.raises(ResnetkitError, match="the measurement of net did not end within"):
        bench([Path("net")], plan=Plan(rounds=1, seconds=0.01))


@pytest.mark.slow
def test_real_processes(make_network: MakeNetwork, tmp_path: Path) -> None:
    digits = tuple(map(str, range(10)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "resnet8", cifar(8))
        small = make_network(
            name="resnet8",
            channels=1,
            size=(8, 8),
            classes=10,
            names=False,
            data="digits",
            crop_pct=1.0,
        )
    object.__setattr__(small, "class_names", digits)
    folders = []
    for engine in ("openvino", "onnx"):
        folders.append(tmp_path / engine)
        export_network(small, folders[-1], engine=engine)
    rows = bench(folders, plan=Plan(rounds=2, seconds=0.05), data="digits")
    assert [(row.engine, row.precision) for row in rows] == [
        ("openvino", "float32"),
        ("onnx", "float32"),
    ]
    for row in rows:
        assert 0 < row.p50.median <= row.p99.median
        assert [rate.batch for rate in row.rates] == [1, 2, 4, 8, 16, 32]
        assert row.start.low > 0.1
        assert 20 < row.memory.median < 2000
        assert row.answers is not None
        assert row.answers.agreement == 100
        assert row.answers.difference.points == 0
    with pytest.raises(ResnetkitError, match="nowhere"):
        bench([tmp_path / "nowhere"], plan=Plan(rounds=1, seconds=0.05))
