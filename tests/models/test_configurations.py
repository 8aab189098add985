"""What a configuration of timm or transformers claims, compared with the weights and bounded."""

import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from resnetkit.errors import WeightsError
from resnetkit.models.zoo import ARCHITECTURES, Architecture, cifar
from resnetkit.weights.conventions import CIFAR10_CLASSES
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

NAMES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of transformers with a small network that names its classes."""
    folder = tmp_path_factory.mktemp("weights") / "transformers"
    layers = Architecture("basic", (1, 1, 1, 1), (16, 16, 32, 32), "7x7", 224, False)
    model = layers.with_options(num_classes=len(NAMES)).build(torch.Generator())
    torch.save(model.state_dict(), folder.with_name("net.pth"))
    network = replace(load_network(folder.with_name("net.pth")), class_names=NAMES, crop_pct=1.0)
    export_weights(replace(network, image_size=(64, 64)), folder, "transformers")
    return folder


@pytest.fixture
def folder(transformers: Path, tmp_path: Path) -> Path:
    """Returns a copy of a folder of transformers."""
    return Path(shutil.copytree(transformers, tmp_path / "net"))


def change(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"num_labels": 3}, "num_labels is 3, id2label names 5"),
        ({"label2id": {"ant": 1, "bee": 0}}, "id2label and label2id disagree on the class 1"),
        ({"label2id": {"ant": 9}}, "disagree on the class 9"),
        ({"label2id": {"ant": -5}}, "disagree on the class -5"),
        ({"label2id": ["ant"]}, "holds an impossible value"),
        ({"id2label": dict(enumerate(["\ud800", *NAMES[1:]]))}, "a name is not valid Unicode"),
    ],
    ids=str,
)
def test_labels_that_contradict_each_other_are_refused(
    facts: dict[str, Any], message: str, folder: Path
) -> None:
    assert load_network(folder).class_names == NAMES
    change(folder / "config.json", **facts)
    with pytest.raises(WeightsError, match=message):
        load_network(folder)


def test_two_classes_of_one_name_contradict_nothing(folder: Path) -> None:
    """As in the configurations of ImageNet's networks, whose cranes are a bird and a machine."""
    names = ["ant", "crane", "cat", "crane", "elk"]
    numbers = {name: number for number, name in enumerate(names)}
    change(folder / "config.json", id2label=dict(enumerate(names)), label2id=numbers)
    assert load_network(folder).class_names == tuple(names)


@pytest.mark.parametrize(
    "facts",
    [
        {"image_mean": [1e30, 0.5, 0.5]},
        {"image_mean": [True, 0.5, 0.5]},
        {"image_std": [1e-40, 0.2, 0.2]},
        {"image_std": [1e30, 0.2, 0.2]},
        {"resample": True},
    ],
    ids=str,
)
def test_values_that_no_images_have_are_refused(facts: dict[str, Any], folder: Path) -> None:
    change(folder / "preprocessor_config.json", **facts)
    with pytest.raises(WeightsError, match="holds an impossible value"):
        load_network(folder)


def test_a_device_or_a_pipe_in_place_of_a_processor_is_not_taken_for_none(folder: Path) -> None:
    processor = folder / "preprocessor_config.json"
    processor.unlink()
    processor.symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json cannot be read"):
        load_network(folder)
    processor.unlink()
    os.mkfifo(processor)
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json cannot be read"):
        load_network(folder)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of timm, whose configurations are of whole networks only."""
    folder, layers = tmp_path_factory.mktemp("weights") / "timm", ARCHITECTURES["resnet18"]
    path = folder.with_name("net.pth")
    torch.save(layers.with_options(num_classes=5).build(torch.Generator()).state_dict(), path)
    export_weights(load_network(path), folder, "timm")
    return folder


@pytest.fixture
def timm(resnet18: Path, tmp_path: Path) -> Path:
    """Returns a copy of a folder of timm."""
    return Path(shutil.copytree(resnet18, tmp_path / "net"))


def test_weights_are_not_read_without_their_dead_configuration(timm: Path) -> None:
    """timm's tensors alone would be read as torchvision's, with other constants."""
    assert load_network(timm / "model.safetensors").format == "timm"
    (timm / "config.json").unlink()
    (timm / "config.json").symlink_to("nowhere")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        load_network(timm / "model.safetensors")


def test_a_crop_of_nothing_is_not_taken_for_the_default(timm: Path) -> None:
    facts = json.loads((timm / "config.json").read_text())
    change(timm / "config.json", pretrained_cfg={**facts["pretrained_cfg"], "crop_pct": 0})
    with pytest.raises(WeightsError, match="0 is not a fraction of the side"):
        load_network(timm)


def test_a_header_of_very_many_tensors_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        raise AssertionError("the header was parsed")

    monkeypatch.setattr(safetensors.torch, "load", refuse)
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % number for number in range(100_001)) + "}").encode()
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match="it lists more than 100,000 tensors"):
        load_network(tmp_path / "net.safetensors")


def cifar_network(classes: int, folder: Path) -> TrainedNetwork:
    """Returns a network as it comes from a file of akamaster's."""
    layers = cifar(20, shortcut="A", padding="split", num_classes=classes)
    tensors = {
        name.replace("fc.", "linear."): tensor
        for name, tensor in layers.build(torch.Generator()).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": tensors}, folder / "from.th")
    return load_network(folder / "from.th")


def test_other_classes_are_not_taken_for_those_of_cifar10(tmp_path: Path) -> None:
    animals = cifar_network(10, tmp_path)
    assert animals.class_names[5] == "dog"
    for names in (tuple("0123456789"), ()):
        with pytest.raises(WeightsError, match="its 10 classes are not those of CIFAR-10"):
            export_weights(replace(animals, class_names=names), tmp_path / "to.th", "akamaster")
        assert not (tmp_path / "to.th").exists()
    assert export_weights(animals, tmp_path / "to.th", "akamaster").class_names == CIFAR10_CLASSES


@pytest.mark.parametrize("classes", [7, 100])
def test_other_numbers_of_classes_have_no_names(classes: int, tmp_path: Path) -> None:
    again = export_weights(cifar_network(classes, tmp_path), tmp_path / "to.th", "akamaster")
    assert again.class_names == ()
