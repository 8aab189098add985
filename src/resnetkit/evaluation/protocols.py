"""Evaluation protocols: which views of an image are averaged."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnetkit.data.batches import evaluation_batches
from resnetkit.data.dataset import Dataset
from resnetkit.data.images.photos import Photos
from resnetkit.data.normalization import Normalization
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation.classifier import Classifier, PixelClassifier
from resnetkit.evaluation.network_data import images_for
from resnetkit.weights.network import TrainedNetwork

__all__ = ["PROTOCOLS", "SCALES", "Protocol", "batches_for", "pixel_views_of", "views_of"]

Protocol = Literal["center", "ten-crop", "multi-scale"]
"""center: the center crop; ten-crop: the four corners, the center and their horizontal flips
(Krizhevsky et al. 2012; He et al. 2015, sec. 3.4); multi-scale: the whole image and its
horizontal flip, fully convolutionally, at several sizes (He et al. 2015, sec. 3.4)."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

SCALES = (224, 256, 384, 480, 640)  # shorter side in pixels, for a network of 224: the same source
BATCH_SIZE = {"center": 250, "ten-crop": 25, "multi-scale": 1}
BATCH_PIXELS = 64 * 224**2  # of a batch: 64 images of 224x224 pixels


def batches_for(
    networks: Sequence[Classifier], sample_ids: Tensor, protocol: Protocol
) -> list[Tensor]:
    """Divides samples into batches, of the fewer images, the larger they are.

    Args:
        networks: which are evaluated side by side.
        sample_ids: int64 (N,).
        protocol: see `Protocol`.

    Returns:
        The sample ids of each batch, int64 (B,).
    """
    area = max(math.prod(network.image_size) for network in networks)
    size = max(1, min(BATCH_SIZE[protocol], BATCH_PIXELS // area))
    return list(evaluation_batches(sample_ids, size))


def views_of(
    network: TrainedNetwork,
    dataset: Dataset,
    batches: Sequence[Tensor],
    *,
    protocol: Protocol,
    flip: bool,
    device: torch.device,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yields batches of samples with their views, whose probabilities are to be averaged.

    Args:
        network: of which the format of images and the normalization are used.
        dataset: of the samples.
        batches: the sample ids of each; see `batches_for`.
        protocol: see `Protocol`.
        flip: whether the horizontal flip of the center crop is a view too; other protocols
            include flips.
        device: of the views.

    Yields:
        Sample ids, int64 (B,), and views, each float32 (B, C, H, W), normalized.

    Raises:
        DataError: when a protocol needs larger images than the data set has.
    """
    check_protocol(network, dataset, protocol)
    photos = images_for(network, dataset)
    normalization = network.normalization.to(device)
    for ids in batches:
        if not isinstance(photos, Photos) or protocol == "center":
            center = normalization(photos[ids])
            yield ids, [center, center.flip(3)] if flip else [center]
        elif protocol == "ten-crop":
            yield ids, [normalization(view) for view in photos.ten_crops(ids)]
        else:
            yield (
                ids,
                whole_views(photos, ids, min(network.image_size), normalization.per_channel()),
            )


def pixel_views_of(
    network: PixelClassifier,
    dataset: Dataset,
    batches: Sequence[Tensor],
    *,
    protocol: Protocol,
    flip: bool,
) -> Iterator[tuple[Tensor, list[npt.NDArray[np.uint8]]]]:
    """Yields batches of samples with their views as pixels, for a network that normalizes them.

    Args:
        network: of which the format of images is used.
        dataset: of the samples.
        batches: the sample ids of each; see `batches_for`.
        protocol: center or ten-crop.
        flip: as for `views_of`.

    Yields:
        Sample ids, int64 (B,), and views, each uint8 (B, C, H, W).

    Raises:
        UsageError: when the network cannot compute the views.
        DataError: as for `views_of`.
    """
    check_pixel_views(network, protocol, flip=flip)
    check_protocol(network, dataset, protocol)
    photos = images_for(network, dataset)
    for ids in batches:
        if isinstance(photos, Photos) and protocol == "ten-crop":
            views = photos.ten_crops(ids)
        else:
            center = photos[ids]
            views = [center, center.flip(3)] if flip else [center]
        yield ids, [view.numpy() for view in views]


def check_pixel_views(network: PixelClassifier, protocol: Protocol, *, flip: bool) -> None:
    """Raises UsageError for views that a network of pixels cannot compute."""
    if protocol == "multi-scale":
        raise UsageError(
            f"the protocol multi-scale computes images of several sizes, but the graph of an"
            f" exported network ({network.origin}) takes one. Use center or ten-crop, or evaluate"
            " the network that it was exported from."
        )
    if flip and network.has_pixel_mean:
        raise UsageError(
            f"--flip: images are flipped after a mean of each pixel is subtracted, which the graph"
            f" of an exported network ({network.origin}) does itself. Leave --flip out, or evaluate"
            " the network that it was exported from."
        )


def check_protocol(network: Classifier, dataset: Dataset, protocol: Protocol) -> None:
    """Raises DataError for a protocol that does not suit the images or their resizing."""
    if protocol != "center" and not isinstance(dataset.images, Photos):
        raise DataError(
            f"the protocol '{protocol}' needs image files larger than the network's input: those of"
            f" '{dataset.name}' have its size. Use the protocol center."
        )
    if protocol != "center" and network.resize.mode != "center":
        raise DataError(
            f"the protocol '{protocol}' keeps the aspect ratio of images, but this network resizes"
            " without keeping it. Use the protocol center."
        )


def whole_views(
    photos: Photos, ids: Tensor, size: int, normalization: Normalization
) -> list[Tensor]:
    """Returns an image and its flip at every scale, where `size` stands for the smallest."""
    views = []
    for scale in SCALES:
        pixels = photos.whole(int(ids), round(scale * size / SCALES[0]))
        view = normalization(pixels[None])
        views += [view, view.flip(3)]
    return views
