"""Image files that are indexed like a tensor: they are decoded and cropped on access."""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from resnetkit.data.augment.crop_and_flip import Augmentation
from resnetkit.data.augment.trivial_augment import random_alterations
from resnetkit.data.draws import Draws, Stream
from resnetkit.data.images.crops import center_crop, five_crops, resized
from resnetkit.data.images.decode import open_image
from resnetkit.data.images.pixel_cache import PixelCache
from resnetkit.resizing import BILINEAR, ImageFormat, Resize
from resnetkit.runtime.resources import usable_processors

__all__ = ["Box", "Photos", "least_side", "random_boxes"]

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels of the decoded image."""

Boxes = Callable[[int, int, int], Box]
"""Maps the index in the batch, the width and the height of an image to a box."""

ASPECT_RATIOS = (3 / 4, 4 / 3)  # width / height of a crop by area: Szegedy et al. 2015
ATTEMPTS = 10  # to draw a crop that fits into the image, as in torchvision


@dataclass(frozen=True, eq=False)
class Photos:
    """Images indexed like uint8 (N, C, S, S): sample ids select images and yield center crops.

    Attributes:
        paths: of the files.
        channels: C, 3 for RGB or 1 for gray.
        size: S, in pixels.
        crop_pct: fraction of the shorter side that the center crop keeps; 0.875 is 224 of 256.
        cache: decoded images for random crops; by default they are decoded from the files, as they
            always are for center crops.
        resize: how an image is resized before its center crop.
    """

    paths: tuple[Path, ...]
    channels: int
    size: int
    crop_pct: float
    cache: PixelCache | None = None
    resize: Resize = BILINEAR

    @classmethod
    def of(cls, paths: tuple[Path, ...], image_format: ImageFormat) -> "Photos":
        """Returns image files that are converted to a format."""
        return cls(
            paths,
            image_format.channels,
            image_format.size,
            image_format.crop_pct,
            resize=image_format.resize,
        )

    @property
    def side(self) -> int:
        """Returns the length that the shorter side is resized to, in pixels."""
        return self.resize.side(self.size, self.crop_pct)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.channels, self.size, self.size

    def to(self, device: torch.device) -> "Photos":
        """Returns itself: the pixels remain in the files."""
        return self

    def __getitem__(self, sample_ids: Tensor) -> Tensor:
        """Decodes images and returns their center crops: uint8 (B, C, S, S), or (C, S, S) of one.

        Raises:
            DataError: when an image cannot be decoded; the message names the file.
        """
        if sample_ids.dim() == 0:
            return self[sample_ids[None]][0]
        return self.decoded(
            sample_ids,
            lambda _, image: np.asarray(center_crop(image, self.size, self.side, self.resize)),
            side=self.resize.least_side(self.side),
        )

    def ten_crops(self, sample_ids: Tensor) -> list[Tensor]:
        """Decodes images and returns ten crops of each: ten tensors uint8 (B, C, S, S).

        These are the corners and the center of the image and of its horizontal flip, in the order
        of torchvision's TenCrop.

        Raises:
            DataError: when an image cannot be decoded; the message names the file.
        """

        def view(_: int, image: Image.Image) -> npt.NDArray[np.uint8]:
            whole = resized(image, self.side, self.resize)
            crops = [*five_crops(whole, self.size), *five_crops(ImageOps.mirror(whole), self.size)]
            return np.stack([np.asarray(crop) for crop in crops], -1)

        least = self.resize.least_side(self.side)
        return list(self.decoded(sample_ids, view, side=least).unbind(-1))

    def whole(self, sample_id: int, side: int) -> Tensor:
        """Decodes an image and resizes its shorter side, without cropping: uint8 (C, H, W).

        Raises:
            DataError: when it cannot be decoded.
        """
        ids = torch.tensor([sample_id])

        def view(_: int, image: Image.Image) -> npt.NDArray[np.uint8]:
            return np.asarray(resized(image, side, self.resize))

        return self.decoded(ids, view, side=self.resize.least_side(side))[0]

    def random_views(self, draws: Draws, augmentation: Augmentation, *, size: int) -> Tensor:
        """Decodes images and returns a resized random crop of each: uint8 (B, C, size, size).

        Args:
            draws: of B samples.
            augmentation: its `crop` is area or scale.
            size: side of the result in pixels.

        Raises:
            DataError: when an image cannot be decoded; the message names the file.
        """
        boxes = random_boxes(draws, augmentation, size=size)
        trivial = augmentation.policy == "trivial"
        alterations = random_alterations(draws) if trivial else []

        def view(index: int, image: Image.Image) -> npt.NDArray[np.uint8]:
            box = boxes(index, image.width, image.height)
            crop = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
            return np.asarray(alterations[index](crop) if alterations else crop)

        side = least_side(augmentation, size)
        return self.decoded(draws.sample_ids, view, side=side, cache=self.cache)

    def decoded(
        self,
        sample_ids: Tensor,
        view: Callable[[int, Image.Image], npt.NDArray[np.uint8]],
        *,
        side: int,
        cache: PixelCache | None = None,
    ) -> Tensor:
        """Decodes images on all processors and returns a view of each.

        Args:
            sample_ids: int64 (B,).
            view: maps the index in the batch and the image to uint8 (H, W, ...).
            side: the least length of the shorter side of the decoded images, in pixels.
            cache: decoded images; by default the files are decoded.

        Returns:
            uint8 (B, C, H, W, ...).
        """

        def view_of(index: int, sample_id: int) -> npt.NDArray[np.uint8]:
            if cache is not None:
                pixels = view(index, cache.image(sample_id))
            else:
                path = self.paths[sample_id]
                with open_image(path, channels=self.channels, short_side=side) as decoded:
                    pixels = view(index, decoded.image)
            return pixels[:, :, None] if self.channels == 1 else pixels

        ids = sample_ids.tolist()
        pixels = np.stack(list(pool().map(view_of, range(len(ids)), ids)))
        return torch.from_numpy(pixels).movedim(3, 1)


@cache
def pool() -> ThreadPoolExecutor:
    """Returns the threads that decode; Pillow releases the global interpreter lock."""
    return ThreadPoolExecutor(usable_processors(), thread_name_prefix="decode")


def random_boxes(draws: Draws, augmentation: Augmentation, *, size: int) -> Boxes:
    """Draws the random crop of each image.

    Args:
        draws: of B samples.
        augmentation: its `crop` is area or scale.
        size: side of the square that the crop is resized to, in pixels.
    """
    left, upper = draws.units(Stream.LEFT).tolist(), draws.units(Stream.UPPER).tolist()
    if augmentation.crop == "scale":
        shortest, longest = augmentation.side
        sides = (shortest + draws.integers(Stream.SIDE, longest - shortest + 1)).tolist()
        return lambda index, width, height: square_box(
            width, height, size / sides[index] * min(width, height), left[index], upper[index]
        )
    areas, shapes = (
        torch.stack([draws.units(stream, attempt) for attempt in range(ATTEMPTS)], dim=1).tolist()
        for stream in (Stream.AREA, Stream.SHAPE)
    )
    return lambda index, width, height: area_box(
        width,
        height,
        attempts=zip(areas[index], shapes[index], strict=True),
        area=augmentation.area,
        offset=(left[index], upper[index]),
    )


def least_side(augmentation: Augmentation, size: int) -> int:
    """Returns the least shorter side that images are decoded at, so that no crop is upscaled."""
    if augmentation.crop == "scale":
        return augmentation.side[1]
    return math.ceil(size / math.sqrt(augmentation.area[0]))


def square_box(width: int, height: int, side: float, left: float, upper: float) -> Box:
    """Returns a square within the image, offset by the fractions `left` and `upper` of the rest."""
    side = min(side, width, height)
    x, y = left * (width - side), upper * (height - side)
    return x, y, x + side, y + side


def area_box(
    width: int,
    height: int,
    *,
    attempts: Iterable[tuple[float, float]],
    area: tuple[float, float],
    offset: tuple[float, float],
) -> Box:
    """Returns a box with a random area and aspect ratio, within the image.

    If no attempt fits into the image, the box is the largest center crop with a permitted ratio.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        attempts: pairs of numbers in [0, 1), which choose the area and the aspect ratio.
        area: the least and the largest fraction of the image's area.
        offset: fractions of the rest of the width and of the height before the box.
    """
    low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    for u, v in attempts:
        pixels = width * height * (area[0] + (area[1] - area[0]) * u)
        ratio = math.exp(low + (high - low) * v)
        w, h = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
        if w <= width and h <= height:
            x, y = offset[0] * (width - w), offset[1] * (height - h)
            return x, y, x + w, y + h
    w, h = min(width, height * ASPECT_RATIOS[1]), min(height, width / ASPECT_RATIOS[0])
    x, y = (width - w) / 2, (height - h) / 2
    return x, y, x + w, y + h
