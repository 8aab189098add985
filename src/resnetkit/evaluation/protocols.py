"""Evaluation protocols: which views of an image are averaged."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnetkit.data.batches import evaluation_batches
from resnetkit.data.dataset import Dataset
from resnetkit.data.images.photos import Photos
from resnetkit.data.prefetch import BATCHES_AHEAD, prefetch
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
    normalization = network.normalization.to(device)
    if protocol == "multi-scale":
        normalization = normalization.per_channel()
    flipped_too = flip or protocol == "multi-scale"
    for ids, pixels in pixels_of(network, dataset, batches, protocol):
        yield ids, with_flips([normalization(view) for view in pixels], flip=flipped_too)


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
    for ids, pixels in pixels_of(network, dataset, batches, protocol):
        yield ids, [view.numpy() for view in with_flips(pixels, flip=flip)]


def pixels_of(
    network: Classifier, dataset: Dataset, batches: Sequence[Tensor], protocol: Protocol
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yields batches of samples with their views, uint8 (B, C, H, W) each.

    Image files of the next batches are decoded while the network computes.

    Args:
        network: of which the format of images is used.
        dataset: of the samples.
        batches: the sample ids of each; see `batches_for`.
        protocol: see `Protocol`; the flips of multi-scale are left to the caller.
    """
    images = images_for(network, dataset)
    if isinstance(images, Tensor):
        for ids in batches:
            yield ids, [images[ids]]
        return
    read = partial(views_of_photos, images, protocol, min(network.image_size))
    for ids, views in prefetch(read, batches, most=BATCHES_AHEAD, threads=1):
        yield ids, views.result()


def views_of_photos(photos: Photos, protocol: Protocol, size: int, ids: Tensor) -> list[Tensor]:
    """Decodes images and returns their views, uint8 (B, C, H, W) each.

    Args:
        photos: image files.
        protocol: see `Protocol`.
        size: that the smallest scale of multi-scale stands for, in pixels.
        ids: int64 (B,).

    Raises:
        DataError: when an image cannot be decoded; the message names the file.
    """
    if protocol == "center":
        return [photos[ids]]
    if protocol == "ten-crop":
        return photos.ten_crops(ids)
    sides = [round(scale * size / SCALES[0]) for scale in SCALES]
    return [photos.whole(int(ids), side)[None] for side in sides]


def with_flips(views: Sequence[Tensor], *, flip: bool) -> list[Tensor]:
    """Returns views, each followed by its horizontal flip where `flip` is set."""
    if not flip:
        return list(views)
    return [shown for view in views for shown in (view, view.flip(3))]


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
