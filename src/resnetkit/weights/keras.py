"""Weights of keras.applications: ResNet50, ResNet101 and ResNet152 as `.h5` files.

What differs from torchvision: every convolution has a bias, kernels are (height, width, inputs,
outputs), blocks stride in the first 1x1 (v1), images are BGR and not divided, and batch
normalization adds 1.001e-5.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.models.zoo import known_as
from resnetkit.resizing import FULL
from resnetkit.weights.conventions import (
    CAFFE_BOTTLENECKS,
    CAFFE_NORMALIZATION,
    IMAGENET_VIEW,
    imagenet_classes,
)
from resnetkit.weights.format import Convention, Format, WeightsSource
from resnetkit.weights.hdf5 import check_installed, read_layers
from resnetkit.weights.layout import (
    STEM,
    Layer,
    LayerTensors,
    add_batch_counts,
    check_nothing_left,
    check_rgb,
    layers_in,
    our_names,
    put_layer,
    recognized,
    take,
)
from resnetkit.weights.network import TrainedNetwork, built
from resnetkit.weights.tensors import Tensors

__all__ = ["KERAS"]

NORM_EPS = 1.001e-5
CONVENTION = Convention(
    {**CAFFE_BOTTLENECKS, "norm_eps": (NORM_EPS,)},
    normalization=CAFFE_NORMALIZATION,
    view=IMAGENET_VIEW,
    counts_batches=False,
)

HEAD = "predictions"
CONVOLUTION = ("kernel", "bias")
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def names(layer: Layer) -> tuple[str, str]:
    """Returns the names of a convolution and its normalization in keras.applications."""
    block = f"conv{layer.stage + 1}_block{layer.block + 1}_{layer.number}"
    prefix = "conv1" if layer == STEM else block
    return f"{prefix}_conv", f"{prefix}_bn"


def is_keras(source: WeightsSource) -> bool:
    """Returns whether a file begins as HDF5 files do."""
    return source.configuration is None and source.beginning.startswith(b"\x89HDF\r\n\x1a\n")


def load_keras(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of a file of keras.applications.

    Raises:
        WeightsError: if the layers are not exactly those of such a network.
        UsageError: if h5py is not installed.
    """
    path = source.path
    layers = layers_of(path)
    tensors: Tensors = {}
    for layer in layers_in(list(layers), names):
        convolution, norm = names(layer)
        inputs = take(path, layers, convolution, CONVOLUTION)
        statistics = take(path, layers, norm, NORM)
        weight = permuted(path, convolution, inputs["kernel"], (3, 2, 0, 1))
        put_layer(
            path, tensors, layer, (weight, inputs["bias"]), [statistics[name] for name in NORM]
        )
    head = take(path, layers, HEAD, CONVOLUTION)
    tensors["fc.weight"] = permuted(path, HEAD, head["kernel"], (1, 0))
    tensors["fc.bias"] = head["bias"]
    check_nothing_left(path, layers)
    tensors["conv1.weight"] = tensors["conv1.weight"].flip(1)  # BGR to RGB
    add_batch_counts(tensors)
    architecture = recognized(path, tensors, stride_in="1x1", norm_eps=NORM_EPS)
    check_rgb(path, architecture)
    return TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=CAFFE_NORMALIZATION,
        class_names=imagenet_classes(architecture.num_classes),
        image_size=(224, 224),
        data="",
        origin=(
            f"{known_as(architecture) or 'a residual network'} of keras.applications, v1 (stride in"
            " the 1x1) as all of these, biases folded into the running means, first convolution"
            " turned from BGR to RGB, only the mean subtracted from images"
        ),
        format="keras",
        resize=FULL,
    )


def layers_of(path: Path) -> LayerTensors:
    """Returns the tensors of a file by layer and parameter."""
    try:
        flat = safetensors.torch.load(read_layers(path))
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is corrupt or not a file of weights.") from error
    layers: LayerTensors = {}
    for name, tensor in flat.items():
        layer, _, parameter = name.rpartition("/")
        layers.setdefault(layer, {})[parameter] = tensor
    return layers


def permuted(path: Path, name: str, kernel: Tensor, order: tuple[int, ...]) -> Tensor:
    """Returns a kernel with permuted dimensions."""
    if kernel.dim() != len(order):
        raise WeightsError(
            f"{path}: the kernel of '{name}' has the shape {tuple(kernel.shape)}, expected"
            f" {len(order)} sizes."
        )
    return kernel.permute(order)


def keras_bytes(network: TrainedNetwork, path: Path) -> bytes:
    """Returns a file as keras.applications publishes them; the biases of convolutions are zero.

    Raises:
        WeightsError: if Keras would read a file of that name as another format.
        UsageError: if h5py is missing.
    """
    if path.suffix not in (".h5", ".hdf5") or path.name.endswith(".weights.h5"):
        raise WeightsError(
            f"Keras would read {path.name} as another format: the name must end in .h5, but not in"
            " .weights.h5."
        )
    check_installed()
    import h5py

    stream = BytesIO()
    with h5py.File(stream, "w") as file:
        layers = their_layers(network)
        file.attrs["layer_names"] = np.array(list(layers), dtype="S")
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.2.4"
        for layer, parameters in layers.items():
            group: Any = file.create_group(layer)
            group.attrs["weight_names"] = np.array(
                [f"{layer}/{name}:0" for name in parameters], "S"
            )
            for name, tensor in parameters.items():
                group[f"{layer}/{name}:0"] = tensor.contiguous().numpy()
    return stream.getvalue()


WRITTEN_IN = ((1, 0), (1, 1), (2, 0), (2, 1), (0, 0), (3, 0), (0, 1), (3, 1))
"""Number of the convolution, and whether it is its normalization, in the order of Keras' layers:
Keras reads weights by order, not by name."""


def their_layers(network: TrainedNetwork) -> LayerTensors:
    """Returns the tensors of a network by Keras' layers and parameters, in Keras' order."""
    state = {name: tensor.cpu() for name, tensor in network.model.state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].flip(1)  # RGB to BGR
    positions = layers_in({name.rpartition(".")[0] for name in state}, our_names)
    pairs = [(position, is_norm) for position in positions for is_norm in (0, 1)]
    pairs.sort(key=lambda pair: (pair[0].stage, pair[0].block, rank(*pair)))
    layers: LayerTensors = {}
    for position, is_norm in pairs:
        ours, theirs = our_names(position)[is_norm], names(position)[is_norm]
        if is_norm:
            parameters = ("weight", "bias", "running_mean", "running_var")
            layers[theirs] = {
                name: state[f"{ours}.{our}"] for name, our in zip(NORM, parameters, strict=True)
            }
        else:
            kernel = state[f"{ours}.weight"].permute(2, 3, 1, 0)
            layers[theirs] = {"kernel": kernel, "bias": torch.zeros(kernel.shape[3])}
    layers[HEAD] = {"kernel": state["fc.weight"].T, "bias": state["fc.bias"]}
    return layers


def rank(layer: Layer, is_norm: int) -> int:
    """Returns the position of a layer in Keras' order of a block."""
    return WRITTEN_IN.index((layer.number, is_norm))


KERAS = Format("keras", CONVENTION, is_keras, load_keras, keras_bytes)
