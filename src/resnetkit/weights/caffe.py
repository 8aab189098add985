"""Weights of the authors, KaimingHe/deep-residual-networks: `.caffemodel` files.

What differs from torchvision: a BatchNorm layer holds sums and a factor, a Scale layer the learned
parameters; the first convolution of ResNet-50 has a bias; blocks stride in the first 1x1 (v1);
images are BGR and not divided; pooling is not padded and rounds up. From images the authors
subtract the mean of each pixel, which is a separate file.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.normalization import Normalization
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
from resnetkit.weights.layout import (
    STEM,
    Layer,
    LayerTensors,
    Names,
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
from resnetkit.weights.protobuf import Fields, Value, field, group_fields, packed, unpacked, varint
from resnetkit.weights.tensors import Tensors, check_values, is_safetensors, read_content

__all__ = ["CAFFE"]

CONVENTION = Convention(
    {**CAFFE_BOTTLENECKS, "pooling": ("ceil",)},
    normalization=CAFFE_NORMALIZATION,
    view=IMAGENET_VIEW,
    counts_batches=False,
)

# Numbers of fields in caffe.proto.
NET_NAME, NET_LAYERS_V1, NET_LAYER = 1, 2, 100
LAYER_NAME, LAYER_TYPE, LAYER_BOTTOM, LAYER_TOP, LAYER_BLOBS = 1, 2, 3, 4, 7
CONVOLUTION_PARAM, POOLING_PARAM, BATCH_NORM_PARAM, SCALE_PARAM = 106, 121, 139, 142
BLOB_SIZES_V1, BLOB_DATA, BLOB_SHAPE, BLOB_DOUBLES, SHAPE_SIZES = (1, 2, 3, 4), 5, 7, 8, 1
CONVOLUTION_OUTPUTS, CONVOLUTION_BIAS, CONVOLUTION_PAD = 1, 2, 3
CONVOLUTION_KERNEL, CONVOLUTION_STRIDE = 4, 6
POOLING_KERNEL, POOLING_STRIDE, POOLING_PAD = 2, 3, 4
NORM_EPS = 3

MEAN_FILE = "ResNet_mean.binaryproto"
LARGEST_NET = 2**30  # bytes; that of ResNet-152 has 240 MB
LARGEST_MEAN = 2**21  # bytes; three channels of 224x224 pixels in float64 have 1.2 MB
NUMBERED = (3, 4)  # stages whose blocks are called a, b1, b2, ... in networks of 101 and 152 layers
MOST_LETTERED = 6  # blocks, of ResNet-50


class MalformedError(ValueError):
    """Content that Caffe would not have written."""


def is_caffe(source: WeightsSource) -> bool:
    """Returns whether a file begins as a NetParameter does: with its name or a layer."""
    beginning = source.beginning
    if source.configuration is not None or is_safetensors(beginning):
        return False  # the length of a safetensors header may look like anything
    keys = [varint(number << 3 | 2) for number in (NET_NAME, NET_LAYERS_V1, NET_LAYER)]
    return any(beginning.startswith(key) for key in keys)


def names(numbered: bool) -> Names:
    """Returns the authors' names of a convolution and its normalization.

    Args:
        numbered: whether blocks of stages 3 and 4 are named a, b1, b2, ... instead of a, b, c.
    """

    def of_layer(layer: Layer) -> tuple[str, str]:
        if layer == STEM:
            return "conv1", "bn_conv1"
        stage = layer.stage + 1
        block = chr(ord("a") + layer.block) if layer.block < 26 else f"({layer.block})"
        if numbered and stage in NUMBERED and layer.block:
            block = f"b{layer.block}"
        branch = f"branch2{'abc'[layer.number - 1]}" if layer.number else "branch1"
        return f"res{stage}{block}_{branch}", f"bn{stage}{block}_{branch}"

    return of_layer


def scale_name(norm: str) -> str:
    """Returns the name of the Scale layer that follows a BatchNorm layer."""
    return norm.replace("bn", "scale", 1)


def load_caffe(source: WeightsSource) -> TrainedNetwork:
    """Builds the network of a `.caffemodel`.

    Raises:
        WeightsError: if it is corrupt, or its layers are not exactly those of such a network.
    """
    path = source.path
    try:
        return network_of(path, read_layers(path))
    except (ValueError, OSError) as error:
        raise WeightsError(
            f"{path} is corrupt or not a file of weights: {str(error)[:150]}. Download it again."
        ) from error


def network_of(path: Path, layers: dict[str, Fields]) -> TrainedNetwork:
    """Builds the network that layers make up.

    Raises:
        WeightsError: if they are not exactly those of such a network.
        ValueError: if one is corrupt.
    """
    blobs = {name: blobs_of(layer) for name, layer in layers.items() if LAYER_BLOBS in layer}
    naming = names("res3b1_branch2a" in blobs or "res4b1_branch2a" in blobs)
    positions = layers_in(list(blobs), naming)
    tensors = tensors_of(path, blobs, positions, naming)
    architecture = recognized(
        path,
        tensors,
        stride_in=stride_in(path, layers, positions, naming),
        pooling="ceil",
        norm_eps=norm_eps(path, layers),
    )
    check_rgb(path, architecture)
    check_pooling(path, layers)
    mean, mean_description = mean_of(path)
    return TrainedNetwork(
        model=built(path, architecture, tensors),
        architecture=architecture,
        normalization=Normalization(mean, torch.ones(3, 1, 1)),
        class_names=imagenet_classes(architecture.num_classes),
        image_size=(224, 224),
        data="",
        origin=(
            f"{known_as(architecture) or 'a residual network'} of Caffe, as the authors publish"
            f" theirs: {'v1' if architecture.stride_in == '1x1' else 'v1.5'} (stride in the"
            f" {architecture.stride_in}), statistics divided by their factor, first convolution"
            f" turned from BGR to RGB, pooling rounded up, {mean_description} subtracted from"
            " images"
        ),
        format="caffe",
        resize=FULL,
    )


MOST_LAYERS = 5_000  # ResNet-152 has 700, a network of 1,001 layers would have 4,000


def read_layers(path: Path) -> dict[str, Fields]:
    """Returns the layers of a file by name.

    Raises:
        ValueError: if it is not a NetParameter.
        WeightsError: if it cannot be read.
    """
    net = group_fields(memoryview(read_content(path, LARGEST_NET)), MOST_LAYERS)
    if NET_LAYERS_V1 in net:
        raise MalformedError(
            "it was written by a version of Caffe before 2015, which has no batch normalization"
        )
    layers: dict[str, Fields] = {}
    for content in net.get(NET_LAYER, []):
        layer = group_fields(content)
        name = text(layer, LAYER_NAME)
        if name in layers:
            raise MalformedError(f"it has two layers named '{name[:50]}'")
        layers[name] = layer
    if not layers:
        raise MalformedError("it has no layers")
    return layers


def text(message: Fields, number: int) -> str:
    """Returns a text field; empty where there is none."""
    value = last(message, number, b"")
    if isinstance(value, int):
        raise MalformedError("it has a number where text belongs")
    return bytes(value).decode()


def last(message: Fields, number: int, default: Any) -> Any:
    """Returns the last value of a field, which is the one that counts."""
    return message[number][-1] if number in message else default


def blobs_of(layer: Fields) -> Tensors:
    """Returns the tensors of a layer, named 0, 1, 2."""
    return {str(number): blob(value) for number, value in enumerate(layer.get(LAYER_BLOBS, []))}


def blob(message: Value) -> Tensor:
    """Returns the tensor of a BlobProto.

    Raises:
        ValueError: if there are not as many numbers as the shape says.
    """
    blob_fields = group_fields(message)
    kind = "<f8" if BLOB_DOUBLES in blob_fields else "<f4"
    values = blob_fields.get(BLOB_DOUBLES, blob_fields.get(BLOB_DATA, []))
    if any(isinstance(value, int) for value in values):
        raise MalformedError("it has integers where weights belong")
    content = b"".join(value for value in values if not isinstance(value, int))
    shape = blob_shape(blob_fields)
    if math.prod(shape) * int(kind[-1]) != len(content) or not content:
        raise MalformedError(f"{len(content):,} bytes do not fit the shape {str(shape)[:50]}")
    numbers = np.frombuffer(content, dtype=kind).astype(np.float32)
    return torch.from_numpy(numbers.reshape(shape))


def blob_shape(blob_fields: Fields) -> tuple[int, ...]:
    """Returns the sizes of a blob, in the present or the older encoding."""
    if BLOB_SHAPE in blob_fields:
        return tuple(unpacked(group_fields(blob_fields[BLOB_SHAPE][-1]).get(SHAPE_SIZES, [])))
    return tuple(integer(last(blob_fields, number, 0)) for number in BLOB_SIZES_V1)


def integer(value: Value) -> int:
    """Returns the value of a field that must be a number."""
    if not isinstance(value, int):
        raise MalformedError("it has bytes where a number belongs")
    return value


def tensors_of(
    path: Path, blobs: LayerTensors, positions: Iterable[Layer], naming: Names
) -> Tensors:
    """Returns tensors by our names; every blob must be used."""
    tensors: Tensors = {}
    for position in positions:
        convolution, norm = naming(position)
        kernel = take(path, blobs, convolution, ("0",), optional=("1",))
        bias = without_ones(kernel["1"], 1) if "1" in kernel else None
        statistics = take(path, blobs, norm, ("0", "1", "2"))
        scales = take(path, blobs, scale_name(norm), ("0", "1"))
        factor = statistics["2"].flatten()
        if len(factor) != 1:
            raise WeightsError(f"{path}: the factor of '{norm}' has {len(factor)} values.")
        # Caffe's own rule: a factor of 0 stands for statistics that were never gathered.
        inverse = torch.zeros(()) if factor[0] == 0 else 1 / factor[0]
        vectors = [scales["0"], scales["1"], statistics["0"] * inverse, statistics["1"] * inverse]
        put_layer(
            path,
            tensors,
            position,
            (kernel["0"], bias),
            [without_ones(vector, 1) for vector in vectors],
        )
    add_head(path, blobs, tensors)
    check_nothing_left(path, blobs)
    if tensors["conv1.weight"].dim() == 4:
        tensors["conv1.weight"] = tensors["conv1.weight"].flip(1)  # BGR to RGB
    add_batch_counts(tensors)
    return tensors


def add_head(path: Path, blobs: LayerTensors, tensors: Tensors) -> None:
    """Adds the head, whose name is fc and the number of classes."""
    heads = [name for name in blobs if name.startswith("fc")]
    if len(heads) != 1:
        raise WeightsError(f"{path} has {len(heads)} layers named fc...: expected one, the head.")
    head = take(path, blobs, heads[0], ("0", "1"))
    tensors["fc.weight"] = without_ones(head["0"], 2)
    tensors["fc.bias"] = without_ones(head["1"], 1)


def without_ones(tensor: Tensor, dimensions: int) -> Tensor:
    """Returns a tensor without the leading dimensions of size 1 that older files add."""
    while tensor.dim() > dimensions and tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor


def stride_in(
    path: Path, layers: dict[str, Fields], positions: Iterable[Layer], naming: Names
) -> str:
    """Returns where the blocks stride: by their layers, or in the first 1x1 as the authors' do.

    Raises:
        WeightsError: if some stride elsewhere.
    """
    strides_of_stages = set()
    for stage in {position.stage for position in positions if position.stage > 1}:
        strides = [
            stride_of(layers[naming(Layer(stage, 0, number))[0]])
            for number in (1, 2)
            if naming(Layer(stage, 0, number))[0] in layers
        ]
        strides_of_stages.add(tuple(strides))
    variants = {(2, 1): "1x1", (1, 2): "3x3", (0, 0): "1x1"}
    if len(strides_of_stages) == 1 and (only := strides_of_stages.pop()) in variants:
        return variants[only]
    if not strides_of_stages and not any(position.stage > 1 for position in positions):
        return "1x1"
    raise WeightsError(
        f"{path} has blocks with the strides {sorted(strides_of_stages)}: expected 2 in the"
        " first 1x1 (v1) or in the 3x3 (v1.5) of the first block of each stage."
    )


def stride_of(layer: Fields) -> int:
    """Returns the stride of a convolution; 0 if the file holds no parameters of layers."""
    if CONVOLUTION_PARAM not in layer:
        return 0
    strides = unpacked(parameters(layer, CONVOLUTION_PARAM).get(CONVOLUTION_STRIDE, []))
    return strides[0] if strides else 1


def parameters(layer: Fields, number: int) -> Fields:
    """Returns the parameters of a layer.

    Raises:
        ValueError: if they are not a message.
    """
    return group_fields(layer[number][-1])


def norm_eps(path: Path, layers: dict[str, Fields]) -> float:
    """Returns what all BatchNorm layers add to the variance: 1e-5 by default."""
    values = set()
    for layer in layers.values():
        if BATCH_NORM_PARAM in layer:
            value = last(parameters(layer, BATCH_NORM_PARAM), NORM_EPS, b"")
            content = b"" if isinstance(value, int) else bytes(value)
            # The shortest number that is the same in float32: 1e-5, not 9.99999975e-06.
            values.add(float(str(np.frombuffer(content, "<f4")[0])) if len(content) == 4 else 1e-5)
    if len(values) > 1:
        raise WeightsError(
            f"{path} adds {sorted(values)} to variances: expected the same everywhere."
        )
    return values.pop() if values else 1e-5


def check_pooling(path: Path, layers: dict[str, Fields]) -> None:
    """Checks that the stem pools as the authors' does, if the file states it."""
    if "pool1" in layers and POOLING_PARAM in layers["pool1"]:
        pooling = parameters(layers["pool1"], POOLING_PARAM)
        expected = {POOLING_KERNEL: 3, POOLING_STRIDE: 2, POOLING_PAD: 0}
        defaults = {POOLING_KERNEL: 3, POOLING_STRIDE: 1, POOLING_PAD: 0}
        actual = {number: last(pooling, number, defaults[number]) for number in expected}
        if actual != expected:
            raise WeightsError(
                f"{path} does not pool after the first convolution as the authors' networks do:"
                " expected windows of 3, a stride of 2 and no padding."
            )


def mean_of(path: Path) -> tuple[Tensor, str]:
    """Returns the mean to subtract, of pixels or channels, and its description for messages.

    Raises:
        WeightsError: if the mean image is corrupt.
    """
    mean_file = path.with_name(MEAN_FILE)
    if not os.path.lexists(mean_file):  # a broken link is an error
        description = f"the mean of each channel ({MEAN_FILE} is not next to it)"
        return CAFFE_NORMALIZATION.mean, description
    try:
        image = without_ones(blob(memoryview(read_content(mean_file, LARGEST_MEAN))), 3)
    except ValueError as error:
        raise WeightsError(f"{mean_file} is corrupt: {str(error)[:150]}.") from error
    if image.shape != (3, 224, 224):
        raise WeightsError(
            f"{mean_file} has the shape {tuple(image.shape)}, expected (3, 224, 224)."
        )
    check_values(mean_file, {"mean": image})
    return image.flip(0), f"the mean image of {MEAN_FILE} next to it"


def caffe_bytes(network: TrainedNetwork, path: Path) -> bytes:
    """Returns a NetParameter: layers with weights, their kinds, parameters and weights.

    Raises:
        WeightsError: if the folder holds a mean image that would be taken for the network's.
    """
    if os.path.lexists(path.with_name(MEAN_FILE)):
        raise WeightsError(
            f"{path.with_name(MEAN_FILE)} is in that folder, and would be taken for this network's"
            " mean. Choose another folder."
        )
    state = {name: tensor.cpu() for name, tensor in network.model.state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].flip(1)  # RGB to BGR
    depths = network.architecture.depths
    naming = names(max(depths) > MOST_LETTERED)
    content = [field(NET_NAME, known_as(network.architecture) or "resnet")]
    for position in layers_in({name.rpartition(".")[0] for name in state}, our_names):
        content += layers_of(network, state, position, naming)
        if position == STEM:
            pooling = field(POOLING_KERNEL, 3) + field(POOLING_STRIDE, 2)
            content.append(layer_bytes("pool1", "Pooling", [], {POOLING_PARAM: pooling}))
    head = [state["fc.weight"], state["fc.bias"]]
    content.append(layer_bytes(f"fc{len(state['fc.bias'])}", "InnerProduct", head, {}))
    return b"".join(content)


def layers_of(
    network: TrainedNetwork, state: Tensors, position: Layer, naming: Names
) -> Iterable[bytes]:
    """Yields a convolution, its BatchNorm and its Scale layer."""
    (convolution, norm), (ours, our_norm) = naming(position), our_names(position)
    module: Any = network.model.get_submodule(ours)
    parameters = (
        field(CONVOLUTION_OUTPUTS, module.out_channels)
        + field(CONVOLUTION_BIAS, 0)
        + packed(CONVOLUTION_PAD, module.padding[:1])
        + packed(CONVOLUTION_KERNEL, module.kernel_size[:1])
        + packed(CONVOLUTION_STRIDE, module.stride[:1])
    )
    weight = [state[f"{ours}.weight"]]
    yield layer_bytes(convolution, "Convolution", weight, {CONVOLUTION_PARAM: parameters})
    statistics = [state[f"{our_norm}.running_mean"], state[f"{our_norm}.running_var"]]
    yield layer_bytes(norm, "BatchNorm", [*statistics, torch.ones(1)], {BATCH_NORM_PARAM: b""})
    learned = [state[f"{our_norm}.weight"], state[f"{our_norm}.bias"]]
    yield layer_bytes(scale_name(norm), "Scale", learned, {SCALE_PARAM: field(2, 1)})


def layer_bytes(
    name: str, kind: str, blobs: Sequence[Tensor], parameters: dict[int, bytes]
) -> bytes:
    """Returns a layer as a field of a NetParameter."""
    content = [field(LAYER_NAME, name), field(LAYER_TYPE, kind)]
    for tensor in blobs:
        shape = field(BLOB_SHAPE, packed(SHAPE_SIZES, tuple(tensor.shape)))
        data = field(BLOB_DATA, tensor.contiguous().numpy().astype("<f4").tobytes())
        content.append(field(LAYER_BLOBS, shape + data))
    content += [field(number, values) for number, values in parameters.items()]
    return field(NET_LAYER, b"".join(content))


CAFFE = Format("caffe", CONVENTION, is_caffe, load_caffe, caffe_bytes)
