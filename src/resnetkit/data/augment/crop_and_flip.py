"""Batched augmentation, equal on all devices, drawn from (seed, epoch, sample id)."""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from resnetkit.data.draws import Draws, Stream
from resnetkit.schema import Fraction, Pixels, Real, Section, Whole

__all__ = [
    "Augmentation",
    "Color",
    "Crop",
    "Flip",
    "Padding",
    "Policy",
    "augment",
    "color_shifts",
    "crop_and_flip",
    "erased",
    "flipped",
    "measure_color_axes",
]

Flip = Literal["none", "random", "alternating"]
Padding = Literal["zeros", "reflect"]
Crop = Literal["padded", "area", "scale"]
Color = Literal["none", "pca"]
Policy = Literal["none", "trivial"]


class Augmentation(Section):
    """Augmentation of images in training.

    Attributes:
        crop: random crops in training. `padded`: from the image padded on each side (He et al.
            2015, sec. 4.2); `area`: a random fraction of the area with a random aspect ratio
            (Szegedy et al. 2015, sec. 6); `scale`: a square, after the shorter side is resized to a
            random length (He et al. 2015, sec. 3.4). The last two are for your images.
        crop_padding: for `padded`, pixels on each side; 0 crops nothing.
        padding: for `padded`, what the image is padded with, after normalization: zeros, which are
            the mean, or reflections.
        area: for `area`, smallest and largest fraction of the image.
        side: for `scale`, smallest and largest length of the shorter side, in pixels.
        flip: horizontal flips of half of all images, or of each image in every second epoch, from
            a random start; refused for data whose flipped images belong to another class.
        color: with `pca`, colors are shifted along their principal axes (Krizhevsky et al. 2012,
            sec. 4.1).
        policy: with `trivial`, one random operation of random strength on each of your images
            (trivial augmentation).
        erasing: fraction of the images in which a random box is erased (Zhong et al. 2017).
        mixup: parameter of the beta distribution by which two images and their labels are mixed
            (Zhang et al. 2018); 0 is off.
        cutmix: the same for boxes that are pasted from another image (Yun et al. 2019); 0 is off.
    """

    crop: Crop = "padded"
    crop_padding: Whole = Field(default=0, ge=0)
    padding: Padding = "zeros"
    area: tuple[Fraction, Fraction] = (0.08, 1.0)
    side: tuple[Pixels, Pixels] = (256, 480)
    flip: Flip = "none"
    color: Color = "none"
    policy: Policy = "none"
    erasing: Real = Field(default=0.0, ge=0, le=1)
    mixup: Real = Field(default=0.0, ge=0, le=10)
    cutmix: Real = Field(default=0.0, ge=0, le=10)

    @property
    def mixes(self) -> bool:
        """Returns whether two images are mixed into one, with their labels."""
        return self.mixup > 0 or self.cutmix > 0

    @model_validator(mode="after")
    def check_combination(self) -> Self:
        if self.policy != "none" and self.crop == "padded":
            raise ValueError(
                f"policy '{self.policy}' goes with the crops of custom images, area or scale"
            )
        for name, (low, high) in {"area": self.area, "side": self.side}.items():
            if low > high:
                raise ValueError(f"{name} is ({low}, {high}): expected the smaller one first")
        return self


ERASED_AREA = (0.02, 1 / 3)  # smallest and largest fraction of the image: Zhong et al. 2017
ERASED_SHAPE = (0.3, 1 / 0.3)  # height to width

COLOR_DEVIATION = 0.1  # of the shift along an axis, relative to its eigenvalue: the same source


def measure_color_axes(images: Tensor) -> Tensor:
    """Measures the principal axes of the colors of pixels.

    Args:
        images: uint8 (N, 3, H, W).

    Returns:
        float64 (3, 3): in each column a principal axis times the variance along it, for pixels from
        0 to 1.
    """
    pixels = images.permute(1, 0, 2, 3).flatten(1).to(torch.float64) / 255
    variances, axes = torch.linalg.eigh(torch.cov(pixels))
    return axes * variances


def color_shifts(draws: Draws, axes: Tensor) -> Tensor:
    """Returns the shift of the color of each image: float32 (B, 3, 1, 1), for pixels to 255.

    Source: Krizhevsky et al. 2012, sec. 4.1.

    Args:
        draws: of B samples.
        axes: as `measure_color_axes` returns them.
    """
    normals = [draws.normals(Stream.COLOR, 2 * axis) for axis in range(3)]
    shifts = COLOR_DEVIATION * torch.stack(normals, 1) @ axes.T * 255
    return shifts.to(torch.float32)[:, :, None, None]


def augment(
    images: Tensor,
    draws: Draws,
    *,
    crop_padding: int,
    padding: Padding = "zeros",
    flip: Flip = "none",
    size: int = 0,
) -> Tensor:
    """Returns each image cropped at a random position, and flipped or not.

    Source: He et al. 2015, sec. 4.2: 4 pixels are padded on each side and a crop of the old size
    is taken from the padded image or its horizontal flip.

    Args:
        images: float (B, C, H, W), normalized.
        draws: of these B samples.
        crop_padding: pixels on each side; 0 for no shift.
        padding: see `Augmentation`.
        flip: see `Augmentation`.
        size: side of the crops, in pixels; 0 keeps height and width.

    Returns:
        float (B, C, H, W), or (B, C, size, size), in channels-last memory.
    """
    mode = "constant" if padding == "zeros" else "reflect"
    padded = functional.pad(images, (crop_padding,) * 4, mode=mode) if crop_padding else images
    window = (size or images.shape[2], size or images.shape[3])
    rows = draws.integers(Stream.ROW, padded.shape[2] - window[0] + 1)
    columns = draws.integers(Stream.COLUMN, padded.shape[3] - window[1] + 1)
    return crop_and_flip(padded, rows, columns, flips(draws, flip), size=window)


def flipped(images: Tensor, draws: Draws, flip: Flip) -> Tensor:
    """Returns images (B, C, H, W), flipped horizontally where `flips` draws it."""
    return torch.where(flips(draws, flip)[:, None, None, None], images.flip(3), images)


def erased(images: Tensor, draws: Draws, probability: float) -> Tensor:
    """Returns the images, some of them with a random box set to zero, the mean.

    Source: Zhong et al. 2017, "Random Erasing", with boxes that do not fit clipped at the edge.

    Args:
        images: float (B, C, H, W), normalized.
        draws: of these B samples.
        probability: of a box in an image.
    """
    chance, area, shape, down, across = (draws.units(Stream.ERASING, index) for index in range(5))
    height, width = images.shape[2:]
    pixels = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area)
    low, high = (math.log(bound) for bound in ERASED_SHAPE)
    ratio = torch.exp(low + (high - low) * shape)
    tall, wide = (pixels * ratio).sqrt().clamp(max=height), (pixels / ratio).sqrt().clamp(max=width)
    upper, left = (down * (height - tall)).round(), (across * (width - wide)).round()
    rows, columns = (
        torch.arange(height, device=images.device),
        torch.arange(width, device=images.device),
    )
    in_rows = (rows >= upper[:, None]) & (rows < (upper + tall.round())[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide.round())[:, None])
    box = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(box & (chance < probability)[:, None, None, None], 0.0)


def flips(draws: Draws, flip: Flip) -> Tensor:
    """Returns whether each sample is flipped horizontally in this epoch: bool (B,)."""
    if flip == "none":
        return torch.zeros_like(draws.sample_ids, dtype=torch.bool)
    if flip == "random":
        return draws.integers(Stream.FLIP, 2) == 1
    start = draws.in_epoch(0).integers(Stream.FLIP, 2)
    return (start + draws.epoch) % 2 == 1


def crop_and_flip(
    images: Tensor, rows: Tensor, columns: Tensor, flipped: Tensor, *, size: tuple[int, int]
) -> Tensor:
    """Returns the window of each image at (row, column), flipped horizontally or not.

    Args:
        images: (B, C, H, W).
        rows: int64 (B,), the window's first row.
        columns: int64 (B,), the window's first column.
        flipped: bool (B,), whether the window is flipped horizontally.
        size: height and width of the window.
    """
    height, width = size
    device = images.device
    across = torch.arange(width, device=device)
    columns = columns[:, None] + torch.where(flipped[:, None], width - 1 - across, across)
    rows = rows[:, None] + torch.arange(height, device=device)
    batch = torch.arange(len(images), device=device)[:, None, None]
    # Indices around a slice put the channels last in memory, as convolutions read them fastest.
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
