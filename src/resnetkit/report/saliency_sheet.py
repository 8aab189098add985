"""An image next to its saliency maps."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from resnetkit.storage import write_file

__all__ = ["write_saliency_sheet"]


def write_saliency_sheet(
    path: Path, image: Tensor, maps: dict[str, Tensor], *, answer: str
) -> None:
    """Writes a PNG: the image, and the image under each map, warm where it supports the answer.

    Args:
        path: of the PNG.
        image: uint8 (C, H, W).
        maps: float (H, W) from 0 to 1, by the name of the method.
        answer: the prediction of the network.

    Raises:
        OSError: when it cannot be written.
    """
    pixels = image.permute(1, 2, 0).numpy()
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "text.parse_math": False}):
        figure = Figure(figsize=(3 * (1 + len(maps)), 3.4), dpi=120)
        panels = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
        for axes, (title, values) in zip(panels, {answer: None, **maps}.items(), strict=True):
            axes.imshow(pixels, interpolation="nearest")
            if values is not None:
                axes.imshow(values.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
            axes.set_title(title, fontsize=11)
            axes.set_axis_off()
        figure.tight_layout()
        content = io.BytesIO()
        figure.savefig(content, format="png")
    write_file(path, content.getvalue())
