"""Resizes images and crops them, with the pixels of torchvision."""

from PIL import Image

from resnetkit.resizing import Resize

__all__ = ["center_crop", "five_crops", "resampling", "resized"]


def center_crop(image: Image.Image, size: int, side: int, resize: Resize) -> Image.Image:
    """Returns the center square, with the pixels of torchvision's Resize and CenterCrop.

    Args:
        image: upright.
        size: side of the square, in pixels.
        side: length that the shorter side is resized to first, in pixels.
        resize: how it is resized.
    """
    whole = resized(image, side, resize)
    left, upper = resize.margin(whole.width, size), resize.margin(whole.height, size)
    return square(whole, left, upper, size)


def resized(image: Image.Image, side: int, resize: Resize) -> Image.Image:
    """Returns the image with its shorter side resized to `side`; both sides for squash."""
    width, height = image.size
    if resize.mode == "squash":
        size = (side, side)
    elif width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    return image if image.size == size else image.resize(size, resampling(resize))


def resampling(resize: Resize) -> Image.Resampling:
    """Returns Pillow's filter."""
    return Image.Resampling[resize.interpolation.upper()]


def five_crops(image: Image.Image, size: int) -> list[Image.Image]:
    """Returns square crops: the upper corners, the lower corners and the center."""
    right, lower = image.width - size, image.height - size
    center = (round((image.width - size) / 2), round((image.height - size) / 2))
    corners = [(0, 0), (right, 0), (0, lower), (right, lower)]
    return [square(image, left, upper, size) for left, upper in (*corners, center)]


def square(image: Image.Image, left: int, upper: int, size: int) -> Image.Image:
    """Returns a square crop of an image."""
    return image.crop((left, upper, left + size, upper + size))
