"""Small networks in the layouts of other libraries, each written here from its description."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from resnetkit.data.normalization import Normalization
from resnetkit.models.zoo import Architecture
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


TINY = ((1, 2, 1, 1), (8, 12, 16, 20))  # blocks and widths


CLASSES = 7


def sweep(cases: Iterable[str], *default: str) -> list[Any]:
    """Returns cases to parametrize with, all of which but some run with `-m slow` only."""
    return [
        case if case in default else pytest.param(case, marks=pytest.mark.slow) for case in cases
    ]


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


class TinyResNet(torchvision.models.ResNet):
    """A network of torchvision with an eighth of the channels."""

    def __init__(self, block: Any, layers: list[int], num_classes: int, **options: Any) -> None:
        super().__init__(block, layers, num_classes, **options)
        self.fc = nn.Linear(64 * block.expansion, num_classes)

    def _make_layer(self, block: Any, planes: int, *layers: Any, **options: Any) -> nn.Sequential:
        if planes == 64:  # the first stage
            self.inplanes = 8
            self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        return super()._make_layer(block, planes // 8, *layers, **options)


def torchvision_twin(block: Any = Bottleneck, classes: int = CLASSES, **options: Any) -> nn.Module:
    """Returns a small network of torchvision, of one block a stage, with random weights."""
    with torch.device("meta"):
        model = TinyResNet(block, [1, 1, 1, 1], classes, **options)
    model.load_state_dict(randomized(model.state_dict()), assign=True)
    return model.eval()


def as_v1(model: nn.Module) -> nn.Module:
    """Returns a network of torchvision that strides in the first 1x1, with the same weights."""
    for stage in (2, 3, 4):
        first = model.get_submodule(f"layer{stage}.0")
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    return model


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


State = dict[str, Tensor]


def set_to(name: str, value: Tensor) -> Callable[[State], object]:
    return lambda state: state.update({name: value})


def dropped(*names: str) -> Callable[[State], object]:
    return lambda state: [state.pop(name) for name in names]


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
    last = "conv3" if bottlenecks else "conv2"
    config = {
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": len(model.state_dict()["conv1.weight"]),
        "hidden_sizes": [
            len(model.state_dict()[f"layer{stage}.0.{last}.weight"]) for stage in (1, 2, 3, 4)
        ],
        "depths": [1, 1, 1, 1],
        "layer_type": "bottleneck" if bottlenecks else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        **facts,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


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


def processed(folder: Path, out: Path, **facts: Any) -> TrainedNetwork:
    """Loads a copy of a network with another preprocessor_config.json."""
    shutil.copytree(folder, out)
    base = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "resample": 2, "size": 224}
    kind = {"image_processor_type": "ConvNextImageProcessor"}
    whole = {key: value for key, value in {**base, **kind, **facts}.items() if value != "left out"}
    (out / "preprocessor_config.json").write_text(json.dumps(whole))
    return load_network(out)


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)
