"""Packs trained networks and digits for the page: JSON values with numbers in base64.

Normalization is folded into the convolutions, whose weights become integers of few bits with a
scale for each output channel. float32 takes too much room for four networks in one page, and
float16 rounds the logits by a thousandth (figures in docs/log.md).
"""

import base64
import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnetkit.data.dataset import Dataset
from resnetkit.data.splits import Split
from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.blocks import BasicBlock, Block, PadShortcut
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import known_as
from resnetkit.probes.hooks import blocks_of
from resnetkit.probes.lesions import removable_blocks
from resnetkit.weights.network import TrainedNetwork

__all__ = ["PackedDigits", "PackedNetwork", "pack_digits", "pack_network"]

TOLERANCE = 8e-5
"""Largest rounding error of a logit, as a fraction of the largest logit of the image. The page
promises 1e-4."""

BITS = range(16, 25)  # the page can read up to 24


@dataclass(frozen=True)
class PackedLayer:
    """The shape of a convolution with its normalization, or of the head, whose kernel is 1."""

    inputs: int
    outputs: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class PackedShortcut:
    """A shortcut.

    Attributes:
        kind: none in a plain block.
        stride: of option A.
        before: zero channels that option A puts before those of the input.
        outputs: channels of option A.
        layer: index of the projection in the layers of the network.
    """

    kind: Literal["none", "identity", "pad", "projection"]
    stride: int = 1
    before: int = 0
    outputs: int = 0
    layer: int = 0


@dataclass(frozen=True)
class PackedBlock:
    """A block.

    Attributes:
        name: as in probes/lesions, such as layer1.0.
        stage: name of the feature map of its stage, such as stage2.
        removable: whether it keeps channels and size.
        layers: indices of the layers of F.
        shortcut: its shortcut.
    """

    name: str
    stage: str
    removable: bool
    layers: tuple[int, ...]
    shortcut: PackedShortcut


@dataclass(frozen=True)
class PackedNetwork:
    """A trained network for the page.

    Attributes:
        name: such as resnet20.
        classes: names in the order of the logits.
        parameters: number of trained parameters.
        image: channels, height and width of its input.
        mean: of pixels of 0 to 255, for each channel or each value of the image.
        std: for each channel.
        layers: stem, layers of the blocks, head.
        blocks: in the order of computation.
        bits: of each weight.
        weights: integers of `bits` bits, highest bit first, plus 2^(bits - 1), in base64: those of
            all layers, each (outputs, inputs, kernel, kernel).
        scales: float32 of all output channels, by which their integers are multiplied.
        biases: float32 of all output channels.
        rounding: the largest rounding error of a logit on the images that it was measured on, as a
            fraction of the largest logit of the image.
    """

    name: str
    classes: tuple[str, ...]
    parameters: int
    image: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[PackedLayer, ...]
    blocks: tuple[PackedBlock, ...]
    bits: int
    weights: str
    scales: str
    biases: str
    rounding: float

    def as_json(self) -> dict[str, Any]:
        """Returns the value that the page reads."""
        return asdict(self)


@dataclass(frozen=True)
class PackedDigits:
    """Images for the page.

    Attributes:
        count: number of images.
        pixels: uint8 (count, C, H, W) in base64.
        labels: class of each.
        sample_ids: of each in the data set.
    """

    count: int
    pixels: str
    labels: tuple[int, ...]
    sample_ids: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the value that the page reads."""
        return asdict(self)


def pack_digits(dataset: Dataset, split: Split = "test") -> PackedDigits:
    """Packs the images of a split, in its order."""
    sample_ids = dataset.splits[split]
    return PackedDigits(
        count=len(sample_ids),
        pixels=encoded(dataset.images[sample_ids].numpy()),
        labels=tuple(dataset.labels[sample_ids].tolist()),
        sample_ids=tuple(sample_ids.tolist()),
    )


def pack_network(network: TrainedNetwork, images: Tensor) -> PackedNetwork:
    """Packs a network with the fewest bits a weight that keep its logits.

    Args:
        network: a trained network with a 3x3 stem and basic blocks, none of which dilates.
        images: uint8 (N, C, H, W), on which rounding is measured.

    Raises:
        ArchitectureError: when the page cannot compute such a network.
        WeightsError: when its logits are not finite.
    """
    check_computable(network)
    inputs = network.normalization(images)
    trained = logits(network.model, inputs)
    if not trained.isfinite().all():
        raise WeightsError(
            f"the network ({network.origin}) gives logits that are not finite: its training"
            " diverged. Choose a run that ended well."
        )
    folded = fold_normalization(network.model)
    for bits in BITS:
        rounding = largest_error(logits(rounded(folded, bits).float(), inputs), trained)
        if rounding <= TOLERANCE:
            break
    return packed(network, folded, bits, rounding)


def check_computable(network: TrainedNetwork) -> None:
    """Raises ArchitectureError for a network that the modules of the page cannot compute."""
    model = network.model
    basic = all(isinstance(block, BasicBlock) for block in blocks_of(model).values())
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    if (
        not basic
        or not isinstance(model.maxpool, nn.Identity)
        or any(layer.dilation != (1, 1) or layer.out_channels % 4 for layer in convolutions)
    ):
        raise ArchitectureError(
            f"the page computes CIFAR networks of basic blocks, which the network"
            f" ({network.origin}) is not: choose one such as resnet20 or plain56."
        )


def logits(model: ResNet, inputs: Tensor) -> Tensor:
    """Returns the logits of normalized images, float64 (N, K)."""
    with torch.inference_mode():
        return model(inputs).double()  # type: ignore[no-any-return]


def largest_error(rounded_logits: Tensor, trained: Tensor) -> float:
    """Returns the largest error of a logit as a fraction of the largest logit of its image."""
    errors = (rounded_logits - trained).abs().amax(1) / trained.abs().amax(1)
    return float(errors.max())


def fold_normalization(model: ResNet) -> ResNet:
    """Returns the same function in float64, with its normalization inside the convolutions."""
    folded = copy.deepcopy(model).double().eval()
    for convolution, norm in normalized_convolutions(folded):
        layer, bn = folded.get_submodule(convolution), folded.get_submodule(norm)
        if isinstance(layer, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            folded.set_submodule(convolution, fuse_conv_bn_eval(layer, bn))
            folded.set_submodule(norm, nn.Identity())
    return folded


def normalized_convolutions(model: ResNet) -> list[tuple[str, str]]:
    """Returns the names of all convolutions in order, each with its normalization."""
    pairs = [("conv1", "bn1")]
    for name, block in blocks_of(model).items():
        pairs += [(f"{name}.conv1", f"{name}.bn1"), (f"{name}.conv2", f"{name}.bn2")]
        if isinstance(block.downsample, nn.Sequential):
            pairs.append((f"{name}.downsample.0", f"{name}.downsample.1"))
    return pairs


def layers_of(folded: ResNet) -> list[nn.Conv2d | nn.Linear]:
    """Returns the convolutions in order, then the head."""
    layers: list[nn.Module] = [
        folded.get_submodule(convolution) for convolution, _ in normalized_convolutions(folded)
    ]
    return [layer for layer in [*layers, folded.fc] if isinstance(layer, nn.Conv2d | nn.Linear)]


def rounded(folded: ResNet, bits: int) -> ResNet:
    """Returns a network with the weights and biases that the page computes with."""
    model = copy.deepcopy(folded)
    for layer in layers_of(model):
        integers, scales = to_integers(layer.weight.detach(), bits)
        products = integers.double() * scales.double()[:, None]
        layer.weight.data = products.reshape(layer.weight.shape)
        if layer.bias is not None:
            layer.bias.data = layer.bias.data.float().double()
    return model


def to_integers(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Returns a weight as integers below 2^(bits - 1) and a scale for each output channel.

    Shapes: (outputs, ...) -> int64 (outputs, N), float32 (outputs,).
    """
    rows = weight.flatten(1)
    largest = 2 ** (bits - 1) - 1
    scales = (rows.abs().amax(1) / largest).float()
    divisors = torch.where(scales > 0, scales, 1).double()
    integers = (rows / divisors[:, None]).round().clamp(-largest, largest)
    return integers.to(torch.int64), scales


def packed(network: TrainedNetwork, folded: ResNet, bits: int, rounding: float) -> PackedNetwork:
    """Returns a network whose normalization is folded as the value of the page."""
    layers = layers_of(folded)
    pairs = [to_integers(layer.weight.detach(), bits) for layer in layers]
    height, width = network.image_size
    return PackedNetwork(
        name=known_as(network.architecture) or "network",
        classes=network.class_names,
        parameters=sum(parameter.numel() for parameter in network.model.parameters()),
        image=(network.architecture.in_channels, height, width),
        mean=tuple(network.normalization.mean.flatten().tolist()),
        std=tuple(network.normalization.std.flatten().tolist()),
        layers=tuple(map(packed_layer, layers)),
        blocks=packed_blocks(folded),
        bits=bits,
        weights=encoded_integers(torch.cat([integers.flatten() for integers, _ in pairs]), bits),
        scales=encoded_floats([scales for _, scales in pairs]),
        biases=encoded_floats([bias_of(layer) for layer in layers]),
        rounding=rounding,
    )


def packed_layer(layer: nn.Conv2d | nn.Linear) -> PackedLayer:
    """Returns the shape of a layer."""
    outputs, inputs = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        return PackedLayer(inputs, outputs, kernel=1, stride=1)
    return PackedLayer(inputs, outputs, kernel=layer.kernel_size[0], stride=layer.stride[0])


def packed_blocks(folded: ResNet) -> tuple[PackedBlock, ...]:
    """Returns the blocks in order."""
    names = [convolution for convolution, _ in normalized_convolutions(folded)]
    removable = removable_blocks(folded)
    stages = list(folded.feature_maps)
    blocks = []
    for name, block in blocks_of(folded).items():
        stage = int(name.split(".")[0].removeprefix("layer"))
        blocks.append(
            PackedBlock(
                name=name,
                stage=stages[stage],
                removable=name in removable,
                layers=(names.index(f"{name}.conv1"), names.index(f"{name}.conv2")),
                shortcut=packed_shortcut(name, block, names),
            )
        )
    return tuple(blocks)


def packed_shortcut(name: str, block: Block, names: list[str]) -> PackedShortcut:
    """Returns the shortcut of a block.

    Args:
        name: of the block.
        block: with folded normalization.
        names: of all convolutions in order.
    """
    shortcut = block.downsample
    if shortcut is None:
        return PackedShortcut("none")
    if isinstance(shortcut, nn.Identity):
        return PackedShortcut("identity")
    if isinstance(shortcut, PadShortcut):
        outputs = block.layers()[-1][0].get_parameter("weight").shape[0]
        return PackedShortcut("pad", shortcut.stride, shortcut.zeros[0], outputs)
    return PackedShortcut("projection", layer=names.index(f"{name}.downsample.0"))


def bias_of(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Returns the bias of a layer."""
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def encoded_integers(integers: Tensor, bits: int) -> str:
    """Returns integers plus 2^(bits - 1) in `bits` bits each, highest bit first, in base64."""
    offset = (integers.numpy() + 2 ** (bits - 1)).astype(">u4")
    columns = np.unpackbits(offset.view(np.uint8)).reshape(-1, 32)[:, 32 - bits :]
    return encoded(np.packbits(columns))


def encoded_floats(tensors: list[Tensor]) -> str:
    """Returns the values of tensors as little-endian float32 in base64."""
    return encoded(torch.cat(tensors).numpy().astype("<f4"))


def encoded(values: npt.NDArray[Any]) -> str:
    """Returns the bytes of an array in base64."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
