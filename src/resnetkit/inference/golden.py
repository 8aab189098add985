"""Chooses golden images for a network: of its data set, or drawn."""

from dataclasses import dataclass

import numpy as np
import torch

from resnetkit.data.dataset import Dataset
from resnetkit.data.splits import Split
from resnetkit.errors import DataError, TransferError, UsageError, WeightsError
from resnetkit.evaluation.network_data import check_fit, data_of
from resnetkit.inference.engine import Pixels
from resnetkit.inference.engines.torch import TorchEngine
from resnetkit.inference.parity import GOLDEN_IMAGES, Golden
from resnetkit.weights.network import TrainedNetwork

__all__ = ["GoldenImages", "choose_golden", "with_answers"]

COARSE = 7  # cells of a drawn image along a side
SEED = 15


@dataclass(frozen=True, eq=False)
class GoldenImages:
    """Images before the network has answered.

    Attributes:
        pixels: uint8 (N, C, H, W).
        source: where they came from, for people.
    """

    pixels: Pixels
    source: str


def choose_golden(network: TrainedNetwork, data: str | None = None) -> GoldenImages:
    """Returns images of a data set, evenly spaced over its test split, or drawn ones.

    Args:
        network: of which the images are the input.
        data: name or path of a data set. By default that which the network was trained on, if it is
            on this machine; else the images are drawn.

    Raises:
        UsageError: when there is no data set of that name.
        DataError: when it cannot be read, or does not fit the network.
    """
    if data is not None:
        return images_of(data_of(network, data), network)
    try:
        return images_of(data_of(network), network)
    except (UsageError, DataError, TransferError):
        return drawn_images(network)


def images_of(dataset: Dataset, network: TrainedNetwork) -> GoldenImages:
    """Returns images of the first split that has any, test, validation or train."""
    check_fit(network, dataset)
    splits: tuple[Split, ...] = ("test", "validation", "train")
    split = next((name for name in splits if len(dataset.splits[name])), None)
    if split is None:
        raise DataError(f"'{dataset.name}' has no images.")
    sample_ids = dataset.splits[split]
    chosen = torch.linspace(0, len(sample_ids) - 1, min(GOLDEN_IMAGES, len(sample_ids))).long()
    pixels = dataset.images[sample_ids[chosen]].numpy()
    count = f"{len(pixels)} images of the {split} split of {dataset.title}"
    return GoldenImages(np.ascontiguousarray(pixels), count)


def drawn_images(network: TrainedNetwork) -> GoldenImages:
    """Returns images of smooth random colors, always the same ones."""
    channels, (height, width) = network.architecture.in_channels, network.image_size
    generator = torch.Generator().manual_seed(SEED)
    coarse = 255 * torch.rand(GOLDEN_IMAGES, channels, COARSE, COARSE, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return GoldenImages(smooth.round().to(torch.uint8).numpy(), f"{GOLDEN_IMAGES} drawn images")


def with_answers(images: GoldenImages, network: TrainedNetwork) -> Golden:
    """Returns images with the answers of torch on the processor, in float32.

    Raises:
        WeightsError: when an answer is not finite.
    """
    engine = TorchEngine(network, device="cpu", precision="float32")
    logits, features = (engine.features(images.pixels, layer) for layer in ("fc", "pool"))
    if not (np.isfinite(logits).all() and np.isfinite(features).all()):
        raise WeightsError(
            f"{network.origin}: its answers for the golden images are not finite, so nothing can be"
            " compared with them. Its weights do not fit its running statistics, or it has not"
            " learned: train it, or choose another checkpoint."
        )
    return Golden(images.pixels, logits, features)
