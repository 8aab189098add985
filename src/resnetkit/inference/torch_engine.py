"""The torch engine: pixels in, probabilities or features out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from resnetkit.errors import OutOfMemory, is_out_of_memory
from resnetkit.evaluation.evaluate import class_probabilities
from resnetkit.runtime.device import choose_device
from resnetkit.runtime.memory import keep_freed_memory
from resnetkit.runtime.precision import choose_precision
from resnetkit.weights.network import TrainedNetwork

__all__ = ["TorchEngine"]


class TorchEngine:
    """Runs a network on a device. It does not change after its creation, so threads may share it.

    Attributes:
        device: of the computation.
        precision: of the forward pass.
    """

    def __init__(
        self, network: TrainedNetwork, *, device: str = "auto", precision: str = "float32"
    ) -> None:
        """Moves a network to a device.

        Args:
            network: its model is moved, not copied.
            device: auto, cpu, cuda or cuda:N.
            precision: auto, float32 or bfloat16.

        Raises:
            UsageError: when the device does not exist.
        """
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        keep_freed_memory()
        self._model = network.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalization = network.normalization.to(self.device)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Returns softmax(logits): float64 (B, K), on the CPU.

        Args:
            pixels: uint8 (B, C, H, W), as returned by `EvalTransform.pixels`.

        Raises:
            OutOfMemory: when the batch does not fit into memory.
        """
        with self._computing():
            return class_probabilities(
                self._model, [self._normalization(pixels)], precision=self.precision
            )

    def features(self, pixels: Tensor, layer: str) -> Tensor:
        """Returns the activations of a layer: float32 (B, D), on the CPU.

        Args:
            pixels: as for `probabilities`.
            layer: a key of `ResNet.feature_maps`, averaged over space; pool, the last of them; or
                fc, the logits.

        Raises:
            OutOfMemory: as for `probabilities`.
        """
        name = list(self._model.feature_maps)[-1] if layer == "pool" else layer
        with self._computing(), self.precision.autocast():
            images = self._normalization(pixels)
            if layer == "fc":
                return self._model(images).float().cpu()
            maps = self._model.features(images, name)
            return self._model.avgpool(maps[name]).flatten(1).float().cpu()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Sets up the calling thread, and turns errors of torch into OutOfMemory."""
        torch.set_flush_denormal(True)  # for this thread, as in training and evaluation
        try:
            with torch.inference_mode():
                yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                "there is not enough memory for a batch of this size: use a smaller --batch-size."
            ) from error
        finally:
            torch.set_flush_denormal(False)
