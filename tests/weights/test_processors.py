"""The image processors of transformers, compared with torchvision's transforms."""

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from helpers.weights import (
    processed,
)
from resnetkit.errors import WeightsError
from resnetkit.inference.transform import EvalTransform
from resnetkit.weights.network import TrainedNetwork

PROCESSORS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "ConvNext": ({"size": {"shortest_edge": 224}}, ((224, 224), 256, "bilinear", "center")),
    "a crop": ({"size": 224, "crop_pct": 0.95}, ((224, 224), 235, "bilinear", "center")),
    "large": ({"size": {"shortest_edge": 384}}, ((384, 384), 384, "bilinear", "squash")),
    "ViT": (
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
        ((224, 224), 224, "bilinear", "squash"),
    ),
    "cut out": (
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 256},
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
        },
        ((224, 224), 256, "bilinear", "center"),
    ),
    "bicubic": ({"size": 224, "resample": 3}, ((224, 224), 256, "bicubic", "center")),
    "the default size": ({"size": "left out"}, ((384, 384), 384, "bilinear", "squash")),
    "the default crop": (
        {"image_processor_type": "CLIPImageProcessor", "size": 225},
        ((224, 224), 225, "bilinear", "center"),
    ),
    "squashed and cut": (
        {"image_processor_type": "BitImageProcessor", "size": [256, 256]},
        ((224, 224), 256, "bilinear", "squash"),
    ),
    "an older name": (
        {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"},
        ((224, 224), 224, "bilinear", "squash"),
    ),
    "no name": ({"image_processor_type": None}, ((224, 224), 256, "bilinear", "center")),
    "no more cut off": (
        {"do_center_crop": True, "crop_size": 224},
        ((224, 224), 256, "bilinear", "center"),
    ),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_images_are_shown_as_their_processor_shows_them(
    case: str, folder_of_transformers: Path, tmp_path: Path
) -> None:
    facts, (size, side, interpolation, mode) = PROCESSORS[case]
    network = processed(folder_of_transformers, tmp_path / "net", **facts)
    assert network.image_size == size
    assert network.resize.side(size[0], network.crop_pct) == side
    assert (network.resize.interpolation, network.resize.mode) == (interpolation, mode)
    assert_pixels(network, side)


@functools.cache
def large_jpeg() -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((1800, 1161)).save(stream, "JPEG")
    return stream.getvalue()


def assert_pixels(network: TrainedNetwork, side: int) -> None:
    """Compares with torchvision's transforms of the whole image, though it is a large JPEG."""
    size, resize = network.image_size[0], network.resize
    filter_ = v2.InterpolationMode(resize.interpolation)
    wanted = side if resize.mode == "center" else (side, side)
    whole = v2.functional.pil_to_tensor(
        v2.Resize(wanted, filter_)(Image.open(io.BytesIO(large_jpeg())))
    )
    upper, left = ((extent - size) // 2 for extent in whole.shape[1:])  # rounded down
    theirs = whole[:, upper : upper + size, left : left + size]
    assert torch.equal(torch.from_numpy(EvalTransform.of(network).pixels(large_jpeg())), theirs)


@pytest.mark.parametrize(
    ("facts", "mean", "std"),
    [
        ({}, 0.5 * 255, 0.2 * 255),
        ({"do_normalize": False}, 0.0, 255.0),
        ({"do_rescale": False}, 0.5, 0.2),
        ({"rescale_factor": 1 / 127.5}, 0.5 * 127.5, 0.2 * 127.5),
        ({"image_mean": 0.4, "image_std": 0.3}, 0.4 * 255, 0.3 * 255),
        ({"image_mean": "left out"}, 0.5 * 255, 0.2 * 255),
        (
            {"image_processor_type": "CLIPImageProcessor", "image_mean": "left out"},
            0.48145466 * 255,
            0.2 * 255,
        ),
    ],
)
def test_values_are_scaled_as_their_processor_scales_them(
    facts: dict[str, Any], mean: float, std: float, folder_of_transformers: Path, tmp_path: Path
) -> None:
    network = processed(folder_of_transformers, tmp_path / "net", **facts)
    assert network.normalization.mean[0].item() == pytest.approx(mean)
    assert network.normalization.std[0].item() == pytest.approx(std)


UNDONE: dict[str, tuple[dict[str, Any], str]] = {
    "no resizing": ({"do_resize": False}, "has no do_resize: images would keep their size"),
    "null for no": ({"do_resize": None}, "has no do_resize: images would keep their size"),
    "blue first": ({"do_flip_channel_order": True}, "blue would come first"),
    "borders": ({"do_pad": True}, "borders would be added"),
    "a word for no": ({"do_normalize": "false"}, "do_normalize is 'false', expected true or false"),
    "no filter": ({"resample": 9}, "resample is 9, not a filter of Pillow"),
    "an unnamed filter": ({"resample": "left out"}, "lacks 'resample'"),
    "no factor": ({"rescale_factor": 0}, "rescale_factor is 0"),
    "vast": ({"size": {"shortest_edge": 10**6}}, "are not sizes or counts"),
    "a longest edge": ({"size": {"longest_edge": 224}}, "has a size of longest_edge"),
    "both sides": ({"size": {"height": 96, "width": 96}}, "ConvNextImageProcessor fails"),
    "cut again": ({"do_center_crop": True, "crop_size": 100}, "some versions of transformers only"),
    "cut out of less": (
        {"image_processor_type": "BitImageProcessor", "size": 100, "crop_size": 224},
        "crops 100 pixels to 224",
    ),
    "oblong": (
        {"image_processor_type": "BitImageProcessor", "crop_size": {"height": 96, "width": 64}},
        "crops to 96x64 pixels: expected a square",
    ),
    "of many sizes": (
        {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
        "has no do_center_crop, so that the sizes of images differ",
    ),
    "of other sizes": (
        {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 96}},
        "so that sizes differ",
    ),
    "another class": (
        {"image_processor_type": "EfficientNetImageProcessor"},
        "is for 'EfficientNetImageProcessor', which is not supported",
    ),
    "a mean in words": ({"image_mean": ["a", "b", "c"]}, "are not a mean or a standard deviation"),
}


@pytest.mark.parametrize("case", UNDONE)
def test_what_is_not_done_to_images_is_refused(
    case: str, folder_of_transformers: Path, tmp_path: Path
) -> None:
    facts, message = UNDONE[case]
    with pytest.raises(WeightsError) as caught:
        processed(folder_of_transformers, tmp_path / "net", **facts)
    assert message in str(caught.value)
    assert str(tmp_path / "net" / "preprocessor_config.json") in str(caught.value)
