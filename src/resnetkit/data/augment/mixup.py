"""Mixup and cutmix: two images are mixed, and their labels in the same proportion."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["mixed"]


def mixed(
    images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Returns a batch whose images are each mixed with the one before, and the mixed targets.

    With both, one of the two is drawn for each batch. The draws depend on (seed, step) alone.

    Sources: Zhang et al. 2018, "mixup"; Yun et al. 2019, "CutMix".

    Args:
        images: float (B, C, H, W).
        targets: float (B, K), one-hot.
        mixup: both parameters of the beta distribution of the weight of an image; 0 is off.
        cutmix: likewise, of the fraction of the area that is kept.
        seed: of the run.
        step: from 0.

    Returns:
        The images, and targets: float (B, K), with rows that add up to 1.
    """
    rng = np.random.default_rng([seed, step])
    cuts = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if cuts else mixup
    weight = float(rng.beta(alpha, alpha))
    others = images.roll(1, 0)
    if cuts:
        height, width = images.shape[2:]
        upper, lower = span(height, weight, rng)
        left, right = span(width, weight, rng)
        images = images.clone()
        images[:, :, upper:lower, left:right] = others[:, :, upper:lower, left:right]
        weight = 1 - (lower - upper) * (right - left) / (height * width)
    else:
        images = torch.lerp(others, images, weight)
    return images, torch.lerp(targets.roll(1, 0), targets, weight)


def span(length: int, kept_fraction: float, rng: np.random.Generator) -> tuple[int, int]:
    """Returns the first and the last pixel of a cut along one side, clipped at the edge.

    Args:
        length: of the side, pixels.
        kept_fraction: fraction of the area that is not cut.
        rng: draws the middle of the cut.
    """
    half = round(length * (1 - kept_fraction) ** 0.5) // 2
    middle = int(rng.integers(length))
    return max(0, middle - half), min(length, middle + half)
