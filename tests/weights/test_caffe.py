"""Caffe files, written byte by byte, compared with a forward pass by Caffe's rules."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.weights import (
    CLASSES,
    HELD,
    Caffe,
    answers,
    assert_answers_to_photos,
    assert_constants,
    bottleneck_shapes,
    caffe_blob,
    caffe_layers,
    generator,
    images,
    inside,
    narrow,
    number,
    plain,
    uniform,
    write_caffe,
)
from resnetkit.errors import WeightsError
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network


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


def test_caffe_has_no_constants_for_gray_images(tmp_path: Path) -> None:
    layers = caffe_layers()
    kind, (weight, *rest), parameters = layers["conv1"]
    layers["conv1"] = (kind, [weight[:, :1], *rest], parameters)
    with pytest.raises(WeightsError, match=r"reads images of 1 channel\(s\)"):
        load_network(write_caffe(tmp_path / "net.caffemodel", layers))


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
    assert "the mean image of ResNet_mean.binaryproto next to it" in network.origin
    assert_answers_to_photos(network, lambda rgb: caffe_forward(layers, rgb, mean=mean), (224,))
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(caffe_blob(mean[:, 1:], "four"))
    with pytest.raises(WeightsError, match=r"has the shape \(3, 223, 224\), expected"):
        load_network(path)
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(b"\x07")
    with pytest.raises(WeightsError, match=r"ResNet_mean\.binaryproto is corrupt"):
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
        "'bn1.weight' holds values that are not finite",
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
        "does not pool after the first convolution as the authors' networks do",
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
    "a length beyond the end": (b"\x0a" + number(2**62), "longer than the message"),
    "a number without end": (b"\x0a" + b"\xff" * 12, "does not end"),
    "a number cut off": (b"\x0a\x80", "ends too early"),
    "an unknown kind": (inside(1, b"net") + b"\x0b", "unknown kind 3"),
    "a field without number": (inside(1, b"net") + b"\x02\x00", "the number 0"),
    "no layers": (inside(1, b"net"), "it has no layers"),
    "a number for a layer": (inside(1, b"net") + plain(100, 5), "it has a number where a message"),
    "old layers": (inside(1, b"net") + inside(2, b""), "a version of Caffe before 2015"),
    "a name of no text": (inside(1, b"net") + inside(100, inside(1, b"\xff")), "codec"),
    "a layer twice": (inside(1, b"net") + inside(100, b"") * 2, "two layers named ''"),
    "sizes without numbers": (
        one_layer(inside(7, inside(1, number(2**40) * 3))),
        "0 bytes do not fit the shape",
    ),
    "more sizes than numbers": (
        one_layer(inside(7, inside(1, number(2**31))) + inside(5, bytes(8))),
        "8 bytes do not fit the shape (2147483648,)",
    ),
    "no sizes": (one_layer(inside(5, bytes(8))), "8 bytes do not fit the shape (0, 0, 0, 0)"),
    "bytes for a size": (one_layer(inside(1, b"") + inside(5, bytes(4))), "it has bytes where"),
    "numbers for weights": (one_layer(plain(5, 3)), "it has integers where weights"),
    "deep down": (one_layer(inside(7, inside(7, b"") * 3) * 3), "0 bytes do not fit the shape"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_caffe_file_that_lies_is_refused(lie: str, tmp_path: Path) -> None:
    content, message = LIES[lie]
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(WeightsError, match="is corrupt or not a file of weights") as caught:
        load_network(tmp_path / "net")
    assert message in str(caught.value)


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


def test_a_mean_image_in_the_way_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(b"")
    with pytest.raises(WeightsError, match="would be taken for this network's mean"):
        export_weights(narrow(**HELD["caffe"][1]), tmp_path / "net", "caffe")
