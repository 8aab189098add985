"""Mixup and cutmix: two images in one, and their labels in the same proportion."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["mixed"]


def mixed(
    images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Returns a batch in which each image is mixed with the one before it, and its targets.

    With both, each batch draws one of the two. What is drawn depends on (seed, step) alone.

    Sources: Zhang et al. 2018, "mixup"; Yun et al. 2019, "CutMix".

    Args:
        images: float (B, C, H, W).
        targets: float (B, K), one-hot.
        mixup: both parameters of the beta distribution of the proportion; 0 is off.
        cutmix: likewise, of the share of the area that is kept.
        seed: of the run.
        step: from 0.

    Returns:
        The images, and targets: float (B, K), each row adding up to 1.
    """
    rng = np.random.default_rng([seed, step])
    cuts = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(rng.beta(alpha, alpha))
    others = images.roll(1, 0)
    if cuts:
        height, width = images.shape[2:]
        upper, lower = span(height, share, rng)
        left, right = span(width, share, rng)
        images = images.clone()
        images[:, :, upper:lower, left:right] = others[:, :, upper:lower, left:right]
        share = 1 - (lower - upper) * (right - left) / (height * width)
    else:
        images = torch.lerp(others, images, share)
    return images, torch.lerp(targets.roll(1, 0), targets, share)


def span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Returns where a cut begins and ends along one side: its middle anywhere, clipped at the edge.

    Args:
        length: of the side, pixels.
        share: of the area that is to be kept.
        rng: draws the middle.
    """
    half = round(length * (1 - share) ** 0.5) // 2
    middle = int(rng.integers(length))
    return max(0, middle - half), min(length, middle + half)
