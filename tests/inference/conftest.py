"""Small networks that have learned nothing, and drawn images for them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.normalization import Normalization
from resnetkit.models.zoo import find_architecture
from resnetkit.weights.network import TrainedNetwork


def random_network(
    *,
    name: str = "resnet20",
    data: str = "photos",
    channels: int = 3,
    size: tuple[int, int] = (24, 24),
    classes: int = 7,
    names: bool = True,
    crop_pct: float = 0.875,
    widths: tuple[int, ...] | None = None,
    **options: Any,
) -> TrainedNetwork:
    """Returns a network with drawn weights and running statistics."""
    architecture = find_architecture(name).with_options(
        num_classes=classes, in_channels=channels, **options
    )
    if widths is not None:
        architecture = replace(architecture, widths=widths)
    generator = torch.Generator().manual_seed(3)
    model = architecture.build(generator).eval()
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(std=0.1, generator=generator)
    model.fc.weight.data *= 20  # answers that differ from image to image
    return TrainedNetwork(
        crop_pct=crop_pct,
        model=model,
        architecture=architecture,
        normalization=Normalization(
            torch.tensor([120.0, 110.0, 100.0])[:channels, None, None],
            torch.tensor([60.0, 61.0, 62.0])[:channels, None, None],
        ),
        class_names=tuple(f"kind {label}" for label in range(classes)) if names else (),
        image_size=size,
        data=data,
        origin=f"a drawn {name}",
    )


def drawn(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Returns an image of smooth random colors, another one for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., TrainedNetwork]:
    return random_network


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    return drawn


@pytest.fixture
def good_and_bad(tmp_path: Path) -> list[Path]:
    """Writes images of several sizes, with bad files among them."""
    sizes = [(40, 30), (30, 40), (24, 24), (101, 67), (25, 50), (64, 64)]
    paths = []
    for number, size in enumerate(sizes):
        paths.append(tmp_path / f"{number}.png")
        drawn(number, size).save(paths[-1])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:300])
    bad = [tmp_path / name for name in ("empty.jpg", "text.jpg", "cut.png", "missing.jpg")]
    return [bad[0], paths[0], paths[1], bad[1], bad[2], *paths[2:5], bad[3], paths[5], paths[0]]
