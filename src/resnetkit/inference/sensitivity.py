"""Which layers int8 harms: each one alone in int8, all others in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetkit.inference.engine import Pixels
from resnetkit.weights.network import TrainedNetwork

__all__ = ["LayerHarm", "harm_by_layer"]

LEVELS = 255  # between the least and the largest int8 or uint8

Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class LayerHarm:
    """What int8 does to a network in which only one layer is quantized.

    Attributes:
        layer: name of the module, such as layer2.0.conv1.
        changed: percentage of the images whose most probable class changes.
        logits_error: root mean square of the changes of logits, divided by that of the logits.
    """

    layer: str
    changed: float
    logits_error: float


def harm_by_layer(
    network: TrainedNetwork,
    pixels: Pixels,
    observe: Callable[[float], None] = lambda fraction: None,
) -> list[LayerHarm]:
    """Quantizes each convolution and the head alone, and compares the answers: the worst first.

    Weights are quantized symmetrically by output channel, and the input of the layer by the
    largest value that it takes on these images, as engines do.

    Args:
        network: on the processor, in evaluation mode.
        pixels: uint8 (B, C, H, W).
        observe: called with the fraction done, from 0 to 1.
    """
    layers = dict(quantizable(network.model))
    images = network.normalization(torch.from_numpy(pixels))
    harms = []
    with torch.inference_mode():
        with recorded_inputs(layers) as largest:
            expected = network.model(images)
        for index, (name, layer) in enumerate(layers.items()):
            with in_int8(layer, largest[name]):
                harms.append(compared(name, network.model(images), expected))
            observe((index + 1) / len(layers))
    return sorted(harms, key=lambda harm: (-harm.changed, -harm.logits_error))


def quantizable(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Yields the layers that int8 quantizes, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield name, module


def compared(name: str, logits: Tensor, expected: Tensor) -> LayerHarm:
    """Compares the logits (B, K) of a network in which a layer is quantized."""
    changed = (logits.argmax(1) != expected.argmax(1)).double().mean()
    error = (logits - expected).double().square().mean() / expected.double().square().mean()
    return LayerHarm(name, 100 * float(changed), float(error.sqrt()))


@contextmanager
def recorded_inputs(layers: dict[str, Layer]) -> Iterator[dict[str, Tensor]]:
    """Records the largest absolute input of each layer while the block runs."""
    largest: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest[name] = inputs[0].abs().amax()

        return hook

    handles = [layer.register_forward_pre_hook(record(name)) for name, layer in layers.items()]
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def in_int8(layer: Layer, largest_input: Tensor) -> Iterator[None]:
    """Rounds the weights and inputs of a layer to int8 while the block runs."""
    weight = layer.weight.data
    by_channel = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.dim() - 1))

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return rounded(inputs[0], largest_input, signed=bool((inputs[0] < 0).any()))

    handle = layer.register_forward_pre_hook(hook)
    try:
        layer.weight.data = rounded(weight, by_channel, signed=True)
        yield
    finally:
        handle.remove()
        layer.weight.data = weight


def rounded(values: Tensor, largest: Tensor, *, signed: bool) -> Tensor:
    """Returns values rounded to the 255 steps from -largest, or from 0, to largest."""
    step = largest.clamp(min=torch.finfo(torch.float32).tiny) * (2 if signed else 1) / LEVELS
    return torch.clamp((values / step).round() * step, -largest, largest)
