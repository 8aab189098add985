"""Checkpoints as people have them: wrappers, prefixes and what lies next to the tensors."""

import argparse
import io
import json
import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from resnetkit.errors import UsageError, WeightsError
from resnetkit.evaluation.network_data import data_of
from resnetkit.inference.predictor import load_predictor
from resnetkit.models.zoo import Architecture
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.weights import checkpoints
from resnetkit.weights import network as weights_network
from resnetkit.weights import tensors as weights_tensors
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network
from resnetkit.weights.protobuf import varint

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Returns the tensors of a small network with torchvision's names."""
    architecture = Architecture("basic", (1, 1, 1, 1), (16, 16, 32, 32), "7x7", 224, False)
    return dict(architecture.with_options(num_classes=5).build(torch.Generator()).state_dict())


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


KEPT: dict[str, tuple[Callable[[State], object], str]] = {
    "alone": (lambda s: s, ""),
    "parallel": (lambda s: prefixed(s, "module."), "names without module."),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), "names without _orig_mod."),
    "both": (lambda s: prefixed(s, "module._orig_mod."), "names without module._orig_mod."),
    "the other way round": (lambda s: prefixed(s, "_orig_mod.module."), "_orig_mod.module."),
    "Lightning": (
        lambda s: {"state_dict": prefixed(s, "model."), "epoch": 3},
        "entry state_dict, names without model.",
    ),
    "net": (lambda s: {"net": prefixed(s, "module."), "acc": 90.0, "epoch": 1}, "entry net"),
    "tutorial": (lambda s: {"model_state_dict": s, "loss": torch.tensor(0.1)}, "model_state_dict"),
    "averaged": (lambda s: {"state_dict_ema": s}, "entry state_dict_ema"),
    "nested": (lambda s: {"ema": {"module": s, "decay": 0.99}}, "entry ema"),
    "an encoder": (lambda s: prefixed(s, "encoder.backbone."), "encoder.backbone."),
    "a name of one's own": (lambda s: prefixed(s, "resnet."), "names without resnet."),
    "with a loss": (
        lambda s: {"state_dict": {**prefixed(s, "model."), "loss.weight": torch.ones(7)}},
        "names without model., without 1 other tensor(s): loss.weight",
    ),
    "torchvision's average": (
        lambda s: {"model_ema": {"n_averaged": torch.tensor(3), **prefixed(s, "module.")}},
        "entry model_ema, names without module., without 1 other tensor(s): n_averaged",
    ),
    "options": (
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, out=Path("runs")), "epoch": 1},
        "entry model",
    ),
    "numbers": (
        lambda s: {"model": s, "best": np.float64(91.5), "n": np.int64(3), "a": np.ones(3)},
        "entry model",
    ),
}


@pytest.mark.parametrize(("wrap", "words"), KEPT.values(), ids=KEPT)
def test_tensors_are_found_and_what_was_taken_off_is_said(
    wrap: Callable[[State], object], words: str, state: State, tmp_path: Path
) -> None:
    network = load_network(saved(tmp_path / "net.pth", wrap(state)))
    assert words in network.origin
    assert network.has_head
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_of_two_networks_in_a_file_one_is_named(state: State, tmp_path: Path) -> None:
    averaged = {n: t * 2 if t.is_floating_point() else t for n, t in state.items()}
    path = saved(tmp_path / "net.pth", {"state_dict": state, "state_dict_ema": averaged})
    with pytest.raises(
        WeightsError, match=r"entries state_dict, state_dict_ema, .*#state_dict_ema"
    ):
        load_network(path)
    for entry, expected in {"state_dict": state, "state_dict_ema": averaged}.items():
        network = load_network(f"{path}#{entry}")
        assert torch.equal(network.model.conv1.weight, expected["conv1.weight"])
    with pytest.raises(WeightsError, match="has no entry 'optimizer'"):
        load_network(f"{path}#optimizer")


def test_of_two_networks_under_two_names_none_is_guessed(state: State, tmp_path: Path) -> None:
    both = {**prefixed(state, "student."), **prefixed(state, "teacher.")}
    with pytest.raises(WeightsError, match=r"several networks.* student\., teacher\.: select one"):
        load_network(saved(tmp_path / "net.pth", both))


OTHER_ENTRIES: dict[str, tuple[Callable[[State], object], str]] = {
    "best": (lambda s: {"best_state_dict": s, "epoch": 3}, "entry best_state_dict"),
    "backbone": (lambda s: {"backbone": prefixed(s, "module.")}, "entry backbone"),
    "nested": (lambda s: {"checkpoint": {"state": {"net": s}}}, "entry checkpoint.state.net"),
}


@pytest.mark.parametrize(("wrap", "words"), OTHER_ENTRIES.values(), ids=OTHER_ENTRIES)
def test_a_network_is_found_in_entries_of_any_name(
    wrap: Callable[[State], object], words: str, state: State, tmp_path: Path
) -> None:
    network = load_network(saved(tmp_path / "net.pth", wrap(state)))
    assert words in network.origin
    assert torch.equal(network.model.state_dict()["fc.weight"], state["fc.weight"])


def test_of_a_student_and_a_teacher_one_is_named(state: State, tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in state.items()}
    content = {"student": prefixed(state, "module."), "teacher": prefixed(other, "backbone.")}
    path = saved(tmp_path / "dino.pth", content)
    with pytest.raises(WeightsError, match=r"student, teacher.*select one"):
        load_network(path)
    network = load_network(f"{path}#teacher")
    assert torch.equal(network.model.state_dict()["fc.weight"], other["fc.weight"])


def test_of_two_networks_side_by_side_one_is_named_by_its_prefix(
    state: State, tmp_path: Path
) -> None:
    other = {name: tensor + 1 for name, tensor in state.items()}
    content = {"state_dict": prefixed(state, "model.") | prefixed(other, "ema_model.")}
    path = saved(tmp_path / "two.pth", content)
    with pytest.raises(WeightsError, match=r"select one, as in .*two\.pth#model\.'"):
        load_network(path)
    network = load_network(f"{path}#ema_model.")
    assert torch.equal(network.model.state_dict()["fc.weight"], other["fc.weight"])
    with pytest.raises(WeightsError, match=r"'net\.': expected one of model\., ema_model\."):
        load_network(f"{path}#net.")


def test_entries_that_refer_to_each_other_are_looked_at_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    for _ in range(40):  # 10 ** 40 ways from the outermost to the innermost
        content = {str(number): content for number in range(10)}
    with pytest.raises(WeightsError, match="in no format that resnetkit reads"):
        load_network(saved(tmp_path / "net.pth", content))


def test_a_network_with_two_names_is_found_by_each(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {"model": state, "best": [{"weights": state}]})
    for name in (path, f"{path}#model", f"{path}#best.0.weights"):
        assert torch.equal(load_network(name).model.fc.weight, state["fc.weight"])


def test_networks_are_found_down_to_a_depth(state: State, tmp_path: Path) -> None:
    for depth, is_found in ((checkpoints.DEEPEST, True), (checkpoints.DEEPEST + 1, False)):
        content: Any = state
        for _ in range(depth):
            content = {"a": content}
        path = saved(tmp_path / f"{depth}.pth", content)
        with nullcontext() if is_found else pytest.raises(WeightsError, match="in no format"):
            load_network(path)


def test_a_file_of_very_many_networks_is_refused(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "net.pth", [{n: t + k for n, t in state.items()} for k in range(3)])
    monkeypatch.setattr(checkpoints, "MOST_NETWORKS", 3)
    assert torch.equal(load_network(f"{path}#1").model.fc.weight, state["fc.weight"] + 1)
    monkeypatch.setattr(checkpoints, "MOST_NETWORKS", 2)
    with pytest.raises(WeightsError, match="more than 2 networks: save the one that you need"):
        load_network(f"{path}#1")


def test_a_name_with_the_sign_is_a_file(state: State, tmp_path: Path) -> None:
    assert load_network(saved(tmp_path / "net#1.pth", state)).has_head


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


HEADLESS: dict[str, Callable[[State], object]] = {
    "timm": without_head,
    "MoCo": lambda s: {
        "arch": "resnet18",
        "state_dict": {
            **prefixed(without_head(s), "module.encoder_q."),
            "module.encoder_q.fc.0.weight": torch.ones(32, 32),
            "module.encoder_q.fc.2.weight": torch.ones(8, 32),
            **prefixed(without_head(s), "module.encoder_k."),
            "module.queue": torch.ones(8, 64),
        },
    },
}


@pytest.mark.parametrize("wrap", HEADLESS.values(), ids=HEADLESS)
def test_a_network_without_a_head_gives_features_and_no_answers(
    wrap: Callable[[State], object], state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.pth", wrap(state))
    predictor = load_predictor(path)
    assert "without a head" in predictor.engine.origin
    assert "fc" not in predictor.engine.layers
    from PIL import Image

    image = Image.new("RGB", (256, 256), (200, 30, 90))
    whole = load_predictor(saved(tmp_path / "whole.pth", state))
    (ours,), (theirs,) = (list(each.features(image)) for each in (predictor, whole))
    assert np.array_equal(ours.values, theirs.values)
    for attempt in (
        lambda: list(predictor.predict(image)),
        lambda: export_weights(load_network(path), tmp_path / "again.pth", "torchvision"),
    ):
        with pytest.raises(WeightsError, match=r"has no head, .* 'resnet train --weights'"):
            attempt()


def test_a_head_of_several_layers_is_left_out_and_named(state: State, tmp_path: Path) -> None:
    layers = {
        **without_head(state),
        "fc.0.weight": torch.ones(8, 32),
        "fc.2.weight": torch.ones(2, 8),
    }
    predictor = load_predictor(saved(tmp_path / "net.pth", layers))
    from PIL import Image

    words = (
        r"without 2 other tensor\(s\): fc\.0\.weight, fc\.2\.weight, without a head.*has no head"
    )
    with pytest.raises(WeightsError, match=words):
        list(predictor.predict(Image.new("RGB", (256, 256))))


@pytest.mark.parametrize(
    "layer", ["linear", "head", "head.fc", "fc.1", "classifier", "last_linear", "classifier.1"]
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_head_of_one_layer_is_found_within_a_network_and_beside_it(
    layer: str, prefix: str, state: State, tmp_path: Path
) -> None:
    head = {f"{layer}.weight": state["fc.weight"], f"{layer}.bias": state["fc.bias"]}
    path = saved(tmp_path / "net.pth", {**prefixed(without_head(state), prefix), **head})
    network = load_network(path)
    assert f"head {layer}" in network.origin
    assert "other tensor" not in network.origin
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_a_head_beside_a_network_that_does_not_fit_is_left_out(
    state: State, tmp_path: Path
) -> None:
    head = {"fc.weight": torch.ones(5, 7), "fc.bias": torch.ones(5)}
    path = saved(tmp_path / "net.pth", {**prefixed(without_head(state), "backbone."), **head})
    network = load_network(path)
    assert not network.has_head
    assert "without 2 other tensor(s): fc.weight, fc.bias" in network.origin


def test_a_projection_head_is_left_out_and_named(state: State, tmp_path: Path) -> None:
    swav = {
        **prefixed(without_head(state), "module."),
        "module.projection_head.0.weight": torch.ones(8, 32),
        "module.prototypes.weight": torch.ones(30, 8),
    }
    network = load_network(saved(tmp_path / "net.pth", swav))
    assert not network.has_head
    assert "projection_head.0.weight, prototypes.weight" in network.origin


SAME: dict[str, Callable[[State], object]] = {
    "list": lambda s: [s],
    "tuple": lambda s: ({"epoch": 3}, s),
    "arrays": lambda s: {"model": {name: tensor.numpy() for name, tensor in s.items()}},
    "Fortran's order": lambda s: {n: np.asfortranarray(t.numpy()) for n, t in s.items()},
    "counts in tables": lambda s: {
        n: t.reshape(1) if n.endswith("num_batches_tracked") else t for n, t in s.items()
    },
    "generators": lambda s: {
        "model": s,
        "rng": [np.random.default_rng(0), np.random.RandomState(0), ..., np.arange(3)],
    },
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", SAME.values(), ids=SAME)
def test_containers_and_arrays_do_not_matter(
    wrap: Callable[[State], object], legacy: bool, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not legacy)
    for name, tensor in load_network(path).model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_an_entry_and_a_prefix_are_named_together(state: State, tmp_path: Path) -> None:
    others = [{n: t + number for n, t in state.items()} for number in range(1, 4)]
    content = {
        "model": state | prefixed(others[0], "module."),
        "ema": prefixed(others[1], "module.") | prefixed(others[2], "backbone."),
    }
    path = saved(tmp_path / "net.pth", content)
    with pytest.raises(WeightsError, match=r"model, model\.module\., ema\.module\., ema\.backbone"):
        load_network(path)
    expected = dict(
        zip(
            ("model", "model.module.", "ema.module.", "ema.backbone"), [state, *others], strict=True
        )
    )
    for name, tensors in expected.items():
        network = load_network(f"{path}#{name}")
        assert torch.equal(network.model.state_dict()["fc.bias"], tensors["fc.bias"])


def test_the_network_without_a_prefix_is_named_by_a_dot(state: State, tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in state.items()}
    path = saved(tmp_path / "net.pth", state | prefixed(other, "module."))
    with pytest.raises(WeightsError, match=r"with nothing, module\.: select one, as in .*#\.'"):
        load_network(path)
    for name, tensors in ((".", state), ("module.", other)):
        network = load_network(f"{path}#{name}")
        assert torch.equal(network.model.state_dict()["fc.bias"], tensors["fc.bias"])


def test_an_average_under_any_name_is_not_passed_over(state: State, tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in state.items()}
    path = saved(tmp_path / "net.pth", {"params": state, "params_ema": other})
    with pytest.raises(WeightsError, match=r"entries params, params_ema"):
        load_network(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantized"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: torch.ones(1).expand(5, 32), "repeats fewer numbers"),
        (lambda t: t.to(torch.float8_e4m3fn), r"float8_e4m3fn, .*model\.float\(\)"),
    ],
)
def test_numbers_in_other_forms_are_named(
    change: Callable[[Tensor], Tensor], words: str, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.pth", {**state, "fc.weight": change(state["fc.weight"])})
    with pytest.raises(WeightsError, match=words):
        load_network(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [([], "a list of 0"), ({}, "an empty dict"), ({"a": 3, "b": 4}, "a dict with the keys a, b")],
)
def test_what_a_file_holds_instead_is_said(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=words):
        load_network(saved(tmp_path / "net.pth", content))


# What a file of weights may not do


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_next_to_tensors_is_refused_and_not_run(state: State, tmp_path: Path) -> None:
    for content in (
        {"model": state, "args": Trap(tmp_path / "trap")},
        {"model": state, "args": argparse.Namespace(hook=Trap(tmp_path / "trap"))},
        {"model": state, "rng": random.Random(0)},
    ):
        with pytest.raises(WeightsError, match="Nothing in it was executed"):
            load_network(saved(tmp_path / "net.pth", content))
    assert not (tmp_path / "trap").exists()


def test_numpy_is_not_asked_to_read_its_own_values(state: State, tmp_path: Path) -> None:
    """An array of objects holds a pickle of its own, which NumPy would run."""
    inner = np.array([Trap(tmp_path / "trap")], dtype=object)
    with pytest.raises(WeightsError, match="Nothing in it was executed"):
        load_network(saved(tmp_path / "net.pth", {"model": state, "array": inner}))
    assert not (tmp_path / "trap").exists()


def test_compressed_records_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(1)}, stream)
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            packed = name.endswith("/data/0")
            kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            target.writestr(name, bytes(2**27) if packed else source.read(name), kind)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(WeightsError, match="a record is compressed"):
        load_network(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_every_flipped_bit_of_the_tensors_is_noticed(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", state)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = [r.header_offset + 200 for r in archive.infolist() if r.file_size > 1000]
    for place in places[:: max(1, len(places) // 8)]:
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(WeightsError, match=r"damaged|checksum"):
            load_network(path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("fc.weight", lambda t: t.to(torch.int64), "holds int64, expected float32"),
        ("fc.weight", lambda t: t > 0, "holds bool, expected float32"),
        ("bn1.num_batches_tracked", lambda t: t.float(), "holds float32, expected int64"),
        ("fc.weight", lambda t: t.double() + 1e300, "not finite in float32"),
    ],
)
def test_numbers_of_another_kind_are_refused(
    name: str, change: Callable[[Tensor], Tensor], words: str, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.pth", {**state, name: change(state[name])})
    with pytest.raises(WeightsError, match=words):
        load_network(path)


def tied(state: State) -> State:
    """Returns a state_dict in which tensors of the same shape are one."""
    first: dict[Any, Tensor] = {}
    return {n: first.setdefault((t.shape, t.dtype), t) for n, t in state.items()}


def flat(state: State) -> State:
    """Returns a state_dict of views of one flat storage, as some optimizers leave it."""
    plain = {n: t for n, t in state.items() if t.is_floating_point()}
    parts = torch.cat([t.flatten() for t in plain.values()]).split(
        [*map(torch.numel, plain.values())]
    )
    views = {n: part.view(t.shape) for (n, t), part in zip(plain.items(), parts, strict=True)}
    return {**state, **views}


def test_shared_numbers_are_read_unless_copies_fill_the_memory(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (flat(state), tied(state)):
        model = load_network(saved(tmp_path / "net.pth", content)).model
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, content[name])
    monkeypatch.setattr(weights_tensors, "MOST_SHARED", 0)
    assert load_network(saved(tmp_path / "net.pth", flat(state))).has_head
    with pytest.raises(WeightsError, match="which so many tensors share that copies would fill"):
        load_network(saved(tmp_path / "net.pth", tied(state)))


def test_very_many_blocks_are_not_built(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_network, "MOST_BLOCKS", 3)
    with pytest.raises(WeightsError, match="names 4 blocks: expected at most 3"):
        load_network(saved(tmp_path / "net.pth", state))


@pytest.mark.parametrize(
    "weight", [torch.empty(10**12, 0, 1, 1), torch.zeros(1, 1, 1, 1).expand(10**12, 1, 1, 1)]
)
def test_a_shape_alone_makes_no_head(weight: Tensor, state: State, tmp_path: Path) -> None:
    content = {**without_head(state), "layer4.0.conv2.weight": weight}
    with pytest.raises(WeightsError, match=r"repeats fewer numbers|looks like a residual network"):
        load_network(saved(tmp_path / "net.pth", content))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(
    dtype: torch.dtype, state: State, tmp_path: Path
) -> None:
    changed = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    model = load_network(saved(tmp_path / "net.pth", changed)).model
    assert torch.equal(model.fc.weight, changed["fc.weight"].float())


def test_no_pipe_and_no_device_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    os.mkfifo(folder / "config.json")
    (tmp_path / "endless.pth").symlink_to("/dev/zero")
    for path in (folder, tmp_path / "endless.pth"):
        with pytest.raises(WeightsError):
            load_network(path)


def test_a_caffe_file_of_tiny_fields_is_refused_in_seconds(tmp_path: Path) -> None:
    layer = b"\x08\x00" * 2_000_000  # two bytes a field
    net = b"\xa2\x06" + varint(len(layer)) + layer
    (tmp_path / "net.caffemodel").write_bytes(b"\x0a\x06resnet" + net)
    with pytest.raises(WeightsError, match="more than 200 fields"):
        load_network(tmp_path / "net.caffemodel")
    (tmp_path / "net.caffemodel").write_bytes(b"\x0a\x06resnet" + b"\xa2\x06\x00" * 1_000_000)
    with pytest.raises(WeightsError, match="more than 5,000 fields"):
        load_network(tmp_path / "net.caffemodel")


def test_a_vast_mean_image_is_not_read(tmp_path: Path) -> None:
    from resnetkit.weights.caffe import MEAN_FILE, mean_of

    (tmp_path / MEAN_FILE).touch()
    os.truncate(tmp_path / MEAN_FILE, 2**33)
    with pytest.raises(WeightsError, match="larger than 2 MiB"):
        mean_of(tmp_path / "net.caffemodel")


def test_files_of_another_kind_are_not_read_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "net.pth").touch()
    os.truncate(tmp_path / "net.pth", 2**40)
    with pytest.raises(WeightsError, match="neither as safetensors nor as a file of torch"):
        load_network(tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes(b"PK\x03\x04")
    os.truncate(tmp_path / "net.pth", 2**40)
    with pytest.raises(WeightsError, match="larger than 4,096 MiB"):
        load_network(tmp_path / "net.pth")


def test_an_image_in_place_of_a_network_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(WeightsError, match=r"it is an image\. Commands take the network first"):
        load_network(path)


def test_a_header_that_names_a_fact_twice_is_refused(state: State, tmp_path: Path) -> None:
    content = safetensors.torch.save(state, {"x": "1"})
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"x":"1"', b'"x":"1","x":"2"').rstrip()
    header += b" " * (-len(header) % 8)
    whole = len(header).to_bytes(8, "little") + header + content[8 + length :]
    (tmp_path / "net.safetensors").write_bytes(whole)
    with pytest.raises(WeightsError, match="in its header, the key 'x' occurs twice"):
        load_network(tmp_path / "net.safetensors")


def test_a_name_without_end_is_refused(state: State, tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed(state, "module." * 1_000), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="the name of a tensor has more than 1,000 characters"):
        load_network(tmp_path / "net.safetensors")


def test_a_pointer_and_a_page_are_recognized(folder: Path, tmp_path: Path) -> None:
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
    ):
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            load_network(tmp_path / "net.pth")
        whole = (folder / "config.json").read_bytes()
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            load_network(folder)
        (folder / "config.json").write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            load_network(folder)
        (folder / "config.json").write_bytes(whole)


# The folder `model/`


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Recipe]) -> Path:
    return train(tiny(), tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """Returns a copy of the `model/` of a run."""
    for path in (run_folder / "model").iterdir():
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessing.safetensors"])
def test_a_changed_value_is_noticed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} is not what was written"):
        load_network(folder)


def changed(folder: Path, **changes: object) -> None:
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, **changes}))


def test_a_changed_fact_is_noticed_and_other_spaces_are_not(folder: Path) -> None:
    changed(folder)
    assert load_network(folder).class_names == tuple("0123456789")
    changed(folder, class_names=list("1023456789"))
    with pytest.raises(WeightsError, match=r"config\.json is not what was written"):
        load_network(folder)


def test_a_folder_without_digests_is_refused(folder: Path) -> None:
    changed(folder, sha256=None)
    with pytest.raises(WeightsError, match="holds no digests"):
        load_network(folder)


def layers_of(folder: Path, **changes: object) -> dict[str, object]:
    return {**json.loads((folder / "config.json").read_text())["layers"], **changes}


IMPOSSIBLE: dict[str, Callable[[Path], dict[str, object]]] = {
    "a name too few": lambda f: {"class_names": list("012345678")},
    "a name too many": lambda f: {"class_names": list("0123456789a")},
    "a name that is none": lambda f: {"class_names": [3] * 10},
    "a long name": lambda f: {"class_names": ["x" * 10**6, *"123456789"]},
    "large images": lambda f: {"image_size": [100_000, 100_000]},
    "no images": lambda f: {"image_size": [0, 8]},
    "half pixels": lambda f: {"image_size": [8.5, 8]},
    "nothing shown": lambda f: {"crop_pct": 1e-300},
    "more than all": lambda f: {"crop_pct": 1.5},
    "many blocks": lambda f: {"layers": layers_of(f, depths=[100_000, 3, 3])},
    "many stages": lambda f: {"layers": layers_of(f, depths=[1] * 1000, widths=[16] * 1000)},
    "true blocks": lambda f: {"layers": layers_of(f, depths=[True, 3, 3])},
    "wide blocks": lambda f: {"layers": layers_of(f, widths=[16, 32, 100_000])},
    "many classes": lambda f: {"layers": layers_of(f, num_classes=10**9)},
}


@pytest.mark.parametrize("changes", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_configuration_is_not_believed(
    changes: Callable[[Path], dict[str, object]], folder: Path, forge: Callable[[Path], None]
) -> None:
    changed(folder, **changes(folder))
    forge(folder)
    tracemalloc.start()
    with pytest.raises(WeightsError):
        load_network(folder)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_brackets_without_end_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(WeightsError, match="nested more than 100 levels"):
        load_network(folder)


def test_a_path_in_a_file_of_weights_is_not_opened(
    folder: Path, tmp_path: Path, forge: Callable[[Path], None]
) -> None:
    (tmp_path / "secret" / "a").mkdir(parents=True)
    changed(folder, data={"name": str(tmp_path / "secret")})
    forge(folder)
    with pytest.raises(UsageError, match=r"names '.*secret', which is not opened.*--data"):
        data_of(load_network(folder))


@pytest.mark.parametrize("name", ["photos/mine", "/home/me/photos", "../photos", "~/photos"])
def test_no_path_is_written_into_a_file_of_weights(folder: Path, tmp_path: Path, name: str) -> None:
    from dataclasses import replace

    network = replace(load_network(folder), data=name, images=Path("/home/me/run/images.csv"))
    export_weights(network, tmp_path / "out", "resnetkit")
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"photos" not in written
    assert b"images.csv" not in written
