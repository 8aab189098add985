"""Files of keras.applications, compared with a forward pass by Keras' documentation."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.weights import (
    HELD,
    Foreign,
    assert_answers_to_photos,
    assert_constants,
    bottleneck_shapes,
    keras_layers,
    listed,
    narrow,
    sweep,
    write_keras,
)
from resnetkit.errors import UsageError, WeightsError
from resnetkit.weights import hdf5
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network


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


WRITERS: dict[str, dict[str, Any]] = {
    "as published": {},
    "as Keras 3 saves models": {"suffix": "", "root": "model_weights"},
    "many names": {"chunks": 3},
}


@pytest.mark.parametrize("writer", sweep(WRITERS, "as published"))
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


def test_keras_has_no_constants_for_gray_images(tmp_path: Path) -> None:
    layers = keras_layers()
    layers["conv1_conv"]["kernel"] = layers["conv1_conv"]["kernel"][:, :, :1]
    with pytest.raises(WeightsError, match=r"reads images of 1 channel\(s\)"):
        load_network(write_keras(tmp_path / "net.h5", layers))


def test_keras_names_of_one_table_are_not_read_over_and_over(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.h5", "w") as file:
        names = [f"layer{number}" for number in range(9)]
        file.attrs["layer_names"] = listed(*names)
        table = file.create_dataset("table", data=np.zeros(100_000, np.float32))
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = listed("kernel:0")
            group["kernel:0"] = table
    with pytest.raises(WeightsError, match="does not hold all of 'layer1/kernel'"):
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
    "not finite": (part_set("conv1_bn", "gamma", torch.full((8,), torch.inf)), "not finite"),
    "nothing": (lambda layers: layers.clear(), "holds no weights"),
    "whole numbers": (
        part_set("conv1_conv", "bias", torch.ones(8, dtype=torch.int32)),
        "holds no numbers in 'conv1_conv/bias'",
    ),
}


@pytest.mark.parametrize("damage", sweep(KERAS_DAMAGE, "a layer is missing", "another shape"))
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
    "a link into another file": (external_link, "only links to 'conv1_bn', which is elsewhere"),
    "numbers in another file": (external_numbers, "does not hold all of 'conv1_conv/bias'"),
    "numbers of another file": (virtual_numbers, "does not hold all of 'conv1_conv/bias'"),
    "numbers that are not there": (huge_numbers, "does not hold all of 'conv1_conv/bias'"),
    "a circle": (itself, "holds no numbers in 'conv1_conv/loop'"),
    "no names": (
        lambda file, other: file.attrs.pop("layer_names"),
        "save_weights of Keras 3 writes other files. Write it with model.save('NAME.h5')",
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


@pytest.mark.parametrize(
    "trick", sweep(TRICKS, "a link into another file", "numbers that are not there", "no names")
)
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
    with pytest.raises(WeightsError, match="reading it does not end"):
        load_network(path)


def test_without_h5py_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'resnetkit\[keras\]'"):
        load_network(path)


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


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras", "net"])
def test_keras_would_not_read_other_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must end in \.h5, but not in \.weights\.h5"):
        export_weights(narrow(**HELD["keras"][1]), tmp_path / name, "keras")
    assert not list(tmp_path.iterdir())


def test_no_module_of_the_folder_one_is_in_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "net.h5", keras_layers())
    (tmp_path / "h5py.py").write_text("open('trap', 'w').close()")
    (tmp_path / "numpy.py").write_text("open('trap', 'w').close()")
    monkeypatch.chdir(tmp_path)
    assert load_network(path).format == "keras"
    assert not (tmp_path / "trap").exists()
