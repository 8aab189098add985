"""Images in files, as if they were a tensor: decoded and cut out when they are asked for."""

import math
from collections.abc import Callable, Sequence
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
from resnetkit.data.images.decode import open_image
from resnetkit.data.images.pixel_cache import PixelCache
from resnetkit.resizing import BILINEAR, Resize
from resnetkit.runtime.resources import usable_processors

__all__ = ["Box", "Photos", "center_view", "least_side", "random_boxes", "resampling"]

Box = tuple[float, float, float, float]
"""left, upper, right and lower edge, in pixels of the decoded image."""

Boxes = Callable[[int, int, int], Box]
"""From the place in the batch, width and height to the box."""

SHAPES = (3 / 4, 4 / 3)  # width to height of a crop by area: Szegedy et al. 2015
TRIES = 10  # for a crop that lies within the image, as torchvision makes them


@dataclass(frozen=True, eq=False)
class Photos:
    """Reads like uint8 (N, C, S, S): indexing with sample ids decodes and shows the middle.

    Attributes:
        paths: of the files.
        channels: C, 3 for RGB or 1 for gray.
        size: S, pixels.
        crop_pct: share of the shorter side that the middle view shows; 0.875 is 224 of 256.
        cache: where random views come from; none: from the files, as middle views always do.
        resize: how an image is resized before its middle is cut out.
    """

    paths: tuple[Path, ...]
    channels: int
    size: int
    crop_pct: float
    cache: PixelCache | None = None
    resize: Resize = BILINEAR

    @property
    def side(self) -> int:
        """Returns the length that the shorter side is resized to, in pixels."""
        return self.resize.side(self.size, self.crop_pct)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.channels, self.size, self.size

    def to(self, device: torch.device) -> "Photos":
        """Returns itself: the pixels stay in the files."""
        return self

    def __getitem__(self, sample_ids: Tensor) -> Tensor:
        """Decodes images and returns their middle views: uint8 (B, C, S, S), or (C, S, S) of one.

        Raises:
            DataError: when one cannot be decoded; it names the file.
        """
        if sample_ids.dim() == 0:
            return self[sample_ids[None]][0]
        return self.decoded(
            sample_ids,
            lambda _, image: np.asarray(center_view(image, self.size, self.side, self.resize)),
            side=self.resize.least_side(self.side),
        )

    def ten_crops(self, sample_ids: Tensor) -> list[Tensor]:
        """Decodes images and returns ten crops of each: ten times uint8 (B, C, S, S).

        Corners and middle of the image and of its horizontal flip, in the order of torchvision's
        TenCrop.

        Raises:
            DataError: when one cannot be decoded; it names the file.
        """

        def ten(_: int, image: Image.Image) -> npt.NDArray[np.uint8]:
            whole = resized(image, self.side, self.resize)
            crops = [*five_crops(whole, self.size), *five_crops(ImageOps.mirror(whole), self.size)]
            return np.stack([np.asarray(crop) for crop in crops], -1)

        least = self.resize.least_side(self.side)
        return list(self.decoded(sample_ids, ten, side=least).unbind(-1))

    def whole(self, sample_id: int, side: int) -> Tensor:
        """Decodes an image and returns all of it, its shorter side resized: uint8 (C, H, W).

        Raises:
            DataError: when it cannot be decoded.
        """
        ids = torch.tensor([sample_id])

        def view(_: int, image: Image.Image) -> npt.NDArray[np.uint8]:
            return np.asarray(resized(image, side, self.resize))

        return self.decoded(ids, view, side=self.resize.least_side(side))[0]

    def random_views(self, draws: Draws, augmentation: Augmentation, *, size: int) -> Tensor:
        """Decodes images and returns a random part of each, resized: uint8 (B, C, size, size).

        Args:
            draws: of B samples.
            augmentation: of which `crop` is area or scale.
            size: of the square that is shown, pixels.

        Raises:
            DataError: when one cannot be decoded; it names the file.
        """
        boxes = random_boxes(draws, augmentation, size=size)
        trivial = augmentation.policy == "trivial"
        alterations = random_alterations(draws) if trivial else []

        def view(place: int, image: Image.Image) -> npt.NDArray[np.uint8]:
            box = boxes(place, image.width, image.height)
            part = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
            return np.asarray(alterations[place](part) if alterations else part)

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
        """Returns a view of each image, decoded on all cores with at least this shorter side.

        Args:
            sample_ids: int64 (B,).
            view: from the place in the batch and the image to uint8 (H, W, ...).
            side: pixels.
            cache: of images that were decoded before; none decodes the files.

        Returns:
            uint8 (B, C, H, W, ...).
        """

        def one(place: int, sample_id: int) -> npt.NDArray[np.uint8]:
            if cache is not None:
                pixels = view(place, cache.image(sample_id))
            else:
                path = self.paths[sample_id]
                with open_image(path, channels=self.channels, short_side=side) as decoded:
                    pixels = view(place, decoded.image)
            return pixels[:, :, None] if self.channels == 1 else pixels

        ids = sample_ids.tolist()
        pixels = np.stack(list(pool().map(one, range(len(ids)), ids)))
        return torch.from_numpy(pixels).movedim(3, 1)


@cache
def pool() -> ThreadPoolExecutor:
    """Returns the threads that decode: Pillow works outside of Python's lock."""
    return ThreadPoolExecutor(usable_processors(), thread_name_prefix="decode")


def center_view(image: Image.Image, size: int, side: int, resize: Resize) -> Image.Image:
    """Returns the middle square, with the pixels that torchvision's Resize and CenterCrop give.

    Args:
        image: upright.
        size: of the square.
        side: length that the shorter side is resized to before.
        resize: how.
    """
    whole = resized(image, side, resize)
    left, upper = resize.margin(whole.width, size), resize.margin(whole.height, size)
    return square(whole, left, upper, size)


def resized(image: Image.Image, side: int, resize: Resize) -> Image.Image:
    """Returns the image with its shorter side of this length; squashed, with both sides."""
    width, height = image.size
    if resize.mode == "squash":
        wanted = (side, side)
    elif width <= height:
        wanted = (side, int(side * height / width))
    else:
        wanted = (int(side * width / height), side)
    return image if image.size == wanted else image.resize(wanted, resampling(resize))


def resampling(resize: Resize) -> Image.Resampling:
    """Returns Pillow's filter."""
    return Image.Resampling[resize.interpolation.upper()]


def middle(image: Image.Image, size: int) -> Image.Image:
    """Returns the square in the middle."""
    left, upper = round((image.width - size) / 2), round((image.height - size) / 2)
    return square(image, left, upper, size)


def five_crops(image: Image.Image, size: int) -> list[Image.Image]:
    """Returns the upper corners, the lower ones and the middle."""
    right, lower = image.width - size, image.height - size
    corners = [(0, 0), (right, 0), (0, lower), (right, lower)]
    return [*(square(image, left, upper, size) for left, upper in corners), middle(image, size)]


def square(image: Image.Image, left: int, upper: int, size: int) -> Image.Image:
    """Returns a square of an image."""
    return image.crop((left, upper, left + size, upper + size))


def random_boxes(draws: Draws, augmentation: Augmentation, *, size: int) -> Boxes:
    """Draws what is cut out of each image.

    Args:
        draws: of B samples.
        augmentation: of which `crop` is area or scale.
        size: of the square that is shown, pixels.
    """
    left, upper = draws.units(Stream.LEFT).tolist(), draws.units(Stream.UPPER).tolist()
    if augmentation.crop == "scale":
        shortest, longest = augmentation.side
        sides = (shortest + draws.integers(Stream.SIDE, longest - shortest + 1)).tolist()
        return lambda place, width, height: square_box(
            width, height, size / sides[place] * min(width, height), left[place], upper[place]
        )
    areas, shapes = (
        torch.stack([draws.units(stream, attempt) for attempt in range(TRIES)], dim=1).tolist()
        for stream in (Stream.AREA, Stream.SHAPE)
    )
    return lambda place, width, height: area_box(
        width,
        height,
        areas[place],
        shapes[place],
        augmentation.area,
        left[place],
        upper[place],
    )


def least_side(augmentation: Augmentation, size: int) -> int:
    """Returns the shorter side that an image must be decoded with, so that no crop is blurred."""
    if augmentation.crop == "scale":
        return augmentation.side[1]
    return math.ceil(size / math.sqrt(augmentation.area[0]))


def square_box(width: int, height: int, side: float, left: float, upper: float) -> Box:
    """Returns a square of a side within the image, at shares `left` and `upper` of the room."""
    side = min(side, width, height)
    x, y = left * (width - side), upper * (height - side)
    return x, y, x + side, y + side


def area_box(
    width: int,
    height: int,
    areas: Sequence[float],
    shapes: Sequence[float],
    area: tuple[float, float],
    left: float,
    upper: float,
) -> Box:
    """Returns a box of a random share of the image's area and a random shape.

    Args:
        width: of the image, as is the height.
        height: likewise.
        areas: numbers in [0, 1), one a try.
        shapes: likewise.
        area: least and largest share.
        left: share of the room left of the box.
        upper: share of the room above it.
    """
    low, high = (math.log(shape) for shape in SHAPES)
    for u, v in zip(areas, shapes, strict=True):
        pixels = width * height * (area[0] + (area[1] - area[0]) * u)
        shape = math.exp(low + (high - low) * v)
        w, h = math.sqrt(pixels * shape), math.sqrt(pixels / shape)
        if w <= width and h <= height:
            x, y = left * (width - w), upper * (height - h)
            return x, y, x + w, y + h
    w, h = min(width, height * SHAPES[1]), min(height, width / SHAPES[0])
    x, y = (width - w) / 2, (height - h) / 2
    return x, y, x + w, y + h
