"""How a network looks at an image when it is measured: once, ten times, or at several sizes."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from resnetkit.data.batches import evaluation_batches
from resnetkit.data.dataset import Dataset
from resnetkit.data.images.photos import Photos
from resnetkit.data.normalization import Normalization
from resnetkit.errors import DataError
from resnetkit.weights.network import TrainedNetwork

__all__ = ["PROTOCOLS", "SCALES", "Protocol", "views_of"]

Protocol = Literal["center", "ten-crop", "multi-scale"]
"""center: the middle, once; ten-crop: the four corners, the middle and their horizontal flips
(Krizhevsky et al. 2012; He et al. 2015, sec. 3.4); multi-scale: the whole image and its mirror
image, fully convolutionally, at several sizes (He et al. 2015, sec. 3.4)."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

SCALES = (224, 256, 384, 480, 640)  # shorter side in pixels, for a network of 224: the same source
BATCH_SIZE = {"center": 250, "ten-crop": 25, "multi-scale": 1}


def views_of(
    network: TrainedNetwork,
    dataset: Dataset,
    sample_ids: Tensor,
    *,
    protocol: Protocol,
    flip: bool,
    device: torch.device,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yields samples in batches, and the views of each batch, whose answers are to be averaged.

    Args:
        network: which decides size and normalization.
        dataset: that holds the samples.
        sample_ids: int64 (N,).
        protocol: see `Protocol`.
        flip: whether horizontal flips of the middle are views too; other protocols have them
            anyway.
        device: of the views.

    Yields:
        Sample ids, int64 (B,), and views, each float32 (B, C, H, W), normalized.

    Raises:
        DataError: when a protocol needs more of the images than the data set holds.
    """
    photos = dataset.images
    if protocol != "center" and not isinstance(photos, Photos):
        raise DataError(
            f"the protocol '{protocol}' needs images larger than the network's, in files: those of"
            f" '{dataset.name}' have its size. Use the protocol center."
        )
    if protocol != "center" and network.resize.mode != "center":
        raise DataError(
            f"the protocol '{protocol}' keeps the shape of images, but this network is shown"
            " squashed ones. Use the protocol center."
        )
    normalization = network.normalization.to(device)
    for ids in evaluation_batches(sample_ids, BATCH_SIZE[protocol]):
        if not isinstance(photos, Photos) or protocol == "center":
            middle = normalization(photos[ids])
            yield ids, [middle, middle.flip(3)] if flip else [middle]
        elif protocol == "ten-crop":
            yield ids, [normalization(view) for view in photos.ten_crops(ids)]
        else:
            yield (
                ids,
                whole_views(photos, ids, min(network.image_size), normalization.per_channel()),
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
