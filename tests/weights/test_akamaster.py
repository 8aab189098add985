"""The .th files of akamaster/pytorch_resnet_cifar10, and what we write of the kind."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.weights import HELD, Malicious, narrow, sweep
from resnetkit.errors import WeightsError
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network


class TheirBlock(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.grows = inputs != planes

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.grows:
            quarter = out.shape[1] // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return torch.relu(out + x)


class TheirNetwork(nn.Module):
    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, planes in enumerate((16, 32, 64), start=1):
            layers = []
            for block in range(blocks):
                layers.append(TheirBlock(inputs, planes, 2 if stage > 1 and block == 0 else 1))
                inputs = planes
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def their_network(blocks: int = 3, classes: int = 10) -> TheirNetwork:
    """Returns one whose every tensor is random, running statistics too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(blocks)
        model = TheirNetwork(blocks, classes)
        for name, tensor in model.state_dict().items():
            if "bn" in name and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model.eval()


def their_state(model: nn.Module, prefix: str = "module.") -> dict[str, Tensor]:
    return OrderedDict(
        (prefix + name, tensor)
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


def write(path: Path, state: dict[str, Tensor], **options: Any) -> Path:
    content = {"best_prec1": 91.73, "state_dict": state}
    torch.save(content, path, **{"_use_new_zipfile_serialization": False, **options})
    return path


@pytest.mark.parametrize("blocks", [3, 9])
def test_their_network_answers_as_it_did(blocks: int, tmp_path: Path) -> None:
    theirs = their_network(blocks)
    network = load_network(write(tmp_path / "resnet.th", their_state(theirs)))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network.model(images), theirs(images))
    assert not network.model.training
    assert len(their_state(theirs)) == 5 + blocks * 3 * 10 + 2  # 97 for ResNet-20
    assert sum(p.numel() for p in network.model.parameters()) == {3: 269_722, 9: 853_018}[blocks]


def test_it_says_what_was_recognized_and_chosen(tmp_path: Path) -> None:
    network = load_network(write(tmp_path / "resnet20.th", their_state(their_network())))
    assert network.origin == (
        "ResNet-20 of akamaster/pytorch_resnet_cifar10: shortcuts of option A (zeros on both"
        " sides), images normalized with the constants of ImageNet (entry state_dict, names without"
        " module.)"
    )
    assert network.architecture.padding == "split"
    assert network.normalization.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert network.normalization.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert network.normalization.mean.shape == network.normalization.std.shape == (3, 1, 1)
    assert (network.class_names, network.data, network.image_size) == (*(CIFAR10, "", (32, 32)),)


def test_zeros_appended_would_answer_differently(tmp_path: Path) -> None:
    theirs = their_network()
    network = load_network(write(tmp_path / "resnet20.th", their_state(theirs)))
    appended = network.architecture.with_options(padding="append").build()
    appended.load_state_dict(network.model.state_dict())
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(appended.eval()(images), theirs(images), atol=1e-2)


VARIANTS: dict[str, Callable[[Path, TheirNetwork], object]] = {
    "the new container": lambda path, net: write(
        path, their_state(net), _use_new_zipfile_serialization=True
    ),
    "no prefix": lambda path, net: write(path, their_state(net, prefix="")),
    "batches counted": lambda path, net: write(
        path, {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    ),
    "the state alone": lambda path, net: torch.save(their_state(net), path),
    "safetensors": lambda path, net: safetensors.torch.save_file(dict(their_state(net)), path),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sweep(["net.th", "net.pth", "net"], "net"))
def test_containers_and_names_do_not_matter(variant: str, name: str, tmp_path: Path) -> None:
    theirs = their_network()
    VARIANTS[variant](tmp_path / name, theirs)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load_network(tmp_path / name).model(images), theirs(images))


def test_other_classes_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "net.th", their_state(their_network(classes=100)))
    assert load_network(path).architecture.num_classes == 100


def test_projections_are_recognized(tmp_path: Path) -> None:
    state = their_state(their_network())
    for stage, inputs, outputs in ((2, 16, 32), (3, 32, 64)):
        prefix = f"module.layer{stage}.0.shortcut"
        state[f"{prefix}.0.weight"] = torch.randn(outputs, inputs, 1, 1)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{prefix}.1.{part}"] = torch.rand(outputs)
    network = load_network(write(tmp_path / "net.th", state))
    assert network.architecture.shortcut == "B"
    assert "option B (projections)" in network.origin


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.pop(name)


def renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.update({new: state.pop(old)})


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a tensor is missing": (
        without("module.layer2.1.bn2.running_var"),
        "lacks 1 tensor(s) of the network it was recognized as: layer2.1.bn2.running_var.",
    ),
    "tensors are left over": (
        lambda state: state.update({"module.se.weight": torch.ones(1)}),
        "has no use for 1 tensor(s) of the network it was recognized as: se.weight.",
    ),
    "a block is missing": (
        lambda state: [state.pop(n) for n in list(state) if n.startswith("module.layer3.2.")],
        "lacks 12 tensor(s) of the network it was recognized as: layer3.2.conv1.weight,"
        " layer3.2.bn1.weight, layer3.2.bn1.bias, ....",
    ),
    "a shape differs": (
        lambda state: state.update({"module.conv1.weight": torch.ones(16, 1, 3, 3)}),
        "'conv1.weight' has the shape (16, 1, 3, 3), expected (16, 3, 3, 3).",
    ),
    "a name comes twice": (
        lambda state: state.update({"conv1.weight": torch.ones(16, 3, 3, 3)}),
        "names a tensor twice, with a prefix and without: conv1.weight. To read it without the",
    ),
    "a head of no class": (
        lambda state: state.update({"module.linear.weight": torch.ones(0, 64)}),
        "looks like a network of akamaster/pytorch_resnet_cifar10, but is not: num_classes is 0",
    ),
    "another head": (
        renamed("module.linear.weight", "module.fc.weight"),
        "is in no format that resnetkit reads",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_tensor_is_accounted_for(damage: str, tmp_path: Path) -> None:
    state = their_state(their_network())
    harm, message = DAMAGE[damage]
    harm(state)
    with pytest.raises(WeightsError) as caught:
        load_network(write(tmp_path / "net.th", state))
    assert message in str(caught.value)
    assert str(tmp_path / "net.th") in str(caught.value)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_file_never_runs(legacy: bool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    state = {**their_state(their_network()), "module.x": Malicious(trap)}
    path = tmp_path / "net.th"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="Nothing in it was executed"):
        load_network(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # the file is a trap indeed


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for name, legacy in (("old.th", False), ("new.th", True)):
        whole = write(
            tmp_path / name, their_state(their_network()), _use_new_zipfile_serialization=legacy
        ).read_bytes()
        for share in (0, 1, 100, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:share])
            with pytest.raises(WeightsError, match="not a file of weights"):
                load_network(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conv1.weight", float("nan")),
        ("fc.bias", float("inf")),
        ("bn1.running_var", -1.0),
    ],
)
def test_weights_that_are_no_numbers_are_refused(name: str, value: float, tmp_path: Path) -> None:
    state = their_state(their_network())
    key = "module." + name.replace("fc", "linear")
    state[key] = torch.full_like(state[key], value)
    with pytest.raises(WeightsError, match=f"'{name}' holds"):
        load_network(write(tmp_path / "net.th", state))


@pytest.mark.parametrize("kind", ["complex", "sparse", "meta"])
def test_tensors_of_other_kinds_are_refused(kind: str, tmp_path: Path) -> None:
    state = their_state(their_network())
    weight = state["module.linear.weight"]
    state["module.linear.weight"] = {
        "complex": lambda: weight.to(torch.complex64),
        "sparse": weight.to_sparse,
        "meta": lambda: weight.to("meta"),
    }[kind]()
    with pytest.raises(WeightsError):
        load_network(write(tmp_path / "net.th", state))


def test_akamaster_finds_its_own_names(tmp_path: Path) -> None:
    export_weights(narrow(**HELD["akamaster, B"][1]), tmp_path / "net.th", "akamaster")
    assert (tmp_path / "net.th").read_bytes()[:1] == b"\x80"  # no zip, as theirs
    content = torch.load(tmp_path / "net.th", weights_only=True)
    names = set(content["state_dict"])
    assert all(name.startswith("module.") for name in names)
    expected = {"conv1.weight", "linear.bias", "layer2.0.shortcut.0.weight"}
    assert {f"module.{name}" for name in expected} <= names


def test_equally_deep_stages_are_expected_by_akamaster(tmp_path: Path) -> None:
    options = {**HELD["akamaster, A"][1], "depths": (1, 2, 1)}
    with pytest.raises(WeightsError, match=r"stages of equal depth: this one has \(1, 2, 1\)"):
        export_weights(narrow(**options), tmp_path / "net.th", "akamaster")
