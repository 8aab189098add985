"""Small drawn images, and folders of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def drawn(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Returns an image of smooth random colors, another one for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def folder_of_images(root: Path, classes: dict[str, int], *, first: int = 0) -> Path:
    """Writes so many JPEGs of each class; a class may be a path such as train/cat."""
    number = first
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            drawn(number).save(root / name / f"{number:04}.jpg", quality=92)
            number += 1
    return root


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    return drawn


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    return folder_of_images
