"""The image processors of transformers, as their preprocessor_config.json describes them.

Each class does what the file says, and its own defaults where the file says nothing. Compared with
the processors of transformers 5 that use Pillow; those that use torchvision round a little
differently.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.resizing import FULL, INTERPOLATIONS, Resize
from resnetkit.weights.configuration import (
    IMPOSSIBLE,
    JsonObject,
    constants,
    corrupt,
    counts,
    fraction,
    image_side,
    read_configuration,
)
from resnetkit.weights.conventions import IMAGENET_MEAN, IMAGENET_STD, crop_for_floor, fractions
from resnetkit.weights.network import TrainedNetwork

__all__ = ["PREPROCESSOR", "Preprocessing", "preprocessing", "processor_config"]

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Preprocessing:
    """How an image is turned into the input of a network.

    Attributes:
        normalization: of pixels of 0 to 255.
        size: height and width in pixels.
        crop_pct: fraction of the resized shorter side that the crop keeps.
        resize: how it is resized.
    """

    normalization: Normalization
    size: tuple[int, int] = (224, 224)
    crop_pct: float = 0.875
    resize: Resize = FULL


HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC = INTERPOLATIONS.index("bilinear"), INTERPOLATIONS.index("bicubic")

CROPPING: JsonObject = {
    "size": 224,
    "do_center_crop": True,
    "crop_size": 224,
    "resample": BICUBIC,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
PROCESSORS: dict[str, JsonObject] = {
    # The default filter of ConvNext was bilinear before transformers 5 and is bicubic since.
    "ConvNext": {"size": 384, "crop_pct": 224 / 256, "image_mean": HALF, "image_std": HALF},
    "ViT": {"size": 224, "resample": BILINEAR, "image_mean": HALF, "image_std": HALF},
    "Bit": CROPPING,
    "CLIP": CROPPING,
}
"""Classes that are read, and what they do where the file says nothing. ConvNext cuts out the middle
of images of fewer than 384 pixels by itself; ViT squashes; the others resize the shorter side and
cut out `crop_size`."""

SQUASHED_FROM = 384  # pixels: ConvNext then resizes both sides and cuts nothing

EVERYWHERE = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}

REFUSED = {
    "do_flip_channel_order": "blue would come first",
    "do_pad": "borders would be added",
    "do_grayscale": "colors would be lost",
    "do_thumbnail": "images would be made smaller first",
    "do_crop_margin": "margins would be cut off",
    "do_align_long_axis": "images would be turned",
}
"""Steps that resnetkit does not do, and what they do."""


def preprocessing(path: Path, channels: int) -> Preprocessing:
    """Returns what the preprocessor_config.json next to a network says; ImageNet's without one.

    Args:
        path: of the file, which need not exist.
        channels: of the network's images.

    Raises:
        WeightsError: if it does what resnetkit does not, or a value is impossible; or if there is
            none, and images are not RGB.
    """
    if not os.path.lexists(path):  # a broken link is an error
        if channels != 3:
            raise WeightsError(
                f"there is no {path}, and the constants of ImageNet, which are assumed without it,"
                f" are for 3 channels, not {channels}: add the file, with the image_mean and"
                " image_std of the training."
            )
        return Preprocessing(constants(IMAGENET_MEAN, IMAGENET_STD, channels))
    try:
        kind, config = with_defaults(read_configuration(path))
        check_steps(config)
        return Preprocessing(constants_of(config, channels), *geometry(kind, config))
    except Unsupported as error:
        raise WeightsError(f"{path} {error}.") from error
    except IMPOSSIBLE as error:
        raise corrupt(path, error) from error


class Unsupported(Exception):
    """What a processor does and resnetkit does not, as a message that follows the file's name."""


def with_defaults(config: JsonObject) -> tuple[str, JsonObject]:
    """Returns the class of a processor, and its configuration with the defaults of that class.

    Raises:
        Unsupported: if it is another class, or a default depends on the version of transformers.
    """
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    name = "ConvNextImageProcessor" if name is None else str(name)  # as transformers for ResNets
    short = name.removesuffix("Fast").removesuffix("Pil")
    kind = short.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in PROCESSORS or kind == short:
        supported = ", ".join(f"{name}ImageProcessor" for name in PROCESSORS)
        raise Unsupported(f"is for {name[:60]!r}, which is not supported: expected {supported}")
    config = {**EVERYWHERE, **PROCESSORS[kind], **config}
    if config.get("resample") is None:
        raise Unsupported(
            "lacks 'resample', the filter that images are resized with, whose default differs"
            " between versions of transformers: set it to 2 for bilinear or 3 for bicubic"
        )
    return kind, config


def check_steps(config: JsonObject) -> None:
    """Checks that a processor does nothing to images that resnetkit does not do.

    Raises:
        Unsupported: if it does.
        ValueError: if a step is neither on nor off.
    """
    for key, value in config.items():
        if key.startswith("do_") and value not in (True, False, None):
            raise ValueError(f"{key} is {str(value)[:50]!r}, expected true or false")
    for key, effect in REFUSED.items():
        if config.get(key):
            raise Unsupported(f"has {key}: {effect}, which resnetkit does not do")
    if not config["do_resize"]:
        raise Unsupported(
            "has no do_resize: images would keep their size, which resnetkit does not support"
        )


def constants_of(config: JsonObject, channels: int) -> Normalization:
    """Returns the normalization of pixels of 0 to 255.

    (factor * x - mean) / std is (x - mean / factor) / (std / factor).
    """
    factor = config["rescale_factor"] if config["do_rescale"] else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise ValueError(f"rescale_factor is {factor!r}, expected a number above 0, up to 1")
    mean, std = [0.0] * channels, [1.0] * channels
    if config["do_normalize"]:
        mean = numbers(config["image_mean"], channels)
        std = numbers(config["image_std"], channels)
    if abs(factor * 255 - 1) < 1e-9:
        return constants(mean, std, channels)
    mean, std = ([value / factor / 255 for value in values] for values in (mean, std))
    return constants(mean, std, channels)


def numbers(value: object, channels: int) -> list[float]:
    """Returns a number for each channel; a single number stands for all of them.

    Raises:
        ValueError: if the value is not made of numbers.
    """
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * channels
    floats = [float(number) for number in values if type(number) in (int, float)]
    if len(floats) < len(values):
        raise ValueError(f"{str(value)[:50]} are not a mean or a standard deviation")
    return floats


def geometry(kind: str, config: JsonObject) -> tuple[tuple[int, int], float, Resize]:
    """Returns image size, fraction of the resized side that is kept, and how images are resized.

    Raises:
        Unsupported: if resnetkit cannot resize or crop in that way.
        ValueError: if a value is impossible.
    """
    resample = config["resample"]
    if type(resample) is not int or resample not in range(len(INTERPOLATIONS)):
        raise ValueError(f"resample is {str(resample)[:50]}, not a filter of Pillow")
    center = Resize(INTERPOLATIONS[resample], "center", "round", "floor", draft=False)
    squash = replace(center, mode="squash")
    edge, sides = sizes_of(config["size"], is_square=kind == "ViT")
    if kind in ("Bit", "CLIP"):
        crop = crop_size(config)
        resized = sides or (edge, edge)
        if crop[0] != crop[1] or resized[0] != resized[1]:
            raise Unsupported(f"crops to {crop[0]}x{crop[1]} pixels: expected a square")
        if crop[0] > resized[0]:
            raise Unsupported(f"crops {resized[0]} pixels to {crop[0]}: borders would be added")
        return crop, fraction(crop[0] / resized[0]), squash if sides else center
    if kind == "ViT":
        if sides is None:
            raise Unsupported("resizes the shorter side without a crop, so that sizes differ")
        check_no_crop(config, sides)
        return sides, 1.0, squash
    if sides is not None:
        raise Unsupported("has a size of height and width, with which ConvNextImageProcessor fails")
    check_no_crop(config, (edge, edge))
    if edge >= SQUASHED_FROM:
        return (edge, edge), 1.0, squash
    return (edge, edge), fraction(config["crop_pct"]), replace(center, rounding="floor")


def sizes_of(size: object, *, is_square: bool) -> tuple[int, tuple[int, int] | None]:
    """Returns the size of the shorter side; or 0, and height and width.

    Args:
        size: a number, two numbers, or an object.
        is_square: whether a single number stands for both sides.

    Raises:
        Unsupported: for other sizes, such as of the longest edge.
        ValueError: if it is not a size.
    """
    if isinstance(size, list | tuple):
        size = dict(zip(("height", "width"), counts(size), strict=True))
    elif not isinstance(size, dict):
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size}
    stated = {key: value for key, value in size.items() if value is not None}
    if set(stated) == {"shortest_edge"}:
        return image_side([stated["shortest_edge"]] * 2)[0], None
    if set(stated) == {"height", "width"}:
        return 0, image_side([stated["height"], stated["width"]])
    raise Unsupported(
        f"has a size of {', '.join(map(str, stated))[:60] or 'nothing'}: expected shortest_edge, or"
        " height and width"
    )


def crop_size(config: JsonObject) -> tuple[int, int]:
    """Returns height and width of the center crop.

    Raises:
        Unsupported: if there is no crop, so that the sizes of images differ.
    """
    if not config["do_center_crop"]:
        raise Unsupported("has no do_center_crop, so that the sizes of images differ")
    sides = sizes_of(config["crop_size"], is_square=True)[1]
    if sides is None:
        raise ValueError("crop_size has a shortest edge, expected height and width")
    return sides


def check_no_crop(config: JsonObject, size: tuple[int, int]) -> None:
    """Raises Unsupported if more is cropped than the processor does by itself."""
    if config.get("do_center_crop") and crop_size({"crop_size": None, **config}) != size:
        raise Unsupported(
            "has do_center_crop, which this processor does in some versions of transformers only"
        )


def processor_config(network: TrainedNetwork) -> dict[str, object]:
    """Returns the preprocessor_config.json with which transformers prepares a network's images.

    Raises:
        WeightsError: if no processor does.
    """
    return {
        **processor_geometry(network),
        "do_resize": True,
        "resample": INTERPOLATIONS.index(network.resize.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": fractions(network.normalization.mean),
        "image_std": fractions(network.normalization.std),
    }


def processor_geometry(network: TrainedNetwork) -> dict[str, object]:
    """Returns the processor of transformers that resizes and crops as a network expects it.

    Raises:
        WeightsError: if none does.
    """
    height, width = network.image_size
    side = network.resize.side(max(height, width), network.crop_pct)
    is_squashed = network.resize.mode == "squash"
    if is_squashed and side == max(height, width):
        return {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": height, "width": width},
        }
    if height != width:
        raise WeightsError(
            f"transformers has no processor for images of {height}x{width} pixels,"
            f" {network.crop_pct:g} of a side, {network.resize.mode}: export it as timm or"
            " resnetkit."
        )
    if height < SQUASHED_FROM and not is_squashed:
        return {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": height},
            "crop_pct": crop_for_floor(network),
        }
    return {
        "image_processor_type": "BitImageProcessor",
        "size": {"height": side, "width": side} if is_squashed else {"shortest_edge": side},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }
