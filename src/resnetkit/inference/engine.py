"""What an engine is: pixels in, probabilities or features out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from resnetkit.errors import UsageError, did_you_mean, headless

__all__ = ["Engine", "Floats", "Pixels", "Scores", "check_head", "check_layer", "softmax"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]


class Engine(Protocol):
    """Computes a network. It does not change after its creation, so threads may share it.

    Attributes:
        name: torch, openvino or onnx.
        precision: of the computation: float32, bfloat16 or int8.
        origin: description of the network, for messages.
        layers: names that `features` takes, in the order of the network; the last ones are pool
            and, in a network with a head, fc.
        network_sha256: digest of everything that affects the output; features that were computed
            under the same digest can be compared.
    """

    @property
    def name(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def network_sha256(self) -> str: ...

    def probabilities(self, pixels: Pixels) -> Scores:
        """Returns softmax(logits): float64 (B, K).

        Args:
            pixels: uint8 (B, C, H, W), as returned by `EvalTransform.pixels`.

        Raises:
            OutOfMemory: when the batch does not fit into memory.
        """
        ...

    def features(self, pixels: Pixels, layer: str) -> Floats:
        """Returns the activations of a layer: float32 (B, D).

        Args:
            pixels: as for `probabilities`.
            layer: one of `layers`: fc, the logits; any other is averaged over space.

        Raises:
            OutOfMemory: as for `probabilities`.
        """
        ...


def softmax(logits: npt.NDArray[np.floating]) -> Scores:
    """Returns the probabilities of logits (B, K): float64 (B, K)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def check_head(engine: Engine) -> None:
    """Raises WeightsError for a network without a head, which cannot classify."""
    if "fc" not in engine.layers:
        raise headless(engine.origin)


def check_layer(layer: str, layers: Sequence[str]) -> None:
    """Raises UsageError for a layer that a network does not have."""
    if layer not in layers:
        raise UsageError(
            f"unknown layer '{layer}': expected one of {', '.join(layers)}."
            + did_you_mean(layer, layers)
        )
