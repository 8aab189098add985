"""The image processors of transformers: what their preprocessor_config.json says is done to images.

Each class does what the file says, and its own defaults where the file says nothing. Compared with
the processors of transformers 5 that use Pillow; those that use torchvision round a little
differently.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.resizing import FULL, INTERPOLATIONS, Resize
from resnetkit.weights.configuration import (
    IMPOSSIBLE,
    constants,
    counts,
    damaged,
    fraction,
    image_side,
    read_configuration,
)
from resnetkit.weights.conventions import IMAGENET_MEAN, IMAGENET_STD, crop_for_floor, fractions
from resnetkit.weights.network import TrainedNetwork

__all__ = ["PREPROCESSOR", "Preprocessing", "preprocessing", "processor_facts"]

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a network sees it.

    Attributes:
        normalization: of pixels of 0 to 255.
        size: height and width in pixels.
        crop_pct: part of the resized shorter side that is shown.
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

CROPPING: dict[str, Any] = {
    "size": 224,
    "do_center_crop": True,
    "crop_size": 224,
    "resample": BICUBIC,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
PROCESSORS: dict[str, dict[str, Any]] = {
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
        path: where it may lie.
        channels: of the network's images.

    Raises:
        WeightsError: when it does what resnetkit does not, with the reason, or a value cannot be.
    """
    if not os.path.lexists(path):  # a broken link is an error
        return Preprocessing(constants(IMAGENET_MEAN, IMAGENET_STD, channels))
    said = read_configuration(path)
    try:
        kind, facts = completed(said)
        check_steps(facts)
        return Preprocessing(constants_of(facts, channels), *geometry(kind, facts))
    except Unsupported as error:
        raise WeightsError(f"{path} {error}.") from error
    except IMPOSSIBLE as error:
        raise damaged(path, error) from error


class Unsupported(Exception):
    """What a processor does and resnetkit does not, in words that follow the file's name."""


def completed(said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the class of processor, and what it does, with its defaults.

    Raises:
        Unsupported: when it is another class, or its default depends on transformers' version.
    """
    name = said.get("image_processor_type") or said.get("feature_extractor_type")
    name = "ConvNextImageProcessor" if name is None else str(name)  # as transformers for ResNets
    short = name.removesuffix("Fast").removesuffix("Pil")
    kind = short.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in PROCESSORS or kind == short:
        known = ", ".join(f"{each}ImageProcessor" for each in PROCESSORS)
        raise Unsupported(f"is of {name[:60]!r}, which resnetkit does not know: expected {known}")
    facts = {**EVERYWHERE, **PROCESSORS[kind], **said}
    if facts.get("resample") is None:
        raise Unsupported(
            "does not say 'resample', the filter that images are resized with, and versions of"
            " transformers take different ones: write 2 for bilinear or 3 for bicubic into it"
        )
    return kind, facts


def check_steps(facts: dict[str, Any]) -> None:
    """Checks that nothing is done to images that resnetkit does not do.

    Raises:
        Unsupported: when something is.
        ValueError: when a step is neither done nor not done.
    """
    for key, value in facts.items():
        if key.startswith("do_") and value not in (True, False, None):
            raise ValueError(f"{key} is {str(value)[:50]!r}, expected true or false")
    for key, words in REFUSED.items():
        if facts.get(key):
            raise Unsupported(f"has {key}: {words}, which resnetkit does not do")
    if not facts["do_resize"]:
        raise Unsupported(
            "has no do_resize: images of any size would be shown as they are, which resnetkit does"
            " not do"
        )


def constants_of(facts: dict[str, Any], channels: int) -> Normalization:
    """Returns the normalization of pixels of 0 to 255.

    (factor * x - mean) / std is (x - mean / factor) / (std / factor).
    """
    factor = facts["rescale_factor"] if facts["do_rescale"] else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise ValueError(f"rescale_factor is {factor!r}, expected a number above 0, up to 1")
    mean: Sequence[float] = [0.0] * channels
    std: Sequence[float] = [1.0] * channels
    if facts["do_normalize"]:
        mean, std = (numbers(facts[key], channels) for key in ("image_mean", "image_std"))
    if abs(factor * 255 - 1) < 1e-9:
        return constants(mean, std, channels)
    mean, std = ([value / factor / 255 for value in values] for values in (mean, std))
    return constants(mean, std, channels)


def numbers(values: Any, channels: int) -> list[float]:
    """Returns a number for each channel; a single one is meant for all of them.

    Raises:
        ValueError: when it is no number.
    """
    listed = values if isinstance(values, list | tuple) else [values] * channels
    if not all(type(value) in (int, float) for value in listed):
        raise ValueError(f"{str(values)[:50]} are not a mean or a deviation")
    return [float(value) for value in listed]


def geometry(kind: str, facts: dict[str, Any]) -> tuple[tuple[int, int], float, Resize]:
    """Returns size, part of the resized side that is shown, and how images are resized.

    Raises:
        Unsupported: when resnetkit shows images otherwise.
        ValueError: when a value cannot be.
    """
    if type(facts["resample"]) is not int or facts["resample"] not in range(len(INTERPOLATIONS)):
        raise ValueError(f"resample is {str(facts['resample'])[:50]}, no filter of Pillow")
    interpolation = INTERPOLATIONS[facts["resample"]]

    def resize(
        mode: Literal["center", "squash"], rounding: Literal["round", "floor"] = "round"
    ) -> Resize:
        return Resize(interpolation, mode, rounding, "floor", draft=False)

    edge, sides = sizes_of(facts["size"], is_square=kind == "ViT")
    if kind in ("Bit", "CLIP"):
        crop = cropped(facts)
        resized = sides or (edge, edge)
        if crop[0] != crop[1] or resized[0] != resized[1]:
            raise Unsupported(f"cuts {crop[0]}x{crop[1]} pixels out, which are no square")
        if crop[0] > resized[0]:
            raise Unsupported(f"cuts {crop[0]} pixels out of {resized[0]}: borders would be added")
        return crop, fraction(crop[0] / resized[0]), resize("squash" if sides else "center")
    if kind == "ViT":
        if sides is None:
            raise Unsupported("resizes the shorter side and cuts nothing off, so that sizes differ")
        check_no_crop(facts, sides)
        return sides, 1.0, resize("squash")
    if sides is not None:
        raise Unsupported("has a size of height and width, with which ConvNextImageProcessor fails")
    check_no_crop(facts, (edge, edge))
    if edge >= SQUASHED_FROM:
        return (edge, edge), 1.0, resize("squash")
    return (edge, edge), fraction(facts["crop_pct"]), resize("center", "floor")


def sizes_of(size: Any, *, is_square: bool) -> tuple[int, tuple[int, int] | None]:
    """Returns the shorter edge that is resized to, or 0 and both sides, height and width.

    Args:
        size: of the file: a number, two, or a mapping.
        is_square: whether a single number means both sides.

    Raises:
        Unsupported: for a longest edge and its like.
        ValueError: when it is no size.
    """
    if isinstance(size, list | tuple):
        size = dict(zip(("height", "width"), counts(size), strict=True))
    elif not isinstance(size, dict):
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size}
    said = {key: value for key, value in size.items() if value is not None}
    if set(said) == {"shortest_edge"}:
        return image_side([said["shortest_edge"]] * 2)[0], None
    if set(said) == {"height", "width"}:
        return 0, image_side([said["height"], said["width"]])
    raise Unsupported(
        f"has a size of {', '.join(map(str, said))[:60] or 'nothing'}: expected shortest_edge, or"
        " height and width"
    )


def cropped(facts: dict[str, Any]) -> tuple[int, int]:
    """Returns height and width of what is cut out.

    Raises:
        Unsupported: when nothing is, so that the sizes of images differ.
    """
    if not facts["do_center_crop"]:
        raise Unsupported("has no do_center_crop, so that the sizes of images differ")
    sides = sizes_of(facts["crop_size"], is_square=True)[1]
    if sides is None:
        raise ValueError("crop_size has a shortest edge, expected height and width")
    return sides


def check_no_crop(facts: dict[str, Any], size: tuple[int, int]) -> None:
    """Raises Unsupported when more is cut off than the processor does by itself."""
    if facts.get("do_center_crop") and cropped({"crop_size": None, **facts}) != size:
        raise Unsupported(
            "has do_center_crop, which this processor does in some versions of transformers only"
        )


def processor_facts(network: TrainedNetwork) -> dict[str, Any]:
    """Returns the preprocessor_config.json with which transformers shows images to a network.

    Raises:
        WeightsError: when none does.
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


def processor_geometry(network: TrainedNetwork) -> dict[str, Any]:
    """Returns which of transformers' processors shows images as a network is shown them.

    Raises:
        WeightsError: when none does.
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
            f"transformers has no processor that shows images of {height}x{width} pixels,"
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
