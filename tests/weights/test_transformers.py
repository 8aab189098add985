"""Folders of Hugging Face transformers: names, classes, and configurations of other networks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from helpers.weights import (
    CLASSES,
    IMAGENET,
    State,
    as_v1,
    assert_answers,
    assert_constants,
    dropped,
    narrow,
    set_to,
    torchvision_twin,
    transformers_folder,
)
from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network


@pytest.mark.parametrize("v1", [False, True])
def test_transformers_answers_as_its_configuration_says(v1: bool, tmp_path: Path) -> None:
    theirs = torchvision_twin()
    folder = transformers_folder(tmp_path / "net", theirs, downsample_in_bottleneck=v1)
    network = load_network(folder)
    assert_answers(network, as_v1(theirs) if v1 else theirs)
    assert_constants(network, *IMAGENET)
    assert f"{'v1' if v1 else 'v1.5'} (stride in the" in network.origin
    assert load_network(folder / "model.safetensors", variant="v1" if v1 else "v1.5").origin == (
        network.origin
    )
    with pytest.raises(WeightsError, match="by its format"):
        load_network(folder, variant="v1.5" if v1 else "v1")


def test_transformers_names_classes_and_constants(basic: nn.Module, tmp_path: Path) -> None:
    labels = {str(number): f"kind {number}" for number in range(CLASSES)}
    folder = transformers_folder(tmp_path / "net", basic, id2label=labels)
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "x.bin")
    (folder / "model.safetensors").unlink()
    (folder / "x.bin").rename(folder / "pytorch_model.bin")
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.2, 0.5], "size": 192}
    processor["resample"] = 3
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    network = load_network(folder)
    assert_answers(network, basic)
    assert_constants(network, (127.5, 102, 76.5), (63.75, 51, 127.5))
    assert network.class_names == tuple(labels.values())
    assert network.image_size == (192, 192)


def test_transformers_without_a_processor_are_shown_as_imagenet(
    basic: nn.Module, tmp_path: Path
) -> None:
    network = load_network(transformers_folder(tmp_path / "net", basic))
    assert (network.image_size, network.crop_pct) == ((224, 224), 0.875)
    assert "since there is no preprocessor_config.json" in network.origin
    (tmp_path / "net" / "preprocessor_config.json").symlink_to(tmp_path / "gone")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json cannot be read: No such"):
        load_network(tmp_path / "net")


def test_gray_images_without_a_processor_are_refused(tmp_path: Path) -> None:
    gray = narrow(block="basic", in_channels=1, mean=(40,), std=(9,))
    export_weights(gray, tmp_path / "net", "transformers")
    (tmp_path / "net" / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="are for 3 channels, not 1: add the file, with the"):
        load_network(tmp_path / "net")


def test_the_file_of_transformers_that_is_named_is_read(basic: nn.Module, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "net", basic)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save(other, folder / "pytorch_model.bin")
    network = load_network(folder / "pytorch_model.bin")
    assert torch.equal(network.model.fc.weight, other["classifier.1.weight"])
    assert network.format == "transformers"


def test_transformers_without_a_head_leave_a_prefix_out(basic: nn.Module, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "net", basic, id2label={"0": "a", "1": "b"})
    state = safetensors.torch.load_file(folder / "model.safetensors")
    backbone = {
        name.removeprefix("resnet."): tensor
        for name, tensor in state.items()
        if name.startswith("resnet.")
    }
    safetensors.torch.save_file(backbone, folder / "model.safetensors")
    network = load_network(folder)
    assert (network.has_head, network.class_names) == (False, ())
    assert network.origin.endswith("(without a head)")
    for name, tensor in basic.state_dict().items():
        assert name.startswith("fc.") or torch.equal(network.model.state_dict()[name], tensor)


REFUSED_BY_TRANSFORMERS: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model_type": "vit"}, "has model_type 'vit': resnetkit reads networks with"),
    "another activation": ({"hidden_act": "gelu"}, "has hidden_act 'gelu'"),
    "another stride": ({"downsample_in_first_stage": True}, "has downsample_in_first_stage True"),
    "a variant in words": ({"downsample_in_bottleneck": "no"}, "has downsample_in_bottleneck 'no'"),
    "other blocks": ({"layer_type": "bottleneck"}, "states layer_type bottleneck, but"),
    "other depths": ({"depths": [3, 4, 6, 3]}, "states depths [3, 4, 6, 3], but"),
    "other widths": ({"hidden_sizes": [1]}, "states hidden_sizes [1], but"),
    "depths in words": ({"depths": "three"}, "states depths three, but"),
    "too few names": ({"id2label": {"0": "one"}}, "id2label names 1 classes"),
    "names that are numbers": ({"id2label": {"0": 1}}, "are not names"),
    "names without order": ({"id2label": {"a": "one"}}, "config.json is corrupt"),
    "a gap": ({"id2label": {"0": "a", "2": "c"}}, "names 2 classes, but not the class 1"),
}


@pytest.mark.parametrize("case", REFUSED_BY_TRANSFORMERS)
def test_a_configuration_of_another_network_is_refused(
    case: str, basic: nn.Module, tmp_path: Path
) -> None:
    facts, message = REFUSED_BY_TRANSFORMERS[case]
    with pytest.raises(WeightsError) as caught:
        load_network(transformers_folder(tmp_path / "net", basic, **facts))
    assert message in str(caught.value)


def rewritten(folder: Path, change: Callable[[State], object]) -> Path:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path)
    return folder


TRANSFORMERS_DAMAGE: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (dropped("resnet.embedder.embedder.normalization.bias"), "lacks 1 tensor(s)"),
    "left over": (set_to("resnet.extra", torch.ones(1)), "has no use for 1 tensor(s)"),
    "in our names too": (set_to("fc.bias", torch.ones(CLASSES)), "has no use for"),
    "half a head": (dropped("classifier.1.bias"), "has another head than one layer: fc.weight"),
}


@pytest.mark.parametrize("damage", TRANSFORMERS_DAMAGE)
def test_every_tensor_of_transformers_is_accounted_for(
    damage: str, basic: nn.Module, tmp_path: Path
) -> None:
    harm, message = TRANSFORMERS_DAMAGE[damage]
    with pytest.raises(WeightsError) as caught:
        load_network(rewritten(transformers_folder(tmp_path / "net", basic), harm))
    assert message in str(caught.value)


def test_tensors_of_transformers_alone_are_not_enough(basic: nn.Module, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "net", basic)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"but their config\.json is not next to it"):
        load_network(folder / "model.safetensors")


def test_transformers_finds_its_own_names_and_facts(bottleneck: nn.Module, tmp_path: Path) -> None:
    written = transformers_folder(tmp_path / "theirs", bottleneck, downsample_in_bottleneck=True)
    export_weights(load_network(written), tmp_path / "ours", "transformers")
    theirs, ours = (
        safetensors.torch.load_file(folder / "model.safetensors")
        for folder in (written, tmp_path / "ours")
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    facts = json.loads((tmp_path / "ours" / "config.json").read_text())
    expected = json.loads((written / "config.json").read_text())
    assert {name: facts[name] for name in expected} == expected
    processor = json.loads((tmp_path / "ours" / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.485, 0.456, 0.406]
    assert processor["image_std"] == [0.229, 0.224, 0.225]


def test_a_mean_of_each_pixel_is_not_written(tmp_path: Path) -> None:
    network = replace(
        narrow(), normalization=Normalization(torch.zeros(3, 224, 224), torch.ones(3, 1, 1))
    )
    with pytest.raises(WeightsError, match="with a mean of each pixel, expected of each channel"):
        export_weights(network, tmp_path / "net", "transformers")
