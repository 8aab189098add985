"""Saliency maps on request, for networks that torch computes."""

import base64
import io
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.errors import OutOfMemory, is_out_of_memory
from resnetkit.inference.engine import Engine, Pixels

if TYPE_CHECKING:
    from resnetkit.inference.engines.torch import TorchEngine
    from resnetkit.models.resnet import ResNet

__all__ = ["METHODS", "Explained", "Explainer", "data_url", "explainer_of"]

METHODS = ("grad-cam", "integrated-gradients")


@dataclass(frozen=True, eq=False)
class Explained:
    """A saliency map.

    Attributes:
        label: of the class that is explained.
        pixels: that the network takes, uint8 (C, H, W).
        values: of the map, float32 (H, W) from 0 to 1.
    """

    label: int
    pixels: Pixels
    values: npt.NDArray[np.float32]


class Explainer:
    """Computes saliency maps with a copy of a network, in one thread at a time.

    A copy, because the methods of captum add hooks, which would record what the engine computes.

    Args:
        engine: of the network.
    """

    def __init__(self, engine: "TorchEngine") -> None:
        self._engine = engine
        self._model: ResNet | None = None

    def explain(self, pixels: Pixels, method: str, label: int | None) -> Explained:
        """Returns a map of the pixels, uint8 (C, H, W).

        Args:
            pixels: of the image.
            method: one of `METHODS`.
            label: of the class that is explained; None for the most probable one.

        Raises:
            OutOfMemory: when there is not enough memory.
        """
        try:
            return self._explained(pixels, method, label)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory("there is not enough memory for a saliency map.") from error

    def _explained(self, pixels: Pixels, method: str, label: int | None) -> Explained:
        import torch

        from resnetkit.probes.saliency import grad_cam, integrated_gradients

        engine = self._engine
        if self._model is None:
            self._model = deepcopy(engine.network.model)
        if label is None:
            label = int(engine.probabilities(pixels[None])[0].argmax())
        compute = grad_cam if method == METHODS[0] else integrated_gradients
        image = torch.from_numpy(pixels).to(engine.device)
        normalized = engine.network.normalization.to(engine.device)(image[None])[0]
        values = compute(self._model, normalized, label)
        return Explained(label, pixels, values.float().cpu().numpy())


def explainer_of(engine: Engine) -> Explainer | None:
    """Returns the explainer of a network of torch; None for others, or without captum."""
    if engine.name != "torch" or "fc" not in engine.layers or find_spec("captum") is None:
        return None
    from resnetkit.inference.engines.torch import TorchEngine

    return Explainer(engine) if isinstance(engine, TorchEngine) else None


def data_url(values: npt.NDArray[np.uint8]) -> str:
    """Returns pixels, uint8 (C, H, W) or (H, W), as the address of a PNG image."""
    rows = values if values.ndim == 2 else values.transpose(1, 2, 0)
    rows = rows[:, :, 0] if rows.ndim == 3 and rows.shape[2] == 1 else rows
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rows)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
