"""Networks from files: our folders, the .th files of akamaster, and files that must be refused."""

import json
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.errors import WeightsError
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]


# Their network, written from the description of its files: names, zeros, no projections


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
@pytest.mark.parametrize("name", ["net.th", "net.pth", "net"])
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
        "names a tensor twice, with a prefix and without: conv1.weight. Name the network to read",
    ),
    "a head of no class": (
        lambda state: state.update({"module.linear.weight": torch.ones(0, 64)}),
        "looks like a network of akamaster/pytorch_resnet_cifar10, but is none: num_classes is 0",
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


# Files that are none


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


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


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(WeightsError):
        load_network(path)
    assert not trap.exists()


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


# Our own folders


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


# Values that no network has


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
