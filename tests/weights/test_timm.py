"""Folders of timm: what config.json says, and networks that compute something else."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from helpers.weights import (
    CLASSES,
    assert_answers,
    assert_constants,
    narrow,
    randomized,
)
from resnetkit.errors import WeightsError
from resnetkit.resizing import Resize
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network

CFG = {"input_size": [3, 160, 176], "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.5]}


def timm_folder(folder: Path, model: nn.Module, cfg: Any = CFG, **facts: Any) -> Path:
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "resnet50", "num_classes": CLASSES, "pretrained_cfg": cfg, **facts}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_timm_resizes_bicubically_where_it_says_nothing(basic: nn.Module, tmp_path: Path) -> None:
    network = load_network(timm_folder(tmp_path / "net", basic))
    assert network.resize == Resize("bicubic", "center", "floor", "round", draft=False)


def test_timm_says_what_torchvision_does_not(bottleneck: nn.Module, tmp_path: Path) -> None:
    names = [f"kind {number}" for number in range(CLASSES)]
    folder = timm_folder(
        tmp_path / "net", bottleneck, label_names=names, model_args={"in_chans": 3}
    )
    for path in (folder, folder / "model.safetensors"):
        network = load_network(path)
        assert_answers(network, bottleneck)
        assert_constants(network, (127.5, 102, 76.5), (63.75, 51, 127.5))
        assert network.class_names == tuple(names)
        assert (network.format, network.image_size) == ("timm", (160, 176))
        assert "v1.5 (stride in the 3x3) as in timm" in network.origin
    with pytest.raises(WeightsError, match=r"is of the variant v1\.5, not v1"):
        load_network(folder, variant="v1")


REFUSED_BY_TIMM: dict[str, tuple[dict[str, Any], str]] = {
    "a deep stem": (
        {"architecture": "resnet50d"},
        "timm's 'resnet50d', which does not compute the same",
    ),
    "blurred": ({"architecture": "resnetblur50"}, "timm's 'resnetblur50'"),
    "no name": ({"architecture": None}, "timm's 'None'"),
    "another pooling": ({"global_pool": "max"}, "changes the network (global_pool)"),
    "dilated": ({"model_args": {"output_stride": 8}}, "changes the network (output_stride)"),
    "constants that are none": ({"cfg": {**CFG, "std": [0, 1, 1]}}, "config.json is corrupt"),
    "constants in words": ({"cfg": {**CFG, "mean": ["a", "b", "c"]}}, "config.json is corrupt"),
    "no constants": ({"cfg": {}}, "config.json is corrupt"),
    "two constants": ({"cfg": {**CFG, "mean": [0.5, 0.5]}}, "config.json is corrupt"),
    "another size": ({"cfg": {**CFG, "input_size": [1, 8, 8]}}, "config.json is corrupt"),
    "too few names": ({"label_names": ["one"]}, "1 label_names for 7 classes"),
    "other classes": ({"num_classes": 1000}, "num_classes is 1000, the weights have 7"),
    "borders": ({"cfg": {**CFG, "crop_mode": "border"}}, "has crop_mode 'border'"),
    "any filter": ({"cfg": {**CFG, "interpolation": "random"}}, "has interpolation 'random'"),
}


@pytest.mark.parametrize("case", REFUSED_BY_TIMM)
def test_timm_networks_that_compute_otherwise_are_refused(
    case: str, basic: nn.Module, tmp_path: Path
) -> None:
    facts, message = REFUSED_BY_TIMM[case]
    folder = timm_folder(tmp_path / "net", basic, **facts)
    with pytest.raises(WeightsError) as caught:
        load_network(folder)
    assert message in str(caught.value)


def test_a_timm_name_of_another_network_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet18(num_classes=CLASSES)
    theirs.load_state_dict(randomized(theirs.state_dict()), assign=True)
    folder = timm_folder(tmp_path / "net", theirs, architecture="resnet34")
    with pytest.raises(WeightsError, match=r"names 'resnet34', but .* holds a resnet18"):
        load_network(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_network(folder)


def test_a_single_pth_beside_a_timm_config_belongs_to_it(
    bottleneck: nn.Module, tmp_path: Path
) -> None:
    folder = timm_folder(tmp_path / "net", bottleneck)
    (folder / "model.safetensors").unlink()
    torch.save(bottleneck.state_dict(), folder / "net.pth")
    assert_answers(load_network(folder), bottleneck)
    torch.save(bottleneck.state_dict(), folder / "other.pth")
    with pytest.raises(WeightsError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_network(folder)


def plus_one(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in model.state_dict().items()}


def test_the_file_that_is_named_is_the_one_that_is_read(basic: nn.Module, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "net", basic)
    torch.save(plus_one(basic), folder / "pytorch_model.bin")
    for path, expected in (
        (folder, basic.state_dict()),
        (folder / "model.safetensors", basic.state_dict()),
        (folder / "pytorch_model.bin", plus_one(basic)),
    ):
        network = load_network(path)
        assert torch.equal(network.model.fc.weight, expected["fc.weight"]), path
        assert (network.format, network.image_size) == ("timm", (160, 176))


def test_an_entry_of_a_file_is_read_with_its_config(basic: nn.Module, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "net", basic)
    entries = {"model": basic.state_dict(), "ema": plus_one(basic)}
    torch.save(entries, folder / "pytorch_model.bin")
    network = load_network(f"{folder / 'pytorch_model.bin'}#ema")
    assert torch.equal(network.model.fc.weight, entries["ema"]["fc.weight"])
    assert (network.format, network.image_size) == ("timm", (160, 176))


def test_a_single_pth_is_read_with_the_config_beside_it(basic: nn.Module, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "net", basic)
    torch.save(plus_one(basic), folder / "net.pth")
    assert load_network(folder / "net.pth").format == "torchvision"  # not what config.json is of
    (folder / "model.safetensors").unlink()
    for path in (folder, folder / "net.pth"):
        network = load_network(path)
        assert_constants(network, (127.5, 102, 76.5), (63.75, 51, 127.5))
        assert torch.equal(network.model.fc.weight, plus_one(basic)["fc.weight"])


def test_a_config_that_cannot_be_read_is_not_passed_over(basic: nn.Module, tmp_path: Path) -> None:
    torch.save(basic.state_dict(), tmp_path / "net.pth")
    (tmp_path / "config.json").write_text('{"best_loss": NaN}')
    with pytest.raises(WeightsError, match=r"If it does not belong to net\.pth, move one of them"):
        load_network(tmp_path / "net.pth")


def test_the_former_config_of_timm_is_read(basic: nn.Module, tmp_path: Path) -> None:
    names = [f"kind {number}" for number in range(CLASSES)]
    folder = timm_folder(tmp_path / "net", basic)
    flat = {"architecture": "resnet50", "num_classes": CLASSES, "labels": names, **CFG}
    flat |= {"crop_pct": 0.95, "interpolation": "bicubic", "first_conv": "conv1"}
    (folder / "config.json").write_text(json.dumps({**flat, "classifier": "fc"}))
    network = load_network(folder)
    assert_constants(network, (127.5, 102, 76.5), (63.75, 51, 127.5))
    assert (network.format, network.image_size) == ("timm", (160, 176))
    assert (network.class_names, network.crop_pct) == (tuple(names), 0.95)


def test_timm_has_a_name_for_every_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"timm has no network with \(1, 2, 1, 1\) blocks"):
        export_weights(narrow(stride_in="3x3"), tmp_path / "net", "timm")
