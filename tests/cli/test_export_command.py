"""resnet export and its check, and the commands that take what it writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from PIL import Image

from resnetkit.cli.app import run
from resnetkit.data.datasets import open_dataset
from resnetkit.training.recipe import Recipe

Resnet = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tiny: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps of ResNet-8 on digits."""
    from resnetkit.training.loop import train

    recipe = tiny({"data.name": "digits"})
    return train(recipe, tmp_path_factory.mktemp("digits") / "run").folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run, exported for OpenVINO."""
    out = tmp_path_factory.mktemp("exported") / "digits"
    assert run(["export", str(trained), "--to", "openvino", "--out", str(out)]) == 0
    return out


def test_what_is_written_is_described(trained: Path, tmp_path: Path, resnet: Resnet) -> None:
    answer = resnet("export", str(trained), "--to", "openvino", "--out", "x", "--json")
    assert answer.code == 0
    assert answer.values["engine"] == "openvino"
    assert answer.values["parity"]["same_top1"] == 16
    assert answer.values["golden"] == "16 images of the test split of digits"
    assert "they lie in the folder for all who receive it" in answer.err
    again = resnet("export", str(trained), "--to", "openvino", "--out", "x")
    assert again.code == 1
    assert "x exists and is not empty" in again.err


def test_a_folder_is_checked(exported: Path, tmp_path: Path, resnet: Resnet) -> None:
    answer = resnet("export", "check", str(exported))
    assert answer.code == 0
    assert "16 golden images, 16 have the top-1 class of torch in float32" in answer.out
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "predict.py").write_text("print('else')")
    broken = resnet("export", "check", str(copy))
    assert broken.code == 3
    assert "predict.py is not what was written" in broken.err


def test_a_network_is_measured_as_before(trained: Path, exported: Path, resnet: Resnet) -> None:
    before, after = (
        resnet("evaluate", str(path), "--device", "cpu", "--json").values
        for path in (trained, exported)
    )
    assert after["metrics"]["top1"] == before["metrics"]["top1"]
    assert after["metrics"]["loss"] == pytest.approx(before["metrics"]["loss"], rel=1e-4)


def test_features_of_torch_are_searched_with_the_exported_network(
    trained: Path, exported: Path, tmp_path: Path, resnet: Resnet
) -> None:
    digits = open_dataset("digits")
    (tmp_path / "photos").mkdir()
    for number, sample in enumerate(digits.splits["test"][:5].tolist()):
        Image.fromarray(digits.images[sample, 0].numpy()).save(tmp_path / f"photos/{number}.png")
    assert resnet("features", str(trained), "photos", "--out", "f.safetensors").code == 0
    answer = resnet("nearest", "f.safetensors", "photos/3.png", "--model", str(exported), "--json")
    assert answer.code == 0
    best = answer.values[0]["nearest"][0]
    assert best["path"] == "photos/3.png"
    assert best["similarity"] == pytest.approx(1, abs=1e-6)


def test_each_process_of_shards_computes_with_one_thread(
    exported: Path, tmp_path: Path, resnet: Resnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def recorded(core: openvino.Core, model: Any, device: str, config: dict[str, Any]) -> Any:
        threads.append(config["INFERENCE_NUM_THREADS"])
        return compile_model(core, model, device, config)

    compile_model = openvino.Core.compile_model
    monkeypatch.setattr(openvino.Core, "compile_model", recorded)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    words = ("predict", str(exported), "black.png")
    assert resnet(*words).code == 0
    assert resnet(*words, "--out", "answers", "--backend", "sequential").code == 0
    assert threads == [8, 1]


def test_options_that_a_folder_has_settled_are_refused(exported: Path, resnet: Resnet) -> None:
    for command in (("predict", str(exported), "x.png"), ("evaluate", str(exported))):
        answer = resnet(*command, "--precision", "bfloat16")
        assert answer.code == 2
        assert "is exported in float32" in answer.err


def test_weights_of_torch_are_expected_where_an_engine_does_not_suffice(
    exported: Path, resnet: Resnet
) -> None:
    for command in (("inspect", str(exported)), ("weights", "show", str(exported))):
        answer = resnet(*command)
        assert answer.code in (2, 3)
        assert "Traceback" not in answer.err
    assert "is an exported network" in answer.err


def test_a_run_that_is_not_finished_and_a_missing_one_are_refused(
    tmp_path: Path, resnet: Resnet
) -> None:
    answer = resnet("export", "nowhere", "--to", "onnx", "--out", "x")
    assert answer.code == 3
    assert "there is no nowhere" in answer.err
    assert resnet("export", "check", "nowhere").code == 3
    assert resnet("export", "nowhere", "--out", "x").code == 2


def test_the_description_can_be_read_by_others(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["class_names"] == [str(n) for n in range(10)]
    assert np.prod(config["image_size"]) == 64
    assert "resnet predict FOLDER photos/" in (exported / "README.md").read_text()
