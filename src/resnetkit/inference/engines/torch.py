"""The engine torch: a network of any format, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch

from resnetkit.errors import OutOfMemory, is_out_of_memory
from resnetkit.evaluation.evaluate import class_probabilities
from resnetkit.inference.engine import Floats, Pixels, Scores
from resnetkit.inference.features import network_sha256
from resnetkit.runtime.device import choose_device, full_float32
from resnetkit.runtime.memory import keep_freed_memory
from resnetkit.runtime.precision import choose_precision
from resnetkit.runtime.resources import usable_processors
from resnetkit.weights.network import TrainedNetwork

__all__ = ["TorchEngine"]


class TorchEngine:
    """Runs a network on a device; see `Engine`.

    Attributes:
        name: torch.
        network: of which the model is on the device.
        device: of the computation.
    """

    name = "torch"

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
        self.network = network
        self._precision = choose_precision(precision, self.device)
        keep_freed_memory()
        torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
        self._model = network.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalization = network.normalization.to(self.device)

    @property
    def precision(self) -> str:
        """Returns float32 or bfloat16."""
        return self._precision.name

    @property
    def origin(self) -> str:
        """Returns the description of the network."""
        return self.network.origin

    @property
    def layers(self) -> tuple[str, ...]:
        """Returns the keys of `ResNet.feature_maps`, pool, and fc of a network with a head."""
        head = ("fc",) if self.network.has_head else ()
        return (*self._model.feature_maps, "pool", *head)

    @cached_property
    def network_sha256(self) -> str:
        """Returns the digest of the network; see `features.network_sha256`."""
        return network_sha256(self.network)

    def probabilities(self, pixels: Pixels) -> Scores:
        with self._computing():
            images = self._normalization(torch.from_numpy(pixels))
            return class_probabilities(self._model, [images], precision=self._precision).numpy()

    def features(self, pixels: Pixels, layer: str) -> Floats:
        name = list(self._model.feature_maps)[-1] if layer == "pool" else layer
        with self._computing(), self._precision.autocast():
            images = self._normalization(torch.from_numpy(pixels))
            if layer == "fc":
                return self._model(images).float().cpu().numpy()
            maps = self._model.features(images, name)
            return self._model.avgpool(maps[name]).flatten(1).float().cpu().numpy()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Sets up the calling thread, and turns errors of torch into OutOfMemory."""
        torch.set_flush_denormal(True)  # for this thread, as in training and evaluation
        try:
            with torch.inference_mode(), full_float32(self.device):
                yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                "there is not enough memory for a batch of this size: use a smaller --batch-size"
                " where the command has it, or a smaller network."
            ) from error
        finally:
            torch.set_flush_denormal(False)
