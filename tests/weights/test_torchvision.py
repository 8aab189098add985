"""Weights of torchvision: every container, v1 and v1.5, and networks that must be refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from helpers.weights import (
    IMAGENET,
    State,
    answers,
    as_v1,
    assert_answers,
    assert_constants,
    dropped,
    images,
    randomized,
    set_to,
    torchvision_twin,
)
from resnetkit.errors import UsageError, WeightsError
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network

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
    "grouped": {"groups": 2, "width_per_group": 32},
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
    [
        ("resnet18", 122, 11_689_512),
        pytest.param("resnet50", 320, 25_557_032, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 320, 25_028_904, marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", 320, 68_883_240, marks=pytest.mark.slow),
    ],
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


def test_a_bare_file_must_be_named(bottleneck: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(bottleneck.state_dict(), path)
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    assert str(caught.value) == (
        f"{path} does not state where its bottleneck blocks stride, and its tensors fit both: v1"
        " strides in the first 1x1 convolution (the paper, Caffe, Keras), v1.5 in the 3x3"
        " (torchvision, timm). The wrong one computes, but badly. Choose: --variant v1 or"
        ' --variant v1.5 (in Python: variant="v1.5").'
    )


def test_the_two_variants_answer_differently(tmp_path: Path) -> None:
    theirs = torchvision_twin()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    v15 = load_network(tmp_path / "net.pth", variant="v1.5")
    v1 = load_network(tmp_path / "net.pth", variant="v1")
    assert_answers(v15, theirs)
    assert_answers(v1, as_v1(theirs))
    assert not torch.allclose(answers(v1.model, images()), answers(v15.model, images()), atol=1e-3)
    assert "v1 (stride in the 1x1) as given" in v1.origin


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
    assert "v1.5 (stride in the 3x3) as the file states" in load_network(path).origin
    with pytest.raises(WeightsError, match=r"is of the variant v1\.5, not v1, by its format"):
        load_network(path, variant="v1")
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "resnetkit.variant": "v1.5"}
    contents = {path.read_bytes()}
    for number in range(8):  # each call of safetensors draws another order of the metadata
        export_weights(network, tmp_path / f"{number}.safetensors", "torchvision")
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1


def test_a_variant_of_another_kind_is_refused(bottleneck: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(bottleneck.state_dict(), path, {"resnetkit.variant": "v3"})
    with pytest.raises(WeightsError, match=r"states the variant 'v3': expected v1 or v1\.5"):
        load_network(path)
    with pytest.raises(UsageError, match=r"unknown variant 'v2': expected v1 or v1\.5"):
        load_network(path, variant="v2")


DAMAGE: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (dropped("layer2.0.bn2.running_var"), "lacks 1 tensor(s)"),
    "left over": (set_to("layer2.0.se.fc1.weight", torch.ones(1)), "has no use for 1 tensor(s)"),
    "another shape": (set_to("bn1.weight", torch.ones(3)), "'bn1.weight' has the shape (3,)"),
    "not finite": (set_to("bn1.bias", torch.full((8,), torch.nan)), "not finite"),
    "negative variance": (set_to("bn1.running_var", -torch.ones(8)), "negative variance"),
    "half a head": (dropped("fc.bias"), "another head than one layer with a bias: 'fc.weight'"),
    "a flat head": (set_to("fc.weight", torch.ones(9)), "'fc.weight' has the shape (9,)"),
    "no class": (set_to("fc.weight", torch.ones(0, 64)), "num_classes is 0"),
    "a small stem": (
        set_to("conv1.weight", torch.ones(8, 3, 3, 3)),
        "begins with a 3x3 convolution, and does not state whether pooling follows",
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
        set_to("conv1.weight", torch.ones(8, 1, 7, 7)),
        "reads images of 1 channel(s), for which the format has no constants",
    ),
    "a number that claims to be many": (
        set_to("fc.weight", torch.ones(1).expand(10**6, 10**6)),
        "'fc.weight' is not a dense tensor",
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
