"""Saliency maps on request, for networks that torch computes."""

import base64
import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.inference.engine import Pixels
from resnetkit.inference.predictor import Predictor

__all__ = ["METHODS", "can_explain", "data_url", "saliency_function"]

METHODS = ("grad-cam", "integrated-gradients")


def can_explain(predictor: Predictor) -> bool:
    """Returns whether maps can be computed: torch computes the network, captum is installed."""
    engine = predictor.engine
    return engine.name == "torch" and "fc" in engine.layers and find_spec("captum") is not None


def saliency_function(
    predictor: Predictor, method: str, label: int | None
) -> Callable[[Pixels], list[tuple[int, npt.NDArray[np.float32]]]]:
    """Returns the function from pixels to labels and saliency maps, float32 (H, W) from 0 to 1.

    It changes hooks of the network for a while, so that nothing else may use it meanwhile: the
    thread of the engine calls it.

    Args:
        predictor: of which `can_explain` is true.
        method: one of `METHODS`.
        label: of the class that is explained; None for the most probable one.
    """

    def explained(pixels: Pixels) -> list[tuple[int, npt.NDArray[np.float32]]]:
        import torch

        from resnetkit.inference.engines.torch import TorchEngine
        from resnetkit.probes.saliency import grad_cam, integrated_gradients

        engine = predictor.engine
        assert isinstance(engine, TorchEngine)
        chosen = int(engine.probabilities(pixels)[0].argmax()) if label is None else label
        network = engine.network
        compute: Any = grad_cam if method == "grad-cam" else integrated_gradients
        image = torch.from_numpy(pixels).to(engine.device)
        normalized = network.normalization.to(engine.device)(image)[0]
        values = compute(network.model, normalized, chosen)
        return [(chosen, values.float().cpu().numpy())]

    return explained


def data_url(values: npt.NDArray[np.uint8]) -> str:
    """Returns pixels, uint8 (C, H, W) or (H, W), as the address of a PNG image."""
    rows = values if values.ndim == 2 else values.transpose(1, 2, 0)
    rows = rows[:, :, 0] if rows.ndim == 3 and rows.shape[2] == 1 else rows
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rows)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
