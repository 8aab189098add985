"""int8 on small networks: what holds, what is refused, and which layer is named."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import DATASETS
from resnetkit.errors import DataError, UsageError, WeightsError
from resnetkit.evaluation.paired import ErrorDifference
from resnetkit.inference import export, nncf_models, quantize
from resnetkit.inference.export import export_network
from resnetkit.inference.exported import INT8_FILE
from resnetkit.inference.graphs import trace
from resnetkit.inference.int8_report import (
    Accuracy,
    Attempt,
    Budget,
    Int8Report,
    Speedup,
    read_int8,
)
from resnetkit.inference.quantize import candidates, check_images, compare
from resnetkit.models.zoo import ARCHITECTURES, cifar
from resnetkit.weights.network import TrainedNetwork

MakeNetwork = Callable[..., TrainedNetwork]
WIDE = Budget(agreement=80, points=10)
FAST = Speedup(best=2.0, low=1.9, high=2.1, single=1.5)


@pytest.fixture(scope="module")
def network(make_network: MakeNetwork) -> TrainedNetwork:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "resnet8", cifar(8))
        return make_network(name="resnet8", size=(16, 16), classes=4, data="tiny", crop_pct=1.0)


def smooth(count: int) -> torch.Tensor:
    """Returns images of smooth colors, uint8 (N, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(5)
    coarse = 255 * torch.rand(count, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear").to(torch.uint8)


def logits_of(network: TrainedNetwork, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.model(network.normalization(images))


@pytest.fixture(scope="module")
def tiny(network: TrainedNetwork) -> Iterator[Dataset]:
    """A data set whose labels are the answers of the network, except for every tenth."""
    images = smooth(360)
    labels = logits_of(network, images).argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    ids = torch.arange(360)
    splits = {"train": ids[:110], "validation": ids[110:250], "test": ids[250:]}
    dataset = Dataset("tiny", images, labels, network.class_names, splits, True, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "tiny", lambda: dataset)
        yield dataset


@pytest.fixture(autouse=True)
def fast_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine and a small network say nothing about speed."""
    monkeypatch.setattr(quantize, "measure_speedup", lambda *_: FAST)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_int8_answers_as_its_report_says(
    engine: str, network: TrainedNetwork, tiny: Dataset, tmp_path: Path
) -> None:
    sentences: list[str] = []
    exported, _ = export_network(
        network,
        tmp_path / "int8",
        engine=engine,
        precision="int8",
        budget=WIDE,
        observe=sentences.append,
    )
    report = read_int8(exported)
    images, labels = tiny.images[tiny.splits["test"]], tiny.labels[tiny.splits["test"]]
    expected = logits_of(network, images)
    logits = exported.engine.features(images.numpy(), "fc")
    predicted = torch.from_numpy(logits.argmax(1))
    assert 1e-4 < np.abs(logits - expected.numpy()).max() / expected.abs().max() < 0.3
    assert report.test is not None
    assert report.test.images == 110
    agreement = (predicted == expected.argmax(1)).double().mean()
    assert report.test.agreement == pytest.approx(100 * float(agreement), abs=1)
    assert report.test.error == pytest.approx(
        100 * float((predicted != labels).double().mean()), abs=1e-9
    )
    assert report.test.float_error == pytest.approx(10)
    assert (report.calibration_images, report.data, report.speedup) == (110, "tiny", FAST)
    last = report.attempts[-1].accuracy
    assert last is not None
    assert WIDE.used(last) <= 1
    assert len(sentences) == len(report.attempts)
    assert exported.network_sha256 != exported.config.source.network_sha256
    card = (exported.folder / "README.md").read_text()
    assert "What int8 costs" in card
    assert str(report.test) in card
    exported.verify_all()
    (exported.folder / INT8_FILE).write_bytes(b"{}")
    with pytest.raises(WeightsError, match="not what was written"):
        exported.verify_all()


def damaged(network: TrainedNetwork, *blocks: str) -> TrainedNetwork:
    """Returns the same function, with a channel in each block that int8 cannot hold."""
    copy = deepcopy(network)
    with torch.no_grad():
        for name in blocks:
            block = copy.model.get_submodule(name)
            for scaled in (block.bn1.weight, block.bn1.bias):
                scaled[0] *= 1e5
            block.bn1.bias[0] += 1e4
            block.conv2.weight[:, 0] /= 1e5
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_a_network_that_collapses_is_refused_and_its_layers_are_named(
    engine: str,
    network: TrainedNetwork,
    tiny: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nncf_models, "MOST_REVERTED", 1)
    bad = damaged(network, "layer1.0", "layer2.0", "layer3.0")
    out = tmp_path / "int8"
    with pytest.raises(WeightsError, match="int8 costs this network too much") as caught:
        export_network(bad, out, engine=engine, precision="int8", budget=WIDE)
    message = str(caught.value)
    assert "Layers to blame" in message
    blamed = message[message.index("Layers to blame") :]
    for layer in ("layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"):
        assert layer in blamed
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_accuracy_control_saves_a_network_with_one_bad_layer(
    engine: str, network: TrainedNetwork, tiny: Dataset, tmp_path: Path
) -> None:
    bad = damaged(network, "layer2.0")
    exported, _ = export_network(
        bad, tmp_path / "int8", engine=engine, precision="int8", budget=WIDE
    )
    attempts = read_int8(exported).attempts
    assert "accuracy control" in attempts[-1].candidate
    assert all(WIDE.used(a.accuracy) > 1 for a in attempts[:-1] if a.accuracy)


def test_slow_int8_is_not_offered(
    network: TrainedNetwork, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Speedup(best=1.05, low=1.0, high=1.1, single=0.9)
    monkeypatch.setattr(quantize, "measure_speedup", lambda *_: slow)
    monkeypatch.setattr(quantize, "quantized_model", lambda model, *_: model)  # NNCF takes seconds
    with pytest.raises(
        UsageError, match=r"^int8 is 1\.05 times as fast .* with openvino"
    ) as caught:
        export_network(network, tmp_path / "int8", engine="openvino", precision="int8", budget=WIDE)
    assert "expected 1.15 times or more, so nothing was written" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_computes_something_else_is_not_quantized(
    network: TrainedNetwork, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace_of_another(trained: TrainedNetwork) -> object:
        other = deepcopy(trained)
        torch.nn.init.ones_(other.model.fc.bias)
        return trace(other)

    monkeypatch.setattr(export, "trace", trace_of_another)
    with pytest.raises(WeightsError, match="does not compute what the network computes"):
        export_network(network, tmp_path / "int8", engine="openvino", precision="int8", budget=WIDE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 99}, "too few training images to calibrate int8: 99, expected 100 or more"),
        ({"train": 0}, "too few training images to calibrate int8: 0"),
        ({"validation": 20}, r"too few validation images .*: 20, expected 26 or more.* --budget"),
    ],
)
def test_too_few_images_are_refused(
    splits: dict[str, int], message: str, network: TrainedNetwork, tiny: Dataset
) -> None:
    shorter = {name: ids[: splits.get(name, len(ids))] for name, ids in tiny.splits.items()}
    with pytest.raises(DataError, match=message):
        check_images(network, replace(tiny, splits=shorter), WIDE)


def test_default_budget_needs_enough_validation_images(
    network: TrainedNetwork, tiny: Dataset
) -> None:
    with pytest.raises(DataError, match=r"140, expected 922 or more.* 1\.95 points at best"):
        check_images(network, tiny, Budget())


def test_data_of_other_classes_are_refused(network: TrainedNetwork, tiny: Dataset) -> None:
    others = replace(tiny, class_names=("cat", *tiny.class_names[1:]))
    with pytest.raises(DataError, match="not trained on: cat"):
        check_images(network, others, WIDE)


@pytest.mark.parametrize("points", [0, -1, 11, float("nan")])
def test_budgets_out_of_range_are_refused(points: float) -> None:
    with pytest.raises(UsageError, match="expected more than 0 and at most 10"):
        Budget(points=points)


def test_candidates_follow_the_processor() -> None:
    with_vnni = candidates(("avx512f", "avx512_vnni"))
    without = candidates(("avx2", "avx512f"))
    assert [candidate.asymmetric for candidate in with_vnni] == [False, True, True, True, True]
    assert not any(candidate.overflow_fix for candidate in with_vnni)
    assert [candidate.overflow_fix for candidate in without] == [False, False, *[True] * 4]
    for order in (with_vnni, without):
        assert order[-3].exact_bias
        assert order[-2].float_ends
        assert [candidate.accuracy_control for candidate in order] == [
            *[False] * (len(order) - 1),
            True,
        ]
        assert len({candidate.description for candidate in order}) == len(order)


def test_budget_counts_the_upper_end_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)).astype(np.float32)
    labels = logits.argmax(1)
    same = compare("validation", logits, logits, labels)
    assert same.agreement == 100
    assert Budget().used(same) == pytest.approx(same.difference.high / 0.3)
    other = logits.copy()
    other[:80] = np.roll(other[:80], 1, axis=1)
    worse = compare("validation", other, logits, labels)
    assert worse.agreement == 98
    assert worse.difference.points == pytest.approx(2)
    assert Budget(points=10).used(worse) == pytest.approx(2 / 1.5)
    assert Budget(agreement=50, points=2).used(worse) > 1  # 2 points, but not surely


def report_with(validation: float, test: float, *, learned: int = 0) -> Int8Report:
    """Returns a report with float32 errors in percent, and int8 as good as float32."""
    same = ErrorDifference(0, -0.1, 0.1)
    splits = {"validation": (5000, validation), "test": (10_000, test)}
    accuracies = [
        Accuracy(split, images, 99.9, error, error, same)
        for split, (images, error) in splits.items()
    ]
    attempts = (Attempt("performance preset", accuracies[0]),)
    return Int8Report(
        "tiny", 300, Budget(), attempts, accuracies[1], learned, FAST, "a processor", ()
    )


def test_validation_images_that_were_learned_raise_doubts() -> None:
    assert report_with(8.0, 8.2).doubts == ()
    (doubt,) = report_with(1.1, 8.2).doubts
    assert "1.10 % on validation images and 8.20 % on test images" in doubt
    (doubt,) = report_with(8.0, 8.2, learned=17).doubts
    assert "trained on 17 of the validation images" in doubt


def test_a_budget_that_fails_on_the_test_images_raises_a_doubt() -> None:
    report = report_with(8.0, 8.2)
    assert report.test is not None
    worse = replace(report.test, difference=ErrorDifference(0.3, 0.1, 0.5))
    (doubt,) = replace(report, test=worse).doubts
    assert doubt.startswith("On the test images the budget does not hold")


@pytest.mark.slow
def test_nncf_sends_nothing() -> None:
    """In a process of its own: NNCF sends nothing wherever it notices pytest."""
    code = (
        "import resnetkit.inference.nncf_models;"
        "from nncf.telemetry import wrapper;"
        "print(isinstance(wrapper.telemetry, wrapper.NNCFTelemetryStub))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "True"


def test_validation_images_are_not_called_test_images() -> None:
    images = torch.arange(4)
    for test in (images.clone(), torch.tensor([], dtype=torch.int64)):
        splits = {"validation": images, "test": test}
        search: Any = SimpleNamespace(dataset=SimpleNamespace(splits=splits))
        assert quantize.Search.test_accuracy(search, search) is None
