"""Weights of other libraries: each layout written here from its description, read, and exported.

The logits are compared with torchvision's own networks, and with forward passes that follow the
conventions of Keras and Caffe step by step.
"""

import io
import json
import os
import random
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.transforms import v2

from resnetkit.data.normalization import Normalization
from resnetkit.errors import StorageError, UsageError, WeightsError
from resnetkit.inference.predictor import Predictor
from resnetkit.inference.transform import EvalTransform
from resnetkit.models.zoo import Architecture
from resnetkit.resizing import Resize
from resnetkit.weights import export, hdf5
from resnetkit.weights.conventions import fractions, pixels
from resnetkit.weights.export import export_weights
from resnetkit.weights.formats import FORMATS
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
TINY = ((1, 2, 1, 1), (8, 12, 16, 20))  # blocks and widths
CLASSES = 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomized(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Returns values for a state_dict with which activations keep their size."""
    draw = generator(seed)
    found = {}
    for name, tensor in state.items():
        value = torch.empty(tensor.shape, dtype=tensor.dtype)
        if name.endswith("num_batches_tracked"):
            value.fill_(5)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=draw)
        elif value.dim() > 1:
            value.normal_(std=value[0].numel() ** -0.5, generator=draw)
        else:
            value.uniform_(-0.5, 0.7, generator=draw)
        found[name] = value
    return found


def torchvision_twin(block: Any = Bottleneck, classes: int = CLASSES, **options: Any) -> nn.Module:
    """Returns torchvision's own network of one block a stage, with random weights."""
    with torch.device("meta"):
        model = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=classes, **options)
    model.load_state_dict(randomized(model.state_dict()), assign=True)
    return model.eval()


def as_v1(model: nn.Module) -> nn.Module:
    """Returns a network of torchvision that strides in the first 1x1, with the same weights."""
    for stage in (2, 3, 4):
        first = model.get_submodule(f"layer{stage}.0")
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    return model


@pytest.fixture(scope="module")
def bottleneck() -> nn.Module:
    return torchvision_twin()


@pytest.fixture(scope="module")
def basic() -> nn.Module:
    return torchvision_twin(BasicBlock)


def images(size: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=generator(1))


def photos(size: int = 64, count: int = 2) -> Tensor:
    """Returns pixels of 0 to 255, red first."""
    return torch.randint(0, 256, (count, 3, size, size), generator=generator(2)).float()


@torch.inference_mode()
def answers(model: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    return model(pixels)


def assert_answers(network: TrainedNetwork, model: Callable[[Tensor], Tensor]) -> None:
    expected = answers(model, images())
    assert expected.std() > 1e-3
    torch.testing.assert_close(answers(network.model, images()), expected, rtol=1e-5, atol=1e-5)
    assert not network.model.training


def assert_constants(network: TrainedNetwork, mean: Any, std: Any) -> None:
    assert network.normalization.mean.shape == network.normalization.std.shape == (3, 1, 1)
    assert network.normalization.mean.flatten().tolist() == pytest.approx(mean)
    assert network.normalization.std.flatten().tolist() == pytest.approx(std)


# torchvision


CONTAINERS: dict[str, Callable[[Path, dict[str, Tensor]], object]] = {
    "zip": lambda path, state: torch.save(state, path),
    "legacy": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda path, state: safetensors.torch.save_file(state, path),
    "state_dict": lambda path, state: torch.save({"state_dict": state, "epoch": 3}, path),
    "model": lambda path, state: torch.save({"model": state, "epoch": 3}, path),
    "several GPUs": lambda path, state: torch.save(
        {f"module.{name}": tensor for name, tensor in state.items()}, path
    ),
    "no counts": lambda path, state: torch.save(
        {name: tensor for name, tensor in state.items() if "num_batches" not in name}, path
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_torchvision_answers_as_it_did(container: str, basic: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net"
    CONTAINERS[container](path, basic.state_dict())
    network = load_network(path)
    assert_answers(network, basic)
    assert (network.format, network.class_names, network.image_size, network.data) == (
        "torchvision",
        (),
        (224, 224),
        "",
    )
    assert_constants(network, *IMAGENET)


SHAPES: dict[str, dict[str, int]] = {
    "plain": {},
    "grouped": {"groups": 32, "width_per_group": 4},
    "wide": {"width_per_group": 128},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_grouped_and_wide_networks_are_told_by_their_shapes(shape: str, tmp_path: Path) -> None:
    theirs = torchvision_twin(**SHAPES[shape])
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    network = load_network(tmp_path / "net.pth", variant="v1.5")
    assert_answers(network, theirs)
    options = SHAPES[shape]
    assert network.architecture.groups == options.get("groups", 1)
    assert network.architecture.base_width == options.get("width_per_group", 64)


@pytest.mark.parametrize(
    ("name", "entries", "parameters"),
    [("resnet18", 122, 11_689_512), ("resnet50", 320, 25_557_032)],
)
def test_published_networks_are_called_by_their_names(
    name: str, entries: int, parameters: int, tmp_path: Path
) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    theirs.load_state_dict(randomized(theirs.state_dict()), assign=True)
    assert len(theirs.state_dict()) == entries
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "net")
    network = load_network(tmp_path / "net", variant="v1.5")
    assert_answers(network, theirs.eval())
    assert sum(p.numel() for p in network.model.parameters()) == parameters
    assert network.origin.startswith(f"{name} in the layout of torchvision")
    assert network.class_names[:2] == ("tench", "goldfish")
    assert len(network.class_names) == 1000


# v1 and v1.5


def test_a_bare_file_must_be_named(bottleneck: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(bottleneck.state_dict(), path)
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    assert str(caught.value) == (
        f"{path} does not say where its bottleneck blocks stride, and its tensors fit both: v1"
        " strides in the first 1x1 convolution (the paper, Caffe, Keras), v1.5 in the 3x3"
        " (torchvision, timm). The wrong one answers, but badly. Name it: --variant v1 or"
        ' --variant v1.5 (in Python: variant="v1.5").'
    )


def test_the_two_variants_answer_differently(tmp_path: Path) -> None:
    theirs = torchvision_twin()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    v15 = load_network(tmp_path / "net.pth", variant="v1.5")
    v1 = load_network(tmp_path / "net.pth", variant="v1")
    assert_answers(v15, theirs)
    assert_answers(v1, as_v1(theirs))
    assert not torch.allclose(answers(v1.model, images()), answers(v15.model, images()), atol=0.01)
    assert "v1 (stride in the 1x1) as named" in v1.origin


@pytest.mark.parametrize("variant", ["", "v1", "v1.5"])
def test_basic_blocks_know_no_difference(variant: str, basic: nn.Module, tmp_path: Path) -> None:
    torch.save(basic.state_dict(), tmp_path / "net.pth")
    assert_answers(load_network(tmp_path / "net.pth", variant=variant), basic)


def test_what_we_write_as_safetensors_says_its_variant(
    bottleneck: nn.Module, tmp_path: Path
) -> None:
    torch.save(bottleneck.state_dict(), tmp_path / "net.pth")
    network = load_network(tmp_path / "net.pth", variant="v1.5")
    path = tmp_path / "net.safetensors"
    export_weights(network, path, "torchvision")
    assert "v1.5 (stride in the 3x3) as the file says" in load_network(path).origin
    with pytest.raises(WeightsError, match=r"is of the variant v1\.5, not v1: its format says so"):
        load_network(path, variant="v1")
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "resnetkit.variant": "v1.5"}


def test_a_variant_of_another_kind_is_refused(bottleneck: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(bottleneck.state_dict(), path, {"resnetkit.variant": "v3"})
    with pytest.raises(WeightsError, match=r"says that its variant is 'v3': expected v1 or v1\.5"):
        load_network(path)
    with pytest.raises(UsageError, match=r"unknown variant 'v2': expected v1 or v1\.5"):
        load_network(path, variant="v2")


# Every tensor is accounted for


State = dict[str, Tensor]


def set_to(name: str, value: Tensor) -> Callable[[State], object]:
    return lambda state: state.update({name: value})


def dropped(*names: str) -> Callable[[State], object]:
    return lambda state: [state.pop(name) for name in names]


DAMAGE: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (dropped("layer2.0.bn2.running_var"), "lacks 1 tensor(s)"),
    "left over": (set_to("layer2.0.se.fc1.weight", torch.ones(1)), "has no use for 1 tensor(s)"),
    "another shape": (set_to("bn1.weight", torch.ones(3)), "'bn1.weight' has the shape (3,)"),
    "not finite": (set_to("bn1.bias", torch.full((64,), torch.nan)), "no finite numbers"),
    "negative variance": (set_to("bn1.running_var", -torch.ones(64)), "negative variance"),
    "half a head": (dropped("fc.bias"), "another head than one layer with a bias: 'fc.weight'"),
    "a flat head": (set_to("fc.weight", torch.ones(9)), "'fc.weight' has the shape (9,)"),
    "no class": (set_to("fc.weight", torch.ones(0, 512)), "num_classes is 0"),
    "a small stem": (
        set_to("conv1.weight", torch.ones(64, 3, 3, 3)),
        "begins with a 3x3 convolution, and does not say whether pooling follows",
    ),
    "a deep stem": (
        lambda state: state.update({"conv1.0.weight": state.pop("conv1.weight")}),
        "one of timm's networks with a deep stem",
    ),
    "pooling shortcuts": (
        set_to("layer2.0.downsample.2.weight", torch.ones(1)),
        "one of timm's networks with a deep stem or pooling shortcuts",
    ),
    "gray images": (
        set_to("conv1.weight", torch.ones(64, 1, 7, 7)),
        "reads images of 1 channel(s), for which the format has no constants",
    ),
    "a number that claims to be many": (
        set_to("fc.weight", torch.ones(1).expand(10**6, 10**6)),
        "'fc.weight' is not a plain table of numbers",
    ),
    "an unfinished block": (dropped("layer3.0.conv1.weight"), "lacks"),
    "no second stage": (
        lambda state: [state.pop(name) for name in list(state) if name.startswith("layer2.")],
        "has no use for",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_tensor_of_torchvision_is_accounted_for(
    damage: str, basic: nn.Module, tmp_path: Path
) -> None:
    state = dict(basic.state_dict())
    harm, message = DAMAGE[damage]
    harm(state)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError) as caught:
        load_network(tmp_path / "net.pth")
    assert message in str(caught.value)
    assert str(tmp_path / "net.pth") in str(caught.value)


# timm


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
    "a deep stem": ({"architecture": "resnet50d"}, "timm's 'resnet50d', which computes otherwise"),
    "blurred": ({"architecture": "resnetblur50"}, "timm's 'resnetblur50'"),
    "no name": ({"architecture": None}, "timm's 'None'"),
    "another pooling": ({"global_pool": "max"}, "changes the network (global_pool)"),
    "dilated": ({"model_args": {"output_stride": 8}}, "changes the network (output_stride)"),
    "constants that are none": ({"cfg": {**CFG, "std": [0, 1, 1]}}, "config.json is damaged"),
    "constants in words": ({"cfg": {**CFG, "mean": ["a", "b", "c"]}}, "config.json is damaged"),
    "no constants": ({"cfg": {}}, "config.json is damaged"),
    "two constants": ({"cfg": {**CFG, "mean": [0.5, 0.5]}}, "config.json is damaged"),
    "another size": ({"cfg": {**CFG, "input_size": [1, 8, 8]}}, "config.json is damaged"),
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
    with pytest.raises(WeightsError, match=r"says 'resnet34', but .* holds a resnet18"):
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


# Hugging Face transformers


def transformers_name(name: str) -> str:
    """Returns transformers' name of a tensor of torchvision's, as the format describes it."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    parts = name.split(".")
    if parts[0] == "fc":
        return f"classifier.1.{parts[1]}"
    if parts[0] in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{kinds[parts[0][:-1]]}.{parts[1]}"
    block = f"resnet.encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{block}.shortcut.{('convolution', 'normalization')[int(parts[3])]}.{parts[4]}"
    return f"{block}.layer.{int(parts[2][-1]) - 1}.{kinds[parts[2][:-1]]}.{parts[3]}"


def transformers_folder(folder: Path, model: nn.Module, **facts: Any) -> Path:
    folder.mkdir()
    state = {transformers_name(name): tensor for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    bottlenecks = "layer1.0.conv3.weight" in model.state_dict()
    config = {
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048] if bottlenecks else [64, 128, 256, 512],
        "depths": [1, 1, 1, 1],
        "layer_type": "bottleneck" if bottlenecks else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        **facts,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


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
    with pytest.raises(WeightsError, match="its format says so"):
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
    "other blocks": ({"layer_type": "bottleneck"}, "says that layer_type is bottleneck, but"),
    "other depths": ({"depths": [3, 4, 6, 3]}, "says that depths is [3, 4, 6, 3], but"),
    "other widths": ({"hidden_sizes": [1]}, "says that hidden_sizes is [1], but"),
    "depths in words": ({"depths": "three"}, "says that depths is three, but"),
    "too few names": ({"id2label": {"0": "one"}}, "id2label names 1 classes"),
    "names that are numbers": ({"id2label": {"0": 1}}, "are not names"),
    "names without order": ({"id2label": {"a": "one"}}, "config.json is damaged"),
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
    with pytest.raises(WeightsError, match=r"but no config\.json of theirs lies beside it"):
        load_network(folder / "model.safetensors")


# Keras and Caffe: a network of bottlenecks in which every convolution has a bias


def bottleneck_shapes() -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Yields stage, block, number of the convolution (0: projection), sizes and stride."""
    depths, widths = TINY
    inputs = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            yield stage, block, 1, width, inputs, 1, stride
            yield stage, block, 2, width, width, 3, 1
            yield stage, block, 3, 4 * width, width, 1, 1
            if block == 0:
                yield stage, block, 0, 4 * width, inputs, 1, stride
            inputs = 4 * width


def uniform(low: float, high: float, *shape: int, draw: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=draw) * (high - low) + low


Foreign = dict[str, dict[str, Tensor]]


def keras_layers(seed: int = 0) -> Foreign:
    """Returns the tensors of a small keras.applications network, in their names and shapes."""
    draw, layers = generator(seed), {}

    def add(place: str, outputs: int, inputs: int, kernel: int) -> None:
        weight = torch.randn(kernel, kernel, inputs, outputs, generator=draw)
        layers[f"{place}_conv"] = {
            "kernel": weight * (inputs * kernel * kernel) ** -0.5,
            "bias": uniform(-0.3, 0.3, outputs, draw=draw),
        }
        layers[f"{place}_bn"] = {
            "gamma": uniform(0.5, 1.2, outputs, draw=draw),
            "beta": uniform(-0.3, 0.3, outputs, draw=draw),
            "moving_mean": uniform(-0.3, 0.3, outputs, draw=draw),
            "moving_variance": uniform(0.5, 2, outputs, draw=draw) * 1e-4,  # so that eps matters
        }

    add("conv1", TINY[1][0], 3, 7)
    for stage, block, number, outputs, inputs, kernel, _ in bottleneck_shapes():
        add(f"conv{stage + 1}_block{block + 1}_{number}", outputs, inputs, kernel)
    layers["predictions"] = {
        "kernel": torch.randn(4 * TINY[1][-1], CLASSES, generator=draw),
        "bias": uniform(-1, 1, CLASSES, draw=draw),
    }
    return layers


def listed(*names: str) -> Any:
    """Returns names of equal length in bytes, as Keras 2 writes them."""
    return np.array(names, dtype="S")


def write_keras(
    path: Path, layers: Foreign, *, suffix: str = ":0", root: str = "", chunks: int = 1
) -> Path:
    """Writes a file as Keras 2 does; Keras 3 leaves the suffix out and puts all below a group."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        names = listed("input_1", *layers) if suffix else ["input_1", *layers]
        if chunks == 1:
            top.attrs["layer_names"] = names
        for number in range(chunks if chunks > 1 else 0):
            top.attrs[f"layer_names{number}"] = names[number::chunks]
        top.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S1")
        for layer, parts in layers.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = listed(*(f"{layer}/{part}{suffix}" for part in parts))
            for part, tensor in parts.items():
                group[f"{layer}/{part}{suffix}"] = tensor.numpy()
    return path


def keras_forward(layers: Foreign, rgb: Tensor) -> Tensor:
    """Computes what keras.applications computes from pixels of 0 to 255, as it is documented."""

    def convolved(x: Tensor, place: str, stride: int = 1, padding: int = 0) -> Tensor:
        own, norm = layers[f"{place}_conv"], layers[f"{place}_bn"]
        weight = torch.einsum("hwio->oihw", own["kernel"])
        x = functional.conv2d(x, weight, own["bias"], stride, padding)
        x = x - norm["moving_mean"][:, None, None]
        x = x / (norm["moving_variance"] + 1.001e-5).sqrt()[:, None, None]
        return x * norm["gamma"][:, None, None] + norm["beta"][:, None, None]

    bgr = torch.stack([rgb[:, 2] - 103.939, rgb[:, 1] - 116.779, rgb[:, 0] - 123.68], 1)
    x = torch.relu(convolved(functional.pad(bgr, (3, 3, 3, 3)), "conv1", 2))
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, block, number, _, _, _, stride in bottleneck_shapes():
        place = f"conv{stage + 1}_block{block + 1}"
        if number == 1:
            inner = torch.relu(convolved(x, f"{place}_1", stride))
            inner = torch.relu(convolved(inner, f"{place}_2", 1, 1))
            inner = convolved(inner, f"{place}_3")
            around = convolved(x, f"{place}_0", stride) if f"{place}_0_conv" in layers else x
            x = torch.relu(around + inner)
    head = layers["predictions"]
    return x.mean((2, 3)) @ head["kernel"] + head["bias"]


@torch.inference_mode()
def assert_answers_to_photos(
    network: TrainedNetwork, forward: Callable[[Tensor], Tensor], sizes: tuple[int, ...] = (64, 75)
) -> None:
    for size in sizes:
        rgb = photos(size)
        expected = forward(rgb)
        assert expected.std() > 1e-3
        ours = network.model((rgb - network.normalization.mean) / network.normalization.std)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.std()))


WRITERS: dict[str, dict[str, Any]] = {
    "as published": {},
    "as Keras 3 saves models": {"suffix": "", "root": "model_weights"},
    "many names": {"chunks": 3},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_keras_answers_as_it_did(writer: str, tmp_path: Path) -> None:
    layers = keras_layers()
    network = load_network(write_keras(tmp_path / "net", layers, **WRITERS[writer]))
    assert_answers_to_photos(network, lambda rgb: keras_forward(layers, rgb))
    assert_constants(network, (123.68, 116.779, 103.939), (1, 1, 1))
    assert network.architecture.norm_eps == 1.001e-5
    assert network.architecture.stride_in == "1x1"
    assert network.format == "keras"
    for words in ("v1 (stride in the 1x1)", "BGR to RGB", "biases folded"):
        assert words in network.origin


def test_keras_names_of_one_table_are_not_read_over_and_over(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.h5", "w") as file:
        names = [f"layer{number}" for number in range(9)]
        file.attrs["layer_names"] = listed(*names)
        table = file.create_dataset("table", data=np.zeros(100_000, np.float32))
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = listed("kernel:0")
            group["kernel:0"] = table
    with pytest.raises(WeightsError, match="does not hold 'layer1/kernel' whole"):
        load_network(tmp_path / "net.h5")


def test_keras_is_v1(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    assert load_network(path, variant="v1").architecture.stride_in == "1x1"
    with pytest.raises(WeightsError, match=r"is of the variant v1, not v1\.5"):
        load_network(path, variant="v1.5")


def part_set(layer: str, part: str, value: Tensor) -> Callable[[Foreign], object]:
    return lambda layers: layers[layer].update({part: value})


KERAS_DAMAGE: dict[str, tuple[Callable[[Foreign], object], str]] = {
    "a layer is missing": (
        lambda layers: layers.pop("conv3_block2_2_bn"),
        "lacks 'gamma' of the layer 'conv3_block2_2_bn'",
    ),
    "a convolution is missing": (
        lambda layers: layers.pop("conv3_block2_2_conv"),
        "has no use for 1 layer(s) of the network it was recognized as: conv3_block2_2_bn",
    ),
    "a bias is missing": (
        lambda layers: layers["conv1_conv"].pop("bias"),
        "lacks 'bias' of the layer 'conv1_conv'",
    ),
    "a layer is left over": (
        lambda layers: layers.update({"dense": {"kernel": torch.ones(2, 2)}}),
        "has no use for 1 layer(s) of the network it was recognized as: dense",
    ),
    "a part is left over": (
        part_set("conv1_conv", "mask", torch.ones(1)),
        "has 'mask' in the layer 'conv1_conv', for which there is no use",
    ),
    "no head": (lambda layers: layers.pop("predictions"), "of the layer 'predictions'"),
    "a flat kernel": (
        part_set("conv1_conv", "kernel", torch.ones(3)),
        "the kernel of 'conv1_conv' has the shape (3,), expected 4 sizes",
    ),
    "another bias": (part_set("conv1_conv", "bias", torch.ones(3)), "has the shape (3,)"),
    "another shape": (part_set("conv1_bn", "gamma", torch.ones(3)), "'bn1.weight' has the shape"),
    "not finite": (part_set("conv1_bn", "gamma", torch.full((8,), torch.inf)), "no finite"),
    "nothing": (lambda layers: layers.clear(), "holds no weights"),
    "whole numbers": (
        part_set("conv1_conv", "bias", torch.ones(8, dtype=torch.int32)),
        "holds no table of numbers in 'conv1_conv/bias'",
    ),
}


@pytest.mark.parametrize("damage", KERAS_DAMAGE)
def test_every_tensor_of_keras_is_accounted_for(damage: str, tmp_path: Path) -> None:
    layers = keras_layers()
    harm, message = KERAS_DAMAGE[damage]
    harm(layers)
    with pytest.raises(WeightsError) as caught:
        load_network(write_keras(tmp_path / "net.h5", layers))
    assert message in str(caught.value)


def external_link(file: Any, other: Path) -> None:
    del file["conv1_bn"]
    file["conv1_bn"] = h5py.ExternalLink(str(other), "/conv1_bn")


def external_numbers(file: Any, other: Path) -> None:
    del file["conv1_conv/conv1_conv/bias:0"]
    other.write_bytes(bytes(32))
    file.create_dataset("conv1_conv/conv1_conv/bias:0", (8,), "f4", external=[(other, 0, 32)])


def virtual_numbers(file: Any, other: Path) -> None:
    del file["conv1_conv/conv1_conv/bias:0"]
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (8,))
    file.create_virtual_dataset("conv1_conv/conv1_conv/bias:0", layout)


def huge_numbers(file: Any, other: Path) -> None:
    del file["conv1_conv/conv1_conv/bias:0"]
    file.create_dataset("conv1_conv/conv1_conv/bias:0", (2**50,), "f4", chunks=(8,))


def renamed_layers(file: Any, *names: str) -> None:
    del file.attrs["layer_names"]
    file.attrs["layer_names"] = listed(*names)


def itself(file: Any, other: Path) -> None:
    file["conv1_conv/conv1_conv/loop"] = file["conv1_conv"]
    file["conv1_conv"].attrs["weight_names"] = listed("conv1_conv/loop")


TRICKS: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "a link into another file": (external_link, "only points to 'conv1_bn', which lies elsewhere"),
    "numbers in another file": (external_numbers, "does not hold 'conv1_conv/bias' whole"),
    "numbers of another file": (virtual_numbers, "does not hold 'conv1_conv/bias' whole"),
    "numbers that are not there": (huge_numbers, "does not hold 'conv1_conv/bias' whole"),
    "a circle": (itself, "holds no table of numbers in 'conv1_conv/loop'"),
    "no names": (
        lambda file, other: file.attrs.pop("layer_names"),
        "save_weights of Keras 3 writes others. Write it with model.save('NAME.h5')",
    ),
    "a layer that is not there": (
        lambda file, other: renamed_layers(file, "gone"),
        "lacks 'gone'",
    ),
    "a layer named twice": (
        lambda file, other: renamed_layers(file, "conv1_bn", "conv1_bn"),
        "holds 'conv1_bn/gamma' twice",
    ),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_keras_file_that_lies_is_refused(trick: str, tmp_path: Path) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    other = write_keras(tmp_path / "other.h5", keras_layers(1))
    harm, message = TRICKS[trick]
    with h5py.File(path, "a") as file:
        harm(file, other)
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_to_its_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    monkeypatch.setattr(hdf5, "SECONDS", 0.0)
    monkeypatch.setattr(hdf5, "BYTES_PER_SECOND", 1e12)
    with pytest.raises(WeightsError, match="reading it does not come to an end"):
        load_network(path)


def test_without_h5py_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'resnetkit\[keras\]'"):
        load_network(path)


# Caffe, written byte by byte


def number(value: int) -> bytes:
    """A varint: seven bits a byte, the lowest first, the top bit says that more follow."""
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out


def inside(field: int, content: bytes) -> bytes:
    return number(field * 8 + 2) + number(len(content)) + content


def plain(field: int, value: int) -> bytes:
    return number(field * 8) + number(value)


def caffe_blob(tensor: Tensor, style: str = "shape") -> bytes:
    """A BlobProto with its sizes in a shape, or four of them as before 2015."""
    sizes = tuple(tensor.shape)
    values = tensor.flatten().tolist()
    if style == "four":
        sizes = (1,) * (4 - len(sizes)) + sizes
        shape = b"".join(plain(field, size) for field, size in enumerate(sizes, start=1))
    else:
        shape = inside(7, inside(1, b"".join(map(number, sizes))))
    if style == "doubles":
        return shape + inside(8, struct.pack(f"<{len(values)}d", *values))
    return shape + inside(5, struct.pack(f"<{len(values)}f", *values))


Caffe = dict[str, tuple[str, list[Tensor], bytes]]  # type, blobs, parameters


def caffe_layers(*, seed: int = 0, factor: float = 999.98, parameters: bool = True) -> Caffe:
    """Returns the layers of a small network of the authors', in their names and order."""
    draw, layers = generator(seed), {}

    def add(
        names: tuple[str, str, str], outputs: int, inputs: int, kernel: int, stride: int, bias: bool
    ) -> None:
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=draw)
        blobs = [weight * (inputs * kernel * kernel) ** -0.5]
        blobs += [uniform(-0.3, 0.3, outputs, draw=draw)] * bias
        said = plain(1, outputs) + inside(4, number(kernel)) + inside(6, number(stride))
        layers[names[0]] = ("Convolution", blobs, inside(106, said) if parameters else b"")
        sums = [
            uniform(-0.3, 0.3, outputs, draw=draw) * factor,
            uniform(0.5, 2, outputs, draw=draw) * factor,
            torch.tensor([factor]),
        ]
        layers[names[1]] = ("BatchNorm", sums, inside(139, plain(1, 1)) if parameters else b"")
        learned = [uniform(low, low + 0.7, outputs, draw=draw) for low in (0.5, -0.3)]
        layers[names[2]] = ("Scale", learned, b"")

    add(("conv1", "bn_conv1", "scale_conv1"), TINY[1][0], 3, 7, 2, True)
    layers["conv1_relu"] = ("ReLU", [], b"")
    pooling = plain(1, 0) + plain(2, 3) + plain(3, 2)
    layers["pool1"] = ("Pooling", [], inside(121, pooling) if parameters else b"")
    for stage, block, which, outputs, inputs, kernel, stride in bottleneck_shapes():
        place = f"{stage + 1}{'abc'[block]}_branch{('1', '2a', '2b', '2c')[which]}"
        names = (f"res{place}", f"bn{place}", f"scale{place}")
        add(names, outputs, inputs, kernel, stride, False)
    head = [
        torch.randn(CLASSES, 4 * TINY[1][-1], generator=draw) * 0.1,
        uniform(-1, 1, CLASSES, draw=draw),
    ]
    layers["fc1000"] = ("InnerProduct", head, b"")
    layers["prob"] = ("Softmax", [], b"")
    return layers


def caffe_file(layers: Caffe, style: str = "shape", name: bytes = b"ResNet") -> bytes:
    content = inside(1, name) if name else b""
    for layer, (kind, blobs, parameters) in layers.items():
        inner = inside(1, layer.encode()) + inside(2, kind.encode())
        inner += b"".join(inside(7, caffe_blob(blob, style)) for blob in blobs)
        content += inside(100, inner + parameters)
    return content


def write_caffe(path: Path, layers: Caffe, **options: Any) -> Path:
    path.write_bytes(caffe_file(layers, **options))
    return path


def ceil_pooled(x: Tensor) -> Tensor:
    """Max pooling as Caffe does it: windows of 3, two apart, as many as touch the image."""
    height, width = (-(-(side - 3) // 2) + 1 for side in x.shape[2:])
    rows = [
        torch.stack(
            [
                x[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].amax((2, 3))
                for column in range(width)
            ],
            -1,
        )
        for row in range(height)
    ]
    return torch.stack(rows, -2)


def caffe_forward(
    layers: Caffe, rgb: Tensor, *, v15: bool = False, eps: float = 1e-5, mean: Any = None
) -> Tensor:
    """Computes what Caffe computes from pixels of 0 to 255."""

    def layer(x: Tensor, place: str, stride: int, padding: int) -> Tensor:
        names = (f"res{place}", f"bn{place}", f"scale{place}")
        if place == "1":
            names = ("conv1", "bn_conv1", "scale_conv1")
        (weight, *bias), sums, (gamma, beta) = (layers[name][1] for name in names)
        x = functional.conv2d(x, weight, bias[0] if bias else None, stride, padding)
        inverse = 0.0 if float(sums[2]) == 0 else 1 / float(sums[2])
        x = (x - (sums[0] * inverse)[:, None, None]) / torch.sqrt(
            (sums[1] * inverse)[:, None, None] + eps
        )
        return x * gamma[:, None, None] + beta[:, None, None]

    bgr = rgb.flip(1) - (
        torch.tensor([103.939, 116.779, 123.68])[:, None, None] if mean is None else mean
    )
    x = ceil_pooled(torch.relu(layer(bgr, "1", 2, 3)))
    for stage, block, which, _, _, _, stride in bottleneck_shapes():
        place = f"{stage + 1}{'abc'[block]}"
        if which == 1:
            first, second = (1, stride) if v15 else (stride, 1)
            inner = torch.relu(layer(x, f"{place}_branch2a", first, 0))
            inner = torch.relu(layer(inner, f"{place}_branch2b", second, 1))
            inner = layer(inner, f"{place}_branch2c", 1, 0)
            around = layer(x, f"{place}_branch1", stride, 0) if block == 0 else x
            x = torch.relu(around + inner)
    weight, bias = layers["fc1000"][1]
    return functional.linear(x.mean((2, 3)), weight, bias)


@pytest.mark.parametrize("style", ["shape", "four", "doubles"])
@pytest.mark.parametrize("parameters", [True, False])
def test_caffe_answers_as_it_did(style: str, parameters: bool, tmp_path: Path) -> None:
    layers = caffe_layers(parameters=parameters)
    network = load_network(write_caffe(tmp_path / "net", layers, style=style))
    assert_answers_to_photos(network, lambda rgb: caffe_forward(layers, rgb), (64, 75, 70))
    assert_constants(network, (123.68, 116.779, 103.939), (1, 1, 1))
    architecture = network.architecture
    assert (architecture.stride_in, architecture.pooling) == ("1x1", "ceil")
    assert network.format == "caffe"
    for words in ("v1 (stride in the 1x1)", "BGR to RGB", "rounded up", "mean of each channel"):
        assert words in network.origin


def test_pooling_that_is_padded_would_answer_differently(tmp_path: Path) -> None:
    network = load_network(write_caffe(tmp_path / "net", caffe_layers()))
    padded = network.architecture.with_options(pooling="padded").build()
    padded.load_state_dict(network.model.state_dict())
    assert not torch.allclose(answers(padded.eval(), images()), answers(network.model, images()))


def test_a_caffe_file_without_a_name_is_recognized(tmp_path: Path) -> None:
    path = write_caffe(tmp_path / "net", caffe_layers(), name=b"")
    assert load_network(path).format == "caffe"


def test_statistics_that_were_never_gathered_are_zero(tmp_path: Path) -> None:
    """Caffe's rule: a factor of 0 makes mean and variance 0."""
    layers = caffe_layers()
    layers["bn2a_branch2b"][1][2].zero_()
    network = load_network(write_caffe(tmp_path / "net", layers))
    assert network.model.state_dict()["layer1.0.bn2.running_var"].count_nonzero() == 0
    assert_answers_to_photos(network, lambda rgb: caffe_forward(layers, rgb))


def strided_in_3x3(layers: Caffe) -> Caffe:
    for stage in (3, 4, 5):
        for branch, kernel, stride in (("2a", 1, 1), ("2b", 3, 2)):
            name = f"res{stage}a_branch{branch}"
            said = inside(4, number(kernel)) + inside(6, number(stride))
            layers[name] = (*layers[name][:2], inside(106, said))
    return layers


def test_caffe_layers_that_stride_in_the_3x3_are_v15(tmp_path: Path) -> None:
    layers = strided_in_3x3(caffe_layers())
    network = load_network(write_caffe(tmp_path / "net", layers))
    assert network.architecture.stride_in == "3x3"
    assert_answers_to_photos(network, lambda rgb: caffe_forward(layers, rgb, v15=True))
    with pytest.raises(WeightsError, match=r"is of the variant v1\.5, not v1"):
        load_network(tmp_path / "net", variant="v1")


def test_caffe_layers_say_what_they_add_to_variances(tmp_path: Path) -> None:
    layers = caffe_layers()
    eps = number(3 * 8 + 5) + struct.pack("<f", 0.01)
    for name, (kind, blobs, parameters) in layers.items():
        layers[name] = (kind, blobs, inside(139, eps) if kind == "BatchNorm" else parameters)
    network = load_network(write_caffe(tmp_path / "net", layers))
    assert network.architecture.norm_eps == 0.01
    assert_answers_to_photos(network, lambda rgb: caffe_forward(layers, rgb, eps=0.01))
    layers["bn_conv1"] = (*layers["bn_conv1"][:2], inside(139, b""))
    with pytest.raises(WeightsError, match="expected the same everywhere"):
        load_network(write_caffe(tmp_path / "net", layers))


def test_the_mean_image_beside_a_caffe_file_is_subtracted(tmp_path: Path) -> None:
    layers = caffe_layers()
    path = write_caffe(tmp_path / "net.caffemodel", layers)
    mean = uniform(90, 130, 3, 224, 224, draw=generator(5))
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(caffe_blob(mean, "four"))
    network = load_network(path)
    assert network.normalization.mean.shape == (3, 224, 224)
    assert "the mean image of ResNet_mean.binaryproto beside it" in network.origin
    assert_answers_to_photos(network, lambda rgb: caffe_forward(layers, rgb, mean=mean), (224,))
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(caffe_blob(mean[:, 1:], "four"))
    with pytest.raises(WeightsError, match=r"has the shape \(3, 223, 224\), expected"):
        load_network(path)
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(b"\x07")
    with pytest.raises(WeightsError, match=r"ResNet_mean\.binaryproto is damaged"):
        load_network(path)


@pytest.mark.parametrize("depths", [(3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)])
def test_blocks_are_called_as_the_authors_call_them(
    depths: tuple[int, ...], tmp_path: Path
) -> None:
    """In networks of 101 and 152 layers, those of stages 3 and 4 are a, b1, b2, ...."""
    network = narrow(depths=depths, pooling="ceil", mean=(123.68, 116.779, 103.939))
    export_weights(network, tmp_path / "net.caffemodel", "caffe")
    found = set(decoded(tmp_path / "net.caffemodel"))
    for stage, depth in enumerate(depths, start=2):
        numbered = max(depths) > 6 and stage in (3, 4)
        blocks = ["a", *(f"b{n}" for n in range(1, depth))] if numbered else "abcdef"[:depth]
        for block in blocks:
            assert f"res{stage}{block}_branch2c" in found
    assert len([name for name in found if name.startswith("res")]) == 3 * sum(depths) + 4


CAFFE_DAMAGE: dict[str, tuple[Callable[[Caffe], object], str]] = {
    "a layer is missing": (
        lambda layers: layers.pop("scale2a_branch1"),
        "lacks '0' of the layer 'scale2a_branch1'",
    ),
    "a layer is left over": (
        lambda layers: layers.update({"fusion": ("Scale", [torch.ones(2)], b"")}),
        "has no use for 1 layer(s) of the network it was recognized as: fusion",
    ),
    "a blob is left over": (
        lambda layers: layers["scale_conv1"][1].append(torch.ones(1)),
        "has '2' in the layer 'scale_conv1', for which there is no use",
    ),
    "no head": (lambda layers: layers.pop("fc1000"), "has 0 layers named fc...: expected one"),
    "two heads": (
        lambda layers: layers.update({"fc7": layers["fc1000"]}),
        "has 2 layers named fc...: expected one",
    ),
    "two factors": (
        lambda layers: layers["bn_conv1"][1].__setitem__(2, torch.ones(2)),
        "the factor of 'bn_conv1' has 2 values",
    ),
    "another bias": (
        lambda layers: layers["conv1"][1].__setitem__(1, torch.ones(3)),
        "the bias of 'conv1' has the shape (3,), expected (8,)",
    ),
    "a flat kernel": (
        lambda layers: layers["conv1"][1].__setitem__(0, torch.ones(3)),
        "'conv1.weight' has the shape (3,), expected 4 sizes",
    ),
    "not finite": (
        lambda layers: layers["scale_conv1"][1][0].fill_(torch.nan),
        "'bn1.weight' holds values that are no finite numbers",
    ),
    "negative variances": (
        lambda layers: layers["bn_conv1"][1][2].neg_(),
        "'bn1.running_var' holds a negative variance",
    ),
    "other strides": (
        lambda layers: layers.update(
            {"res4a_branch2b": (*layers["res4a_branch2b"][:2], inside(106, plain(6, 2)))}
        ),
        "has blocks with the strides [(2, 1), (2, 2)]",
    ),
    "padded pooling": (
        lambda layers: layers.update(
            {"pool1": ("Pooling", [], inside(121, plain(2, 3) + plain(3, 2) + plain(4, 1)))}
        ),
        "pools otherwise after the first convolution than the authors' networks",
    ),
}


@pytest.mark.parametrize("damage", CAFFE_DAMAGE)
def test_every_blob_of_caffe_is_accounted_for(damage: str, tmp_path: Path) -> None:
    layers = caffe_layers()
    harm, message = CAFFE_DAMAGE[damage]
    harm(layers)
    with pytest.raises(WeightsError) as caught:
        load_network(write_caffe(tmp_path / "net", layers))
    assert message in str(caught.value)


def one_layer(blob: bytes) -> bytes:
    return inside(1, b"net") + inside(100, inside(1, b"conv1") + inside(7, blob))


LIES: dict[str, tuple[bytes, str]] = {
    "a length beyond the end": (b"\x0a" + number(2**62), "longer than what is there"),
    "a number without end": (b"\x0a" + b"\xff" * 12, "does not end"),
    "a number cut off": (b"\x0a\x80", "ends too early"),
    "an unknown kind": (inside(1, b"net") + b"\x0b", "unknown kind 3"),
    "a field without number": (inside(1, b"net") + b"\x02\x00", "the number 0"),
    "no layers": (inside(1, b"net"), "it has no layers"),
    "a number for a layer": (inside(1, b"net") + plain(100, 5), "a number stands where a message"),
    "old layers": (inside(1, b"net") + inside(2, b""), "a Caffe of before 2015"),
    "a name of no text": (inside(1, b"net") + inside(100, inside(1, b"\xff")), "codec"),
    "a layer twice": (inside(1, b"net") + inside(100, b"") * 2, "two layers named ''"),
    "sizes without numbers": (
        one_layer(inside(7, inside(1, number(2**40) * 3))),
        "0 bytes are no table of",
    ),
    "more sizes than numbers": (
        one_layer(inside(7, inside(1, number(2**31))) + inside(5, bytes(8))),
        "8 bytes are no table of (2147483648,)",
    ),
    "no sizes": (one_layer(inside(5, bytes(8))), "8 bytes are no table of (0, 0, 0, 0)"),
    "bytes for a size": (one_layer(inside(1, b"") + inside(5, bytes(4))), "bytes stand where"),
    "numbers for weights": (one_layer(plain(5, 3)), "whole numbers stand where weights"),
    "deep down": (one_layer(inside(7, inside(7, b"") * 3) * 3), "0 bytes are no table of"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_caffe_file_that_lies_is_refused(lie: str, tmp_path: Path) -> None:
    content, message = LIES[lie]
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged or not a file of weights") as caught:
        load_network(tmp_path / "net")
    assert message in str(caught.value)


# Export


def narrow(
    *,
    block: str = "bottleneck",
    depths: tuple[int, ...] = TINY[0],
    mean: tuple[float, ...] = IMAGENET[0],
    std: tuple[float, ...] = (1, 1, 1),
    **options: Any,
) -> TrainedNetwork:
    """Returns a small network that no file held; by default as Keras and Caffe stride and pool."""
    options = {"stride_in": "1x1", "num_classes": CLASSES, **options}
    fixed = {name: options.pop(name) for name in ("stem", "preactivation") if name in options}
    fixed = {"stem": "7x7", "preactivation": False, **fixed}
    widths = options.pop("widths", TINY[1][: len(depths)])
    whole: Any = Architecture(block, depths, widths, input_size=64, **fixed)  # type: ignore[arg-type]
    architecture = whole.with_options(**options)
    model = architecture.build(generator())
    model.load_state_dict(randomized(model.state_dict()))
    return TrainedNetwork(
        model=model.eval(),
        architecture=architecture,
        normalization=Normalization(
            torch.tensor(mean, dtype=torch.float32)[:, None, None],
            torch.tensor(std, dtype=torch.float32)[:, None, None],
        ),
        class_names=(),
        image_size=(32, 32) if fixed["stem"] == "3x3" else (224, 224),
        crop_pct=1.0 if fixed["stem"] == "3x3" else 0.875,
        data="",
        origin="drawn",
    )


CAFFE_MEAN = (123.68, 116.779, 103.939)
HELD: dict[str, tuple[str, dict[str, Any]]] = {
    "torchvision, .pth": ("torchvision", {"stride_in": "3x3", "std": IMAGENET[1]}),
    "torchvision, .safetensors": ("torchvision", {"stride_in": "3x3", "std": IMAGENET[1]}),
    "torchvision, basic": ("torchvision", {"block": "basic", "std": IMAGENET[1]}),
    "torchvision, grouped": (
        "torchvision",
        {"stride_in": "3x3", "std": IMAGENET[1], "groups": 2, "base_width": 32},
    ),
    "timm": (
        "timm",
        {"block": "basic", "depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
    ),
    "transformers, v1": ("transformers", {"std": (3.7, 0.11, 99)}),
    "transformers, v1.5": ("transformers", {"stride_in": "3x3", "mean": (1, 2, 3)}),
    "transformers, basic": ("transformers", {"block": "basic"}),
    "transformers, gray": ("transformers", {"in_channels": 1, "mean": (40,), "std": (9,)}),
    "keras": ("keras", {"mean": CAFFE_MEAN, "norm_eps": 1.001e-5}),
    "caffe": ("caffe", {"mean": CAFFE_MEAN, "pooling": "ceil"}),
    "akamaster, A": (
        "akamaster",
        {
            "block": "basic",
            "stem": "3x3",
            "depths": (3, 3, 3),
            "widths": (16, 32, 64),
            "shortcut": "A",
            "padding": "split",
            "std": IMAGENET[1],
        },
    ),
    "akamaster, B": (
        "akamaster",
        {
            "block": "basic",
            "stem": "3x3",
            "depths": (2, 2, 2),
            "widths": (16, 32, 64),
            "std": IMAGENET[1],
        },
    ),
    "resnetkit": (
        "resnetkit",
        {"preactivation": True, "norm_eps": 0.003, "depths": (1, 1), "pooling": "ceil"},
    ),
}


def place(folder: Path, case: str) -> Path:
    suffix = {"keras": ".h5", "torchvision, .safetensors": ".safetensors"}.get(case, ".pth")
    return folder / f"net{suffix}"


@pytest.mark.parametrize("case", HELD)
def test_there_and_back_is_equal_to_the_bit(case: str, tmp_path: Path) -> None:
    format_name, options = HELD[case]
    network = narrow(**options)
    path = place(tmp_path, case)
    again = export_weights(network, path, format_name)
    assert again.format == format_name
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    counted = format_name not in ("keras", "caffe")
    for name, tensor in network.model.state_dict().items():
        found = again.model.state_dict()[name]
        assert found.dtype == tensor.dtype
        if counted or not name.endswith("num_batches_tracked"):
            assert found.numpy().tobytes() == tensor.numpy().tobytes()
    sizes = images(70)[:, : network.architecture.in_channels]
    assert torch.equal(answers(again.model, sizes), answers(network.model, sizes))
    torch.testing.assert_close(again.normalization.mean, network.normalization.mean)
    torch.testing.assert_close(again.normalization.std, network.normalization.std)
    for option in ("stride_in", "norm_eps", "pooling", "padding", "groups", "base_width"):
        if option != "stride_in" or network.architecture.block == "bottleneck":
            ours, theirs = network.architecture, again.architecture
            if option != "padding" or ours.shortcut == "A":
                assert getattr(ours, option) == getattr(theirs, option)
    twice = export_weights(again, place(tmp_path / "twice", case), format_name)
    assert torch.equal(answers(twice.model, sizes), answers(network.model, sizes))


def test_every_format_goes_there_and_back() -> None:
    assert {format_name for format_name, _ in HELD.values()} == set(FORMATS)


def test_torchvision_loads_what_we_write(bottleneck: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(bottleneck.state_dict(), tmp_path / "theirs")
    network = load_network(tmp_path / "theirs", variant="v1.5")
    export_weights(network, tmp_path / "ours.pth", "torchvision")
    export_weights(network, tmp_path / "ours.safetensors", "torchvision")
    state = torch.load(tmp_path / "ours.pth", weights_only=True)
    for found in (state, safetensors.torch.load_file(tmp_path / "ours.safetensors")):
        twin = torchvision_twin()
        twin.load_state_dict(found, strict=True)
        torch.testing.assert_close(twin.state_dict(), bottleneck.state_dict(), rtol=0, atol=0)


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


def test_keras_finds_its_own_names_order_and_values(tmp_path: Path) -> None:
    layers = keras_layers()
    for parts in layers.values():
        if "gamma" in parts or parts["kernel"].dim() == 4:
            parts.get("bias", torch.zeros(1)).zero_()  # ours have none
    network = load_network(write_keras(tmp_path / "theirs.h5", layers))
    export_weights(network, tmp_path / "ours.h5", "keras")
    with h5py.File(tmp_path / "ours.h5") as file:
        names = list(file.attrs["layer_names"].astype(str))
        assert names[:10] == [
            "conv1_conv",
            "conv1_bn",
            *(f"conv2_block1_{each}" for each in ("1_conv", "1_bn", "2_conv", "2_bn", "0_conv")),
            *(f"conv2_block1_{each}" for each in ("3_conv", "0_bn", "3_bn")),
        ]
        assert set(names) == set(layers)
        for name in names:
            weights = list(file[name].attrs["weight_names"].astype(str))
            assert weights == [f"{name}/{part}:0" for part in layers[name]]
            for weight, expected in zip(weights, layers[name].values(), strict=True):
                assert torch.equal(torch.from_numpy(file[name][weight][()]), expected)


def decoded(path: Path) -> dict[str, list[Tensor]]:
    """Reads the blobs of a Caffe file in the simplest way, trusting it."""

    def read(message: bytes) -> list[tuple[int, Any]]:
        stream, found = io.BytesIO(message), []

        def varint() -> int:
            value = shift = 0
            while True:
                byte = stream.read(1)[0]
                value, shift = value | (byte & 127) << shift, shift + 7
                if byte < 128:
                    return value

        while stream.tell() < len(message):
            key = varint()
            found.append((key >> 3, varint() if key & 7 == 0 else stream.read(varint())))
        return found

    layers = {}
    for field, layer in read(path.read_bytes()):
        if field == 100:
            inner = read(layer)
            blobs = [dict(read(value)) for key, value in inner if key == 7]
            layers[dict(inner)[1].decode()] = [
                torch.frombuffer(bytearray(blob[5]), dtype=torch.float32).reshape(
                    list(dict(read(blob[7]))[1]) if max(dict(read(blob[7]))[1]) < 128 else -1
                )
                for blob in blobs
            ]
    return layers


def test_caffe_finds_its_own_names_and_values(tmp_path: Path) -> None:
    layers = caffe_layers(factor=1.0)
    layers["conv1"][1].pop()  # ours has no bias
    network = load_network(write_caffe(tmp_path / "theirs", layers))
    export_weights(network, tmp_path / "ours.caffemodel", "caffe")
    found = decoded(tmp_path / "ours.caffemodel")
    found["fc1000"] = found.pop(f"fc{CLASSES}")
    expected = {name: blobs for name, (_, blobs, _) in layers.items()}
    assert {name for name, blobs in found.items() if blobs} == {
        name for name, blobs in expected.items() if blobs
    }
    for name, blobs in found.items():
        for one, other in zip(blobs, expected[name], strict=True):
            assert torch.equal(one, other)


def test_akamaster_finds_its_own_names(tmp_path: Path) -> None:
    export_weights(narrow(**HELD["akamaster, B"][1]), tmp_path / "net.th", "akamaster")
    assert (tmp_path / "net.th").read_bytes()[:1] == b"\x80"  # no zip, as theirs
    content = torch.load(tmp_path / "net.th", weights_only=True)
    names = set(content["state_dict"])
    assert all(name.startswith("module.") for name in names)
    expected = {"conv1.weight", "linear.bias", "layer2.0.shortcut.0.weight"}
    assert {f"module.{name}" for name in expected} <= names


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "option A": ("torchvision", {"shortcut": "A"}, "shortcut is A, expected B"),
    "plain": ("transformers", {"shortcut": "none"}, "shortcut is none, expected B"),
    "pre-activated": ("timm", {"preactivation": True}, "preactivation is True, expected False"),
    "small stem": ("transformers", {"stem": "3x3"}, "stem is 3x3, expected 7x7"),
    "v1 in torchvision": ("torchvision", {"stride_in": "1x1"}, "stride_in is 1x1, expected 3x3"),
    "v1 in timm": ("timm", {"stride_in": "1x1"}, "stride_in is 1x1, expected 3x3"),
    "v1.5 in Keras": ("keras", {"stride_in": "3x3"}, "stride_in is 3x3, expected 1x1"),
    "grouped": ("transformers", {"groups": 2}, "groups is 2, expected 1"),
    "other eps": ("keras", {}, "norm_eps is 1e-05, expected 1.001e-05"),
    "other pooling": ("caffe", {}, "pooling is padded, expected ceil"),
    "other constants": ("keras", {}, "expected 123.68, 116.779, 103.939, which the format does"),
    "other deviations": ("torchvision", {}, "with the deviation 1, 1, 1, expected 58.395, 57.12"),
    "three stages": ("keras", {"depths": (1, 1, 1)}, "it has 3 stages, expected 4"),
    "dilated": (
        "transformers",
        {"replace_stride_with_dilation": (False, True, True)},
        "it dilates instead of striding",
    ),
    "zeros appended": (
        "akamaster",
        {**HELD["akamaster, A"][1], "padding": "append"},
        "padding is append, expected split",
    ),
    "without normalization": ("transformers", {"norm": "none"}, "norm is none, expected batch"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_format_cannot_hold_is_not_written(case: str, tmp_path: Path) -> None:
    format_name, options, message = WRONG[case]
    with pytest.raises(WeightsError, match="cannot hold this network") as caught:
        export_weights(narrow(**options), tmp_path / "net.h5", format_name)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mean_of_each_pixel_is_not_written(tmp_path: Path) -> None:
    network = replace(
        narrow(), normalization=Normalization(torch.zeros(3, 224, 224), torch.ones(3, 1, 1))
    )
    with pytest.raises(WeightsError, match="with a mean of each pixel, expected of channels"):
        export_weights(network, tmp_path / "net", "transformers")


def test_other_classes_are_not_taken_for_those_of_imagenet(tmp_path: Path) -> None:
    names = tuple(f"kind {number}" for number in range(1000))
    options = {"stride_in": "3x3", "std": IMAGENET[1], "num_classes": 1000}
    network = replace(narrow(**options), class_names=names)
    with pytest.raises(WeightsError, match="its 1000 classes are not those of ImageNet"):
        export_weights(network, tmp_path / "net.pth", "torchvision")
    assert export_weights(network, tmp_path / "net", "transformers").class_names == names


def test_equally_deep_stages_are_expected_by_akamaster(tmp_path: Path) -> None:
    options = {**HELD["akamaster, A"][1], "depths": (1, 2, 1)}
    with pytest.raises(WeightsError, match=r"equally deep stages: this one has \(1, 2, 1\)"):
        export_weights(narrow(**options), tmp_path / "net.th", "akamaster")


def test_timm_has_a_name_for_every_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"timm has no network with \(1, 2, 1, 1\) blocks"):
        export_weights(narrow(stride_in="3x3"), tmp_path / "net", "timm")


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras", "net"])
def test_keras_would_not_read_other_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"end the name in \.h5, and not in \.weights\.h5"):
        export_weights(narrow(**HELD["keras"][1]), tmp_path / name, "keras")
    assert not list(tmp_path.iterdir())


def test_a_mean_image_in_the_way_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(b"")
    with pytest.raises(WeightsError, match="would be taken for this network's mean"):
        export_weights(narrow(**HELD["caffe"][1]), tmp_path / "net", "caffe")


def test_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.mkdir()
    (path / "precious").touch()
    for format_name in ("resnetkit", "transformers", "caffe"):
        with pytest.raises(StorageError, match="already exists: choose another path"):
            export_weights(narrow(**HELD["caffe"][1]), path, format_name)
    assert [each.name for each in path.iterdir()] == ["precious"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export_weights(narrow(), tmp_path / "net", "torchvison")
    assert str(caught.value) == (
        "unknown format 'torchvison': expected one of resnetkit, keras, caffe, torchvision, timm,"
        " transformers, akamaster. Did you mean 'torchvision'?"
    )


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"cannot write .*: a file with this name already exists"
    ):
        export_weights(narrow(**HELD["caffe"][1]), tmp_path / "file" / "net", "caffe")


@pytest.mark.parametrize("format_name", ["transformers", "caffe"])
@pytest.mark.parametrize("changed", ["a tensor", "the constants", "the network"])
def test_what_reads_differently_does_not_stay(
    format_name: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check after writing can fail: one bit of one tensor is enough."""

    def careless(path: Path, **options: Any) -> TrainedNetwork:
        again = load_network(path, **options)
        if changed == "a tensor":
            bits = again.model.state_dict()["layer2.0.bn2.bias"].view(torch.int32)
            bits[3] ^= 1
        if changed == "the constants":
            return replace(
                again,
                normalization=replace(again.normalization, std=again.normalization.std * 1.01),
            )
        if changed == "the network":
            other = again.architecture.with_options(stride_in="3x3").build()
            other.load_state_dict(again.model.state_dict())
            return replace(again, model=other.eval())
        return again

    monkeypatch.setattr(export, "load_network", careless)
    message = {
        "a tensor": r"layer2\.0\.bn2\.bias",
        "the constants": "the mean or deviation of images",
        "the network": "the logits",
    }[changed]
    with pytest.raises(WeightsError, match=f"gave something else: .*{message}"):
        export_weights(
            narrow(**HELD["caffe" if format_name == "caffe" else "transformers, v1"][1]),
            tmp_path / "net",
            format_name,
        )
    assert not list(tmp_path.iterdir())


def test_foreign_weights_become_our_own_with_all_that_is_known(tmp_path: Path) -> None:
    network = load_network(write_caffe(tmp_path / "net", caffe_layers()))
    again = export_weights(network, tmp_path / "model", "resnetkit")
    assert again.origin == network.origin
    assert again.architecture == network.architecture
    assert torch.equal(again.normalization.mean, network.normalization.mean)
    with pytest.raises(WeightsError, match="its format says so"):
        load_network(tmp_path / "model", variant="v1.5")


def test_the_shortest_fractions_give_the_same_constants() -> None:
    for fraction in (0.485, 0.229, 0.1, 1 / 3, 2e-7, 0.999999):
        constants = pixels((fraction,))
        assert torch.equal(pixels(tuple(fractions(constants))), constants)
    assert fractions(pixels((0.485, 0.229))) == [0.485, 0.229]
    every = torch.rand(3000, generator=generator()) * 255
    assert torch.equal(pixels(tuple(fractions(every[:, None, None]))).flatten(), every)


def test_conventions_hold_the_published_constants() -> None:
    constants = {
        name: entry.convention.normalization
        for name, entry in FORMATS.items()
        if entry.convention is not None
    }
    assert [name for name in constants if constants[name] is None] == ["timm", "transformers"]
    for name in ("keras", "caffe"):
        normalization = constants[name]
        assert normalization is not None
        assert normalization.mean.flatten().tolist() == pytest.approx([123.68, 116.779, 103.939])


# Files that are none


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("where", ["torchvision", "transformers"])
def test_code_in_a_file_never_runs(
    where: str, legacy: bool, basic: nn.Module, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "net.pth"
    state: dict[str, Any] = dict(basic.state_dict())
    if where == "transformers":
        path = transformers_folder(tmp_path / "net", basic) / "pytorch_model.bin"
        state = {transformers_name(name): tensor for name, tensor in state.items()}
        path.with_name("model.safetensors").unlink()
    content = {**state, "x": Malicious(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="Nothing in it was executed"):
        load_network(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # the file is a trap indeed


def mutated(whole: bytes, draw: random.Random) -> bytes:
    """Returns a file with some bytes changed, most of them where files describe themselves."""
    content = bytearray(whole)
    for _ in range(draw.choice([1, 2, 8, 40])):
        area = draw.choice([64, 2000, len(content)])
        content[draw.randrange(min(area, len(content)))] = draw.choice([0, 1, 127, 128, 255])
    if draw.random() < 0.25:
        del content[draw.randrange(len(content)) :]
    return bytes(content)


def tiny_safetensors() -> bytes:
    network = narrow(stride_in="3x3", std=IMAGENET[1])
    return safetensors.torch.save(
        network.model.state_dict(), {"format": "pt", "resnetkit.variant": "v1.5"}
    )


def tiny_keras() -> bytes:
    stream = io.BytesIO()
    write_keras(stream, keras_layers())  # type: ignore[arg-type]
    return stream.getvalue()


def tiny_torch(*, legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(
        narrow(block="basic", std=IMAGENET[1]).model.state_dict(),
        stream,
        _use_new_zipfile_serialization=not legacy,
    )
    return stream.getvalue()


def test_the_length_of_a_header_may_look_like_anything(basic: nn.Module, tmp_path: Path) -> None:
    """A Caffe file may begin with the byte 10, and so may a safetensors file."""
    whole = safetensors.torch.save(dict(basic.state_dict()))
    length = int.from_bytes(whole[:8], "little")
    for first in (10, 18):
        padding = (first - length) % 256
        header = (length + padding).to_bytes(8, "little")
        content = header + whole[8 : 8 + length] + b" " * padding + whole[8 + length :]
        assert content[0] == first
        (tmp_path / "net").write_bytes(content)
        assert_answers(load_network(tmp_path / "net"), basic)


HOSTILE: dict[str, tuple[Callable[[], bytes], int]] = {
    "safetensors": (tiny_safetensors, 150),
    "caffe": (lambda: caffe_file(caffe_layers()), 150),
    "torch": (lambda: tiny_torch(legacy=False), 150),
    "torch, legacy": (lambda: tiny_torch(legacy=True), 300),
    "keras": (tiny_keras, 12),  # each in a process of its own
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_only_ever_give_our_error(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "SECONDS", 3.0)
    build, count = HOSTILE[kind]
    whole, draw = build(), random.Random(kind)
    path, refused = tmp_path / "net", 0
    path.write_bytes(whole)
    load_network(path)
    for _ in range(count):
        path.write_bytes(mutated(whole, draw))
        try:
            load_network(path)
        except WeightsError:
            refused += 1
    assert refused > count // 3  # changed weights alone are not noticed


def test_no_module_of_the_folder_one_is_in_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    (tmp_path / "h5py.py").write_text("open('trap', 'w').close()")
    (tmp_path / "numpy.py").write_text("open('trap', 'w').close()")
    monkeypatch.chdir(tmp_path)
    assert load_network(path).format == "keras"
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    whole = HOSTILE[kind][0]()
    for length in (0, 1, 9, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net").write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            load_network(tmp_path / "net")


VIEWS = {
    "as ever": ((224, 224), 0.875, Resize()),
    "small": ((64, 64), 0.875, Resize()),
    "rounded up": ((64, 64), 0.9, Resize()),  # 64 / 0.9 = 71.1
    "rounded down": ((160, 160), 0.95, Resize("bicubic", "center", "floor")),
    "squashed": ((96, 96), 1.0, Resize("bicubic", "squash", "floor")),
    "squashed and cut": ((96, 96), 0.9, Resize("bilinear", "squash", "floor")),
    "large": ((384, 384), 0.95, Resize("lanczos")),
    "oblong": ((96, 64), 0.875, Resize()),
}
HOLD_ALL = {"resnetkit": set(VIEWS), "timm": set(VIEWS)}
HOLD_ALL["transformers"] = set(VIEWS) - {"oblong", "rounded up"}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("form", ["resnetkit", "timm", "transformers", "torchvision"])
def test_how_images_are_shown_is_written_or_refused(form: str, view: str, tmp_path: Path) -> None:
    """What a reader would show otherwise is not written."""
    size, crop_pct, resize = VIEWS[view]
    options = HELD["timm"][1] if form == "timm" else {"block": "basic"}  # timm's have names
    network = replace(
        narrow(**options, std=IMAGENET[1]), image_size=size, crop_pct=crop_pct, resize=resize
    )
    if view in HOLD_ALL.get(form, {"as ever"}):
        again = export_weights(network, tmp_path / "net", form)
        assert again.image_size == size
        assert again.resize.side(max(size), again.crop_pct) == resize.side(max(size), crop_pct)
        assert (again.resize.interpolation, again.resize.mode) == (
            *(resize.interpolation, resize.mode),
        )
    else:
        with pytest.raises(
            WeightsError, match=r"does not write that down|no processor|begins at 4, .* at 3"
        ):
            export_weights(network, tmp_path / "net", form)
        assert not (tmp_path / "net").exists()


def test_a_network_that_was_asked_before_is_written_too(tmp_path: Path) -> None:
    network = narrow(**HELD["transformers, basic"][1])
    list(Predictor(network, device="cpu").features(Image.new("RGB", (250, 250))))
    again = export_weights(network, tmp_path / "net", "transformers")
    assert torch.equal(answers(again.model, images()), answers(network.model, images()))


PROCESSORS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "ConvNext": ({"size": {"shortest_edge": 224}}, ((224, 224), 256, "bilinear", "center")),
    "a crop": ({"size": 224, "crop_pct": 0.95}, ((224, 224), 235, "bilinear", "center")),
    "large": ({"size": {"shortest_edge": 384}}, ((384, 384), 384, "bilinear", "squash")),
    "ViT": (
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
        ((224, 224), 224, "bilinear", "squash"),
    ),
    "cut out": (
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 256},
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
        },
        ((224, 224), 256, "bilinear", "center"),
    ),
    "bicubic": ({"size": 224, "resample": 3}, ((224, 224), 256, "bicubic", "center")),
    "the default size": ({"size": "left out"}, ((384, 384), 384, "bilinear", "squash")),
    "the default crop": (
        {"image_processor_type": "CLIPImageProcessor", "size": 225},
        ((224, 224), 225, "bilinear", "center"),
    ),
    "squashed and cut": (
        {"image_processor_type": "BitImageProcessor", "size": [256, 256]},
        ((224, 224), 256, "bilinear", "squash"),
    ),
    "an older name": (
        {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"},
        ((224, 224), 224, "bilinear", "squash"),
    ),
    "no name": ({"image_processor_type": None}, ((224, 224), 256, "bilinear", "center")),
    "no more cut off": (
        {"do_center_crop": True, "crop_size": 224},
        ((224, 224), 256, "bilinear", "center"),
    ),
}


@pytest.fixture(scope="module")
def folder_of_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("theirs") / "net"
    export_weights(narrow(**HELD["transformers, basic"][1]), path, "transformers")
    return path


def processed(folder: Path, out: Path, **facts: Any) -> TrainedNetwork:
    """Loads a copy of a network with another preprocessor_config.json."""
    shutil.copytree(folder, out)
    base = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "resample": 2, "size": 224}
    kind = {"image_processor_type": "ConvNextImageProcessor"}
    whole = {key: value for key, value in {**base, **kind, **facts}.items() if value != "left out"}
    (out / "preprocessor_config.json").write_text(json.dumps(whole))
    return load_network(out)


@pytest.mark.parametrize("case", PROCESSORS)
def test_images_are_shown_as_their_processor_shows_them(
    case: str, folder_of_transformers: Path, tmp_path: Path
) -> None:
    facts, (size, side, interpolation, mode) = PROCESSORS[case]
    network = processed(folder_of_transformers, tmp_path / "net", **facts)
    assert network.image_size == size
    assert network.resize.side(size[0], network.crop_pct) == side
    assert (network.resize.interpolation, network.resize.mode) == (interpolation, mode)
    assert_pixels(network, side)


def assert_pixels(network: TrainedNetwork, side: int) -> None:
    """Compares with torchvision's transforms of the whole image, though it is a large JPEG."""
    size, resize = network.image_size[0], network.resize
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((1800, 1161)).save(stream, "JPEG")
    filter_ = v2.InterpolationMode(resize.interpolation)
    wanted = side if resize.mode == "center" else (side, side)
    whole = v2.functional.pil_to_tensor(v2.Resize(wanted, filter_)(Image.open(stream)))
    upper, left = ((extent - size) // 2 for extent in whole.shape[1:])  # rounded down
    theirs = whole[:, upper : upper + size, left : left + size]
    assert torch.equal(EvalTransform.of(network).pixels(stream.getvalue()), theirs)


@pytest.mark.parametrize(
    ("facts", "mean", "std"),
    [
        ({}, 0.5 * 255, 0.2 * 255),
        ({"do_normalize": False}, 0.0, 255.0),
        ({"do_rescale": False}, 0.5, 0.2),
        ({"rescale_factor": 1 / 127.5}, 0.5 * 127.5, 0.2 * 127.5),
        ({"image_mean": 0.4, "image_std": 0.3}, 0.4 * 255, 0.3 * 255),
        ({"image_mean": "left out"}, 0.5 * 255, 0.2 * 255),
        (
            {"image_processor_type": "CLIPImageProcessor", "image_mean": "left out"},
            0.48145466 * 255,
            0.2 * 255,
        ),
    ],
)
def test_values_are_scaled_as_their_processor_scales_them(
    facts: dict[str, Any], mean: float, std: float, folder_of_transformers: Path, tmp_path: Path
) -> None:
    network = processed(folder_of_transformers, tmp_path / "net", **facts)
    assert network.normalization.mean[0].item() == pytest.approx(mean)
    assert network.normalization.std[0].item() == pytest.approx(std)


UNDONE: dict[str, tuple[dict[str, Any], str]] = {
    "no resizing": ({"do_resize": False}, "has no do_resize: images of any size"),
    "null for no": ({"do_resize": None}, "has no do_resize: images of any size"),
    "blue first": ({"do_flip_channel_order": True}, "blue would come first"),
    "borders": ({"do_pad": True}, "borders would be added"),
    "a word for no": ({"do_normalize": "false"}, "do_normalize is 'false', expected true or false"),
    "no filter": ({"resample": 9}, "resample is 9, no filter of Pillow"),
    "an unnamed filter": ({"resample": "left out"}, "does not say 'resample'"),
    "no factor": ({"rescale_factor": 0}, "rescale_factor is 0"),
    "vast": ({"size": {"shortest_edge": 10**6}}, "are not sizes or counts"),
    "a longest edge": ({"size": {"longest_edge": 224}}, "has a size of longest_edge"),
    "both sides": ({"size": {"height": 96, "width": 96}}, "ConvNextImageProcessor fails"),
    "cut again": ({"do_center_crop": True, "crop_size": 100}, "some versions of transformers only"),
    "cut out of less": (
        {"image_processor_type": "BitImageProcessor", "size": 100, "crop_size": 224},
        "cuts 224 pixels out of 100",
    ),
    "oblong": (
        {"image_processor_type": "BitImageProcessor", "crop_size": {"height": 96, "width": 64}},
        "cuts 96x64 pixels out, which are no square",
    ),
    "of many sizes": (
        {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
        "has no do_center_crop, so that the sizes of images differ",
    ),
    "of other sizes": (
        {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 96}},
        "so that sizes differ",
    ),
    "another class": (
        {"image_processor_type": "EfficientNetImageProcessor"},
        "is of 'EfficientNetImageProcessor', which resnetkit does not know",
    ),
    "a mean in words": ({"image_mean": ["a", "b", "c"]}, "are not a mean or a deviation"),
}


@pytest.mark.parametrize("case", UNDONE)
def test_what_is_not_done_to_images_is_refused(
    case: str, folder_of_transformers: Path, tmp_path: Path
) -> None:
    facts, message = UNDONE[case]
    with pytest.raises(WeightsError) as caught:
        processed(folder_of_transformers, tmp_path / "net", **facts)
    assert message in str(caught.value)
    assert str(tmp_path / "net" / "preprocessor_config.json") in str(caught.value)
