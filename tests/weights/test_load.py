"""Networks from paths: our own folders, and files that must be refused."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from helpers.weights import (
    Malicious,
)
from resnetkit.errors import WeightsError
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(WeightsError):
        load_network(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"{}",
        b"\x80\x02.",
        bytes(range(256)),
        b"PK\x03\x04",
        b"\x08" + b"\0" * 7 + b"{",
    ],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        load_network(path)


@pytest.mark.parametrize(
    "content", [{}, [], 3, {"state_dict": {}}, {"state_dict": 3}, {"a": torch.ones(1)}, None]
)
def test_content_without_a_network_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="is in no format that resnetkit reads"):
        load_network(tmp_path / "file.pt")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_network(tmp_path / "none")
    assert str(caught.value) == (
        f"there is no {tmp_path / 'none'}: expected a run folder or a file of weights."
    )
    with pytest.raises(WeightsError, match="holds no network: it has neither"):
        load_network(tmp_path)


@pytest.fixture(scope="module")
def finished(on_digits: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(on_digits({"data.normalize": "pixel-mean"}), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_is_loaded_with_all_it_knows(run: Path) -> None:
    network = load_network(run)
    state = safetensors.torch.load_file(run / "model" / "model.safetensors")
    torch.testing.assert_close(network.model.state_dict(), state)
    assert network.class_names == tuple("0123456789")
    assert (network.data, network.image_size) == ("digits", (8, 8))
    assert network.normalization.mean.shape == (1, 8, 8)
    assert network.origin == "resnet20 trained by resnetkit on digits"
    assert load_network(run / "model").origin == network.origin


def test_a_run_that_is_not_finished_is_refused(run: Path) -> None:
    shutil.rmtree(run / "model")
    with pytest.raises(WeightsError, match="is not finished: it has no model yet"):
        load_network(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b'{"layers": 3}'),
        ("model.safetensors", b""),
        ("preprocessing.safetensors", b"junk"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(name: str, content: bytes, run: Path) -> None:
    (run / "model" / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_network(run)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessing.safetensors"])
def test_a_missing_file_of_a_run_is_named(name: str, run: Path) -> None:
    (run / "model" / name).unlink()
    with pytest.raises(WeightsError, match=name):
        load_network(run)


@pytest.mark.parametrize(
    ("field", "value"),
    [("depths", "three"), ("block", "x"), ("depths", [1, 1, 1]), ("num_classes", 7), ("new", 1)],
)
def test_a_configuration_of_another_network_is_refused(
    field: str, value: object, run: Path
) -> None:
    path = run / "model" / "config.json"
    facts = json.loads(path.read_text())
    facts["layers"][field] = value
    path.write_text(json.dumps(facts))
    with pytest.raises(WeightsError):
        load_network(run)


def test_a_config_of_another_program_is_named_as_such(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"optimizer": "sgd", "lr": 0.1}')
    shutil.copy(run / "model" / "model.safetensors", folder)
    with pytest.raises(
        WeightsError, match=r"config\.json is of no format that resnetkit reads: ex"
    ):
        load_network(folder)


def test_another_file_in_our_folder_is_not_taken_for_ours(run: Path) -> None:
    state = safetensors.torch.load_file(run / "model" / "model.safetensors")
    torch.save(state, run / "model" / "pytorch_model.bin")
    assert load_network(run / "model" / "model.safetensors").format == "resnetkit"
    for path in ("pytorch_model.bin", "model.safetensors#x"):
        with pytest.raises(WeightsError, match=r"describes model\.safetensors as a whole"):
            load_network(run / "model" / path)


def changed(run: Path, **facts: object) -> None:
    path = run / "model" / "config.json"
    whole = json.loads(path.read_text())
    layers = facts.pop("layers", {})
    whole["layers"] |= layers  # type: ignore[operator]
    path.write_text(json.dumps({**whole, **facts}))


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a name that is a list": {"data": {"name": ["digits"]}},
    "a name that is a number": {"data": {"name": 3}},
    "classes that are numbers": {"class_names": list(range(10))},
    "a negative size": {"image_size": [-8, 8]},
    "a size in words": {"image_size": ["8", "8"]},
    "negative classes": {"layers": {"num_classes": -1}},
    "too many classes": {"layers": {"num_classes": 10**12}},
    "huge widths": {"layers": {"widths": [10**9, 32, 64]}},
    "no widths": {"layers": {"widths": [0, 0, 0]}},
    "an unknown padding": {"layers": {"padding": "Q"}},
    "an unknown norm": {"layers": {"norm": "foo"}},
    "an unknown stem": {"layers": {"stem": "zz"}},
    "a switch in words": {"layers": {"recompute": "yes"}},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_configuration_is_refused(case: str, run: Path) -> None:
    changed(run, **json.loads(json.dumps(IMPOSSIBLE[case])))
    with pytest.raises(WeightsError):
        load_network(run)


def test_a_configuration_that_nests_without_end_is_refused(run: Path) -> None:
    (run / "model" / "config.json").write_text("[" * 100_000)
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_network(run)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (torch.zeros(3, 3, 3), torch.ones(1, 1, 1)),
        (torch.zeros(1), torch.ones(1, 1, 1)),
        (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)),
        (torch.full((1, 1, 1), float("nan")), torch.ones(1, 1, 1)),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(mean: Tensor, std: Tensor, run: Path) -> None:
    path = run / "model" / "preprocessing.safetensors"
    safetensors.torch.save_file({"mean": mean, "std": std}, path)
    with pytest.raises(WeightsError):
        load_network(run)


def test_preprocessing_in_double_is_read_as_float32(
    run: Path, forge: Callable[[Path], None]
) -> None:
    path = run / "model" / "preprocessing.safetensors"
    values = {name: t.double() for name, t in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(values, path)
    forge(run / "model")
    assert load_network(run).normalization.mean.dtype == torch.float32


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="neither a file nor a folder"):
        load_network(tmp_path / "pipe")
