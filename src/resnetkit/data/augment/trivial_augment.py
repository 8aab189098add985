"""Trivial augmentation: one random operation of random strength on each image."""

from collections.abc import Callable

import torch
from PIL import Image, ImageOps

from resnetkit.data.draws import Draws, Stream

__all__ = ["OPERATIONS", "STRENGTHS", "Alteration", "random_alterations"]

Alteration = Callable[[Image.Image], Image.Image]

STRENGTHS = 31  # of an operation, from none to the largest


def torchvision_function(name: str) -> Callable[..., Image.Image]:
    """Returns a function of torchvision, which is imported where it is used: it takes 2.6 s."""
    from torchvision.transforms.v2 import functional

    function: Callable[..., Image.Image] = getattr(functional, name)
    return function


def shear(image: Image.Image, x: float, y: float) -> Image.Image:
    """Shears by tangents, about the upper left corner, as the policies of torchvision do."""
    degrees = [torch.rad2deg(torch.atan(torch.tensor(tangent))).item() for tangent in (x, y)]
    affine = torchvision_function("affine")  # its default interpolation is the nearest pixel
    return affine(image, 0.0, [0, 0], 1.0, degrees, center=[0.0, 0.0])


def move(image: Image.Image, x: float, y: float) -> Image.Image:
    """Moves by whole pixels."""
    return torchvision_function("affine")(image, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])


def scale(largest: float, strength: int) -> float:
    """Returns the value of a strength, up to the largest, in float32 as in torchvision."""
    return torch.linspace(0.0, largest, STRENGTHS)[strength].item()


def enhanced(adjust: str) -> Callable[[Image.Image, int, int], Image.Image]:
    """Returns an operation that strengthens or weakens a property of the image."""
    return lambda image, strength, sign: torchvision_function(adjust)(
        image, 1.0 + sign * scale(0.99, strength)
    )


# Operations by image, strength (below STRENGTHS) and sign. Source: Mueller and Hutter 2021,
# "TrivialAugment", table 1, the wide space, with the numbers of torchvision.
OPERATIONS: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "identity": lambda image, strength, sign: image,
    "shear across": lambda image, strength, sign: shear(image, sign * scale(0.99, strength), 0.0),
    "shear down": lambda image, strength, sign: shear(image, 0.0, sign * scale(0.99, strength)),
    "move across": lambda image, strength, sign: move(image, sign * scale(32.0, strength), 0.0),
    "move down": lambda image, strength, sign: move(image, 0.0, sign * scale(32.0, strength)),
    "rotate": lambda image, strength, sign: torchvision_function("rotate")(
        image, sign * scale(135.0, strength)
    ),
    "brightness": enhanced("adjust_brightness"),
    "color": enhanced("adjust_saturation"),
    "contrast": enhanced("adjust_contrast"),
    "sharpness": enhanced("adjust_sharpness"),
    "posterize": lambda image, strength, sign: ImageOps.posterize(image, 8 - round(strength / 5)),
    "solarize": lambda image, strength, sign: torchvision_function("solarize")(
        image, 255.0 * torch.linspace(1.0, 0.0, STRENGTHS)[strength].item()
    ),
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
}


def random_alterations(draws: Draws) -> list[Alteration]:
    """Draws an operation for each image."""
    names = list(OPERATIONS)
    bounds = {Stream.OPERATION: len(names), Stream.STRENGTH: STRENGTHS, Stream.SIGN: 2}
    integers = [draws.integers(stream, bound).tolist() for stream, bound in bounds.items()]
    return [
        alteration(names[operation], strength, 2 * sign - 1)
        for operation, strength, sign in zip(*integers, strict=True)
    ]


def alteration(name: str, strength: int, sign: int) -> Alteration:
    """Returns an operation with its strength and sign."""
    return lambda image: OPERATIONS[name](image, strength, sign)
