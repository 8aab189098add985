"""evaluate(network, dataset) -> Evaluation: every image of a part is asked about once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.augment import normalize
from resnetkit.data.batches import evaluation_batches
from resnetkit.data.dataset import Dataset
from resnetkit.data.splits import Split
from resnetkit.errors import DataError
from resnetkit.evaluation.metrics import Floats, Metrics, measure
from resnetkit.models.weights.network import TrainedNetwork
from resnetkit.training.world import ChosenPrecision, choose_precision, open_world

__all__ = ["Evaluation", "evaluate", "predict_probabilities"]

BATCH_SIZE = 250


@dataclass(frozen=True)
class Evaluation:
    """A network measured on a part of a data set.

    Attributes:
        origin: of the network, in words.
        data: name of the data set.
        split: which part.
        flip: whether the probabilities of each image and its mirror image were averaged.
        precision: of the computation, float32 or bfloat16.
        metrics: what came out.
    """

    origin: str
    data: str
    split: Split
    flip: bool
    precision: str
    metrics: Metrics


def evaluate(
    network: TrainedNetwork,
    dataset: Dataset,
    *,
    split: Split = "test",
    flip: bool = False,
    precision: str = "float32",
    device: str = "auto",
    observe: Callable[[float], None] = lambda share: None,
) -> Evaluation:
    """Measures a network on a part of a data set, in a single view or in two.

    Args:
        network: see `load_network`.
        dataset: see `open_dataset`.
        split: which part.
        flip: average the probabilities of each image and its mirror image.
        precision: auto, float32 or bfloat16.
        device: auto, cpu, cuda or cuda:N.
        observe: is told now and then which share is done, from 0 to 1.

    Raises:
        DataError: when the network was made for other images or classes, or they have no mirror
        images.
    """
    check_fit(network, dataset)
    if flip and not dataset.mirrored:
        raise DataError(
            f"a mirrored image of '{dataset.name}' is not an image of its class: measure it without"
            " --flip."
        )
    sample_ids = dataset.splits[split]
    with open_world(device) as world:
        chosen = choose_precision(precision, world.device)
        probabilities = predict_probabilities(
            network, dataset, sample_ids, flip=flip, precision=chosen, observe=observe
        )
    if not np.isfinite(probabilities).all():
        raise DataError(
            f"the network ({network.origin}) answers with values that are no numbers: its weights"
            " do not fit these images."
        )
    labels = dataset.labels[sample_ids].numpy()
    return Evaluation(
        origin=network.origin,
        data=dataset.name,
        split=split,
        flip=flip,
        precision=chosen.name,
        metrics=measure(probabilities, labels, dataset.class_names),
    )


def check_fit(network: TrainedNetwork, dataset: Dataset) -> None:
    """Raises DataError unless the network can be asked about these images and their classes."""
    known, asked = network.architecture.num_classes, len(dataset.class_names)
    if known != asked:
        raise DataError(
            f"the network knows {known} classes, but '{dataset.name}' has {asked}. Choose the data"
            " it was trained on with --data."
        )
    if network.class_names and network.class_names != dataset.class_names:
        raise DataError(
            f"the network was trained on other classes ({', '.join(network.class_names[:3])}, ...)"
            f" than '{dataset.name}' has ({', '.join(dataset.class_names[:3])}, ...)."
        )
    channels = network.architecture.in_channels
    if channels != dataset.channels:
        raise DataError(
            f"the network takes images of {channels} channel(s), those of '{dataset.name}' have"
            f" {dataset.channels}."
        )
    if network.image_size != dataset.image_size:
        there, here = ("x".join(map(str, s)) for s in (network.image_size, dataset.image_size))
        raise DataError(
            f"the network was trained on images of {there} pixels, those of '{dataset.name}' have"
            f" {here}."
        )


def predict_probabilities(
    network: TrainedNetwork,
    dataset: Dataset,
    sample_ids: Tensor,
    *,
    flip: bool,
    precision: ChosenPrecision,
    observe: Callable[[float], None] = lambda share: None,
) -> Floats:
    """Returns the probabilities of each class for some samples: float64 (N, K)."""
    device = torch.device(precision.device_type)
    model = network.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows, done = [], 0
    with torch.inference_mode():
        for ids, images in normalized_batches(network, dataset, sample_ids, device):
            views = (images, images.flip(3)) if flip else (images,)
            with precision.autocast():
                logits = [model(view) for view in views]
            each = [one.double().softmax(1) for one in logits]
            rows.append(torch.stack(each).mean(0).cpu().numpy())
            done += len(ids)
            observe(done / len(sample_ids))
    return np.concatenate(rows)


def normalized_batches(
    network: TrainedNetwork, dataset: Dataset, sample_ids: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the samples' numbers and their images as the network wants them: (B, C, H, W)."""
    mean, std = network.mean.to(device), network.std.to(device)
    for ids in evaluation_batches(sample_ids, BATCH_SIZE):
        yield ids, normalize(dataset.images[ids].to(device), mean, std)
