"""evaluate(network, dataset) -> Evaluation: every image of a part is asked about once."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import DATASETS, custom_path, open_for_evaluation
from resnetkit.data.images.listing import ImageList, content_digests, relocated
from resnetkit.data.splits import Split
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation.metrics import Floats, Metrics, measure
from resnetkit.evaluation.protocols import Protocol, views_of
from resnetkit.models.resnet import ResNet
from resnetkit.resizing import ImageFormat
from resnetkit.runtime.precision import ChosenPrecision, choose_precision
from resnetkit.runtime.process_group import open_world
from resnetkit.weights.network import TrainedNetwork, check_head

__all__ = [
    "Evaluation",
    "WorstError",
    "class_probabilities",
    "data_of",
    "evaluate",
    "evaluate_all",
    "order_in_words",
    "predict_probabilities",
]

MOST_WORST = 24
ORDER_SHOWN = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorstError:
    """An image that the network took for something else, and was sure of it.

    Attributes:
        sample_id: of the image.
        name: of its file; empty where it has none.
        true: name of its class.
        predicted: name of the class it was taken for.
        probability: that the network gave to that class, from 0 to 1.
    """

    sample_id: int
    name: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """A network measured on a part of a data set.

    Attributes:
        origin: of the network, in words.
        data: name of the data set.
        split: which part.
        protocol: how it looked at the images; see `protocols.Protocol`.
        flip: whether the horizontal flip of the middle was a second view.
        precision: of the computation, float32 or bfloat16.
        metrics: what came out.
        worst: errors of the highest probability, the highest first.
        learned: how many of these images the network has learned from, as far as is known: its
            error on them says nothing. Of an ensemble, any of its networks.
    """

    origin: str
    data: str
    split: Split
    protocol: Protocol
    flip: bool
    precision: str
    metrics: Metrics
    worst: tuple[WorstError, ...]
    learned: int = 0


def data_of(network: TrainedNetwork, name: str | None = None) -> Dataset:
    """Opens a data set as a network is shown it; by default the one it was trained on.

    A run on custom images has kept a list of them, with their parts; other custom images that are
    in no part are all test images.

    Raises:
        UsageError: when there is none of that name, or neither name nor network says which.
        DataError: when its content is not what it should be.
    """
    return open_for_evaluation(
        name or own_data(network),
        ImageFormat(
            min(network.image_size),
            network.crop_pct,
            network.architecture.in_channels,
            network.resize,
        ),
        class_names=network.class_names,
        class_order="natural" if network.format == "timm" else "sorted",
        images=images_of_run(network, name),
    )


def images_of_run(network: TrainedNetwork, name: str | None) -> ImageList | None:
    """Returns the images of a network's run with their parts, where they were moved to a path.

    Raises:
        DataError: when the list of the run cannot be read.
    """
    kept, path = network.images, custom_path(name)
    if kept is None or (name and path is None):
        return None
    images = kept.read()
    if any(file.path.is_file() for file in images.files):
        return None  # they are where they were: these are others, or a copy
    if path is None:
        raise DataError(
            f"the images of the run in {kept.path.parent} are not where they were,"
            f" {images.files[0].path} for one: name the folder or table where they are now with"
            " --data."
        )
    try:
        return relocated(images, path)
    except DataError as error:
        logger.warning("%s So %s is measured as other images.", error, name)
        return None


def order_in_words(network: TrainedNetwork, dataset: Dataset) -> str | None:
    """Returns how classes are matched to a network that has no names for them; None if it has."""
    if network.class_names:
        return None
    names = dataset.class_names
    listed = ", ".join(f"{place} = {name}" for place, name in enumerate(names[:ORDER_SHOWN]))
    more = ", ..." if len(names) > ORDER_SHOWN else ""
    how = ", numbers as numbers and without case as timm does" if network.format == "timm" else ""
    return (
        f"the file does not name its classes, so that they are matched by order{how}:"
        f" {listed}{more}. An error near that of guessing may be due to another order"
    )


def own_data(network: TrainedNetwork) -> str:
    """Returns the data that a network was trained on: what its run has listed, or a published name.

    A path that a file of weights names is not opened: who wrote the file would choose what is read.

    Raises:
        UsageError: when the data are not known.
    """
    if network.images is not None:
        return str(network.images.path)
    if network.data in DATASETS:
        return network.data
    said = (
        f"names '{network.data}', which is not opened unasked" if network.data else "does not say"
    )
    raise UsageError(
        f"what the network was trained on is not known ({network.origin}; its file {said}): name"
        " the data, such as --data cifar10 or --data photos/."
    )


def evaluate(network: TrainedNetwork, dataset: Dataset, **options: Any) -> Evaluation:
    """Measures a network on a part of a data set; everything else is as for `evaluate_all`."""
    return evaluate_all([network], dataset, **options)[0]


def evaluate_all(
    networks: Sequence[TrainedNetwork],
    dataset: Dataset,
    *,
    split: Split = "test",
    protocol: Protocol = "center",
    flip: bool = False,
    precision: str = "float32",
    device: str = "auto",
    observe: Callable[[float], None] = lambda fraction: None,
) -> list[Evaluation]:
    """Measures networks side by side, and when there are several their ensemble too, as the last.

    The ensemble averages the probabilities of all networks.

    Args:
        networks: see `load_network`.
        dataset: see `open_dataset`.
        split: which part.
        protocol: how each image is looked at; the probabilities of all views are averaged.
        flip: with the protocol center, look at the horizontal flip too.
        precision: auto, float32 or bfloat16.
        device: auto, cpu, cuda or cuda:N.
        observe: is called now and then with the fraction done, from 0 to 1.

    Raises:
        UsageError: when horizontal flips are asked for of a protocol that has them anyway.
        DataError: when a network was made for other images or classes, the part is empty, or the
        images do not suit the protocol or have no horizontal flips.
    """
    if flip and protocol != "center":
        raise UsageError(
            f"the protocol {protocol} looks at horizontal flips anyway: leave --flip out."
        )
    sample_ids = dataset.splits[split]
    if not len(sample_ids):
        raise DataError(f"'{dataset.name}' has no images in the part '{split}'.")
    for network in networks:
        check_fit(network, dataset)
    seen = [learned_from(network, dataset, sample_ids) for network in networks]
    if (flip or protocol != "center") and not dataset.mirrored:
        raise DataError(
            f"a mirrored image of '{dataset.name}' is not an image of its class: measure it without"
            " --flip, with the protocol center."
        )
    found = []
    with open_world(device) as world:
        chosen = choose_precision(precision, world.device)
        for place, network in enumerate(networks):
            probabilities = predict_probabilities(
                network,
                dataset,
                sample_ids,
                protocol=protocol,
                flip=flip,
                precision=chosen,
                observe=part_of(observe, place, len(networks)),
            )
            check_numbers(network, probabilities)
            found.append((network.origin, probabilities))
    if len(found) > 1:
        together = np.mean([probabilities for _, probabilities in found], axis=0)
        found.append((f"ensemble of {len(found)} networks", together))
        seen.append(set[int]().union(*seen))
    labels = dataset.labels[sample_ids].numpy()
    return [
        Evaluation(
            origin=origin,
            data=dataset.name,
            split=split,
            protocol=protocol,
            flip=flip,
            precision=chosen.name,
            metrics=measure(probabilities, labels, dataset.class_names),
            worst=worst_errors(probabilities, dataset, sample_ids),
            learned=len(known) if split != "train" else 0,
        )
        for (origin, probabilities), known in zip(found, seen, strict=True)
    ]


def learned_from(network: TrainedNetwork, dataset: Dataset, sample_ids: Tensor) -> set[int]:
    """Returns the samples that a network has learned from, by the list that its run has kept.

    They are recognized by their content, wherever they lie now and whatever they are called, and in
    the list of an older version, which says nothing of that, by their path.
    """
    if dataset.custom is None or network.images is None:
        return set()
    splits = network.images.learned
    learned = [file for file in network.images.read().files if file.split in splits]
    digests = {file.digest for file in learned} - {""}
    paths = {real_path(file.path) for file in learned if not file.digest}
    files = [(n, dataset.custom.files[n]) for n in sample_ids.tolist()]
    now = content_digests(file.path for _, file in files) if digests else [""] * len(files)
    return {
        n
        for (n, file), digest in zip(files, now, strict=True)
        if digest in digests or (paths and real_path(file.path) in paths)
    }


def real_path(path: Path) -> str:
    """Returns a path without the links on its way."""
    return os.path.realpath(path)


def part_of(observe: Callable[[float], None], place: int, count: int) -> Callable[[float], None]:
    """Returns what the observer of one of several equal parts of the work is."""
    return lambda share: observe((place + share) / count)


def check_numbers(network: TrainedNetwork, probabilities: Floats) -> None:
    """Raises DataError when an answer is no number."""
    if not np.isfinite(probabilities).all():
        raise DataError(
            f"the network ({network.origin}) answers with values that are no numbers: its weights"
            " do not fit these images."
        )


def worst_errors(
    probabilities: Floats, dataset: Dataset, sample_ids: Tensor
) -> tuple[WorstError, ...]:
    """Returns the wrong answers of the highest probability."""
    predicted = probabilities.argmax(1)
    wrong = (predicted != dataset.labels[sample_ids].numpy()).nonzero()[0]
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    return tuple(
        WorstError(
            sample_id=(sample_id := int(sample_ids[place])),
            name=file_name(dataset, sample_id),
            true=dataset.class_names[int(dataset.labels[sample_id])],
            predicted=dataset.class_names[predicted[place]],
            probability=float(probabilities[place, predicted[place]]),
        )
        for place in order[:MOST_WORST].tolist()
    )


def file_name(dataset: Dataset, sample_id: int) -> str:
    """Returns the path of an image's file, also of one that is no text; empty without a file."""
    if dataset.custom is None:
        return ""
    return os.fsencode(dataset.custom.files[sample_id].path).decode(errors="backslashreplace")


def check_fit(network: TrainedNetwork, dataset: Dataset) -> None:
    """Raises DataError unless the network can be asked about these images and their classes."""
    check_head(network)
    known, asked = network.architecture.num_classes, len(dataset.class_names)
    if known != asked:
        raise DataError(
            f"the network knows {known} classes, but '{dataset.name}' has {asked}. Choose the data"
            " it was trained on with --data."
        )
    if network.class_names and network.class_names != dataset.class_names:
        pairs = zip(network.class_names, dataset.class_names, strict=True)
        label, (own, other) = next((n, p) for n, p in enumerate(pairs) if p[0] != p[1])
        raise DataError(
            f"the network was trained on other classes than '{dataset.name}' has: its class {label}"
            f" is '{own}', there it is '{other}'."
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
    precision: ChosenPrecision,
    protocol: Protocol = "center",
    flip: bool = False,
    observe: Callable[[float], None] = lambda fraction: None,
) -> Floats:
    """Returns the probabilities of each class for some samples: float64 (N, K)."""
    device = torch.device(precision.device_type)
    model = network.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows, done = [], 0
    batches = views_of(network, dataset, sample_ids, protocol=protocol, flip=flip, device=device)
    with torch.inference_mode():
        for ids, views in batches:
            rows.append(class_probabilities(model, views, precision=precision).numpy())
            done += len(ids)
            observe(done / len(sample_ids))
    return np.concatenate(rows)


def class_probabilities(
    model: ResNet, views: Sequence[Tensor], *, precision: ChosenPrecision
) -> Tensor:
    """Returns the mean over the views of softmax(logits): float64 (B, K), on the CPU.

    Args:
        model: in evaluation mode, on the device of the images.
        views: of the same images, each float32 (B, C, H, W), normalized.
        precision: of the forward pass.
    """
    with precision.autocast():
        logits = [model(view) for view in views]
    each = [one.double().softmax(1) for one in logits]
    return torch.stack(each).mean(0).cpu()
