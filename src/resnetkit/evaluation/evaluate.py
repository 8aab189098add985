"""evaluate(network, dataset) -> Evaluation: loss and errors over all images of a split."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.data.splits import Split
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation.classifier import PixelClassifier
from resnetkit.evaluation.metrics import Floats, Metrics, Outcomes, measure_outcomes
from resnetkit.evaluation.network_data import check_input, class_columns, trained_samples
from resnetkit.evaluation.protocols import Protocol, batches_for, pixel_views_of, views_of
from resnetkit.models.resnet import ResNet
from resnetkit.runtime.precision import ChosenPrecision, choose_precision
from resnetkit.runtime.process_group import open_world
from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "Evaluable",
    "Evaluation",
    "WorstError",
    "class_probabilities",
    "evaluate",
    "evaluate_all",
    "nonempty_split",
    "predict_probabilities",
]

MOST_WORST = 24


@dataclass(frozen=True)
class WorstError:
    """A wrong prediction of high probability.

    Attributes:
        sample_id: of the image.
        name: of its file; empty without a file.
        true: name of its class.
        predicted: name of the predicted class.
        probability: of the predicted class, from 0 to 1.
    """

    sample_id: int
    name: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """A network evaluated on a split of a data set.

    Attributes:
        origin: description of the network.
        data: name of the data set.
        split: train, validation or test.
        protocol: the views of each image; see `protocols.Protocol`.
        flip: whether the horizontal flip was a second view.
        precision: of the computation: float32, bfloat16 or int8; of an ensemble, all of them.
        metrics: errors, loss and calibration.
        worst: wrong predictions of the highest probability, the highest first.
        learned: number of these images that the network was trained on, according to its run: the
            error on them is not a test error. For an ensemble, any of its networks counts.
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


Evaluable = TrainedNetwork | PixelClassifier
"""A network that torch computes, or an exported one."""


def evaluate(network: Evaluable, dataset: Dataset, **options: Any) -> Evaluation:
    """Evaluates one network; arguments and errors are those of `evaluate_all`."""
    return evaluate_all([network], dataset, **options)[0]


def evaluate_all(
    networks: Sequence[Evaluable],
    dataset: Dataset,
    *,
    split: Split = "test",
    protocol: Protocol = "center",
    flip: bool = False,
    precision: str = "float32",
    device: str = "auto",
    observe: Callable[[float], None] = lambda fraction: None,
) -> list[Evaluation]:
    """Evaluates networks on the same images; with several, their ensemble comes last.

    The ensemble averages the probabilities of all networks, class by class: they may number the
    same classes differently.

    Args:
        networks: see `load_network` and `load_exported`.
        dataset: see `open_dataset`. Image files are resized and cropped as each network expects,
            whatever size and crop they were opened with.
        split: train, validation or test.
        protocol: the views of each image, whose probabilities are averaged.
        flip: with the protocol center, whether the horizontal flip is a second view.
        precision: auto, float32 or bfloat16, of networks that are not exported.
        device: auto, cpu, cuda or cuda:N; exported networks compute on the processor.
        observe: called now and then with the fraction done, from 0 to 1.

    Raises:
        UsageError: when `flip` is set for a protocol that includes flips, or an exported network
            cannot compute the views.
        DataError: when a network expects other images or classes, the split is empty, or the
            images do not suit the protocol.
    """
    check_views(dataset, protocol, flip=flip)
    sample_ids = nonempty_split(dataset, split)
    for network in networks:
        check_input(network, dataset)
    columns = [class_columns(network, dataset) for network in networks]
    batches = batches_for(networks, sample_ids, protocol)
    trained_on = [trained_samples(network, dataset, sample_ids) for network in networks]
    origins = [network.origin for network in networks]
    with open_world(device) as world:
        chosen = choose_precision(precision, world.device)
        precisions, streams = [], []
        for network, order in zip(networks, columns, strict=True):
            used, compute = computation_of(network, chosen)
            precisions.append(used)
            answers = compute(dataset, batches, protocol=protocol, flip=flip)
            streams.append(reordered(answers, order))
        outcomes = outcomes_of(networks, streams, dataset, images=len(sample_ids), observe=observe)
    if len(networks) > 1:
        precisions.append(" and ".join(sorted(set(precisions))))
        origins.append(f"ensemble of {len(networks)} networks")
        trained_on.append(set[int]().union(*trained_on))
    return [
        Evaluation(
            origin=origin,
            data=dataset.name,
            split=split,
            protocol=protocol,
            flip=flip,
            precision=used,
            metrics=measure_outcomes(outcome, dataset.class_names),
            worst=worst_errors(outcome, dataset, sample_ids),
            learned=len(overlap) if split != "train" else 0,
        )
        for origin, used, outcome, overlap in zip(
            origins, precisions, outcomes, trained_on, strict=True
        )
    ]


Answers = Iterator[tuple[Tensor, Floats]]
"""Sample ids, int64 (B,), with the probabilities of each class, float64 (B, K)."""


def computation_of(
    network: Evaluable, precision: ChosenPrecision
) -> tuple[str, Callable[..., Answers]]:
    """Returns the precision of a network, and the function that computes its probabilities."""
    if isinstance(network, TrainedNetwork):
        return precision.name, partial(torch_probabilities, network, precision=precision)
    return network.precision, partial(exported_probabilities, network)


def reordered(answers: Answers, columns: npt.NDArray[np.intp]) -> Answers:
    """Yields the probabilities of a network in the order of classes of a data set."""
    for sample_ids, probabilities in answers:
        yield sample_ids, probabilities.take(columns, axis=1)


def outcomes_of(
    networks: Sequence[Evaluable],
    streams: Sequence[Answers],
    dataset: Dataset,
    *,
    images: int,
    observe: Callable[[float], None],
) -> list[Outcomes]:
    """Returns the outcomes of each network, and of the ensemble of several.

    Of each image a few numbers are kept, so that memory does not grow with the classes.

    Args:
        networks: for messages.
        streams: probabilities of each network, in equal batches.
        dataset: of the labels.
        images: how many there are.
        observe: called after each batch with the fraction done.

    Raises:
        DataError: when a probability is not finite.
    """
    batches: list[list[Outcomes]] = []
    done = 0
    for answers in zip(*streams, strict=True):
        sample_ids = answers[0][0]
        rows = [finite(network, row) for network, (_, row) in zip(networks, answers, strict=True)]
        if len(rows) > 1:
            rows.append(np.mean(rows, axis=0))
        labels = dataset.labels[sample_ids].numpy()
        batches.append([Outcomes.of(row, labels) for row in rows])
        done += len(sample_ids)
        observe(done / images)
    return [Outcomes.joined(parts) for parts in zip(*batches, strict=True)]


def nonempty_split(dataset: Dataset, split: Split) -> Tensor:
    """Returns the samples of a split, int64 (N,).

    Raises:
        DataError: when there are none.
    """
    sample_ids = dataset.splits[split]
    if not len(sample_ids):
        raise DataError(f"'{dataset.name}' has no images in the split '{split}'.")
    return sample_ids


def check_views(dataset: Dataset, protocol: Protocol, *, flip: bool) -> None:
    """Checks that the views of a protocol are images of the same class.

    Raises:
        UsageError: when `flip` is set for a protocol that includes flips.
        DataError: when horizontal flips change the class.
    """
    if flip and protocol != "center":
        raise UsageError(f"the protocol {protocol} includes horizontal flips: leave --flip out.")
    if (flip or protocol != "center") and not dataset.mirrored:
        raise DataError(
            f"a mirrored image of '{dataset.name}' is not an image of its class: evaluate without"
            " --flip, with the protocol center."
        )


def finite(network: Evaluable, probabilities: Floats) -> Floats:
    """Returns the probabilities.

    Raises:
        DataError: when one of them is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise DataError(
            f"the network ({network.origin}) gives probabilities that are not finite: its weights"
            " do not fit these images."
        )
    return probabilities


def worst_errors(
    outcomes: Outcomes, dataset: Dataset, sample_ids: Tensor
) -> tuple[WorstError, ...]:
    """Returns the wrong predictions of the highest probability."""
    predicted, confidence = outcomes.predicted, outcomes.confidence
    wrong = (predicted != outcomes.labels).nonzero()[0]
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return tuple(
        WorstError(
            sample_id=(sample_id := int(sample_ids[row])),
            name=file_name(dataset, sample_id),
            true=dataset.class_names[int(dataset.labels[sample_id])],
            predicted=dataset.class_names[predicted[row]],
            probability=float(confidence[row]),
        )
        for row in order[:MOST_WORST].tolist()
    )


def file_name(dataset: Dataset, sample_id: int) -> str:
    """Returns the path of an image's file, escaped where not UTF-8; empty without a file."""
    if dataset.custom is None:
        return ""
    return os.fsencode(dataset.custom.files[sample_id].path).decode(errors="backslashreplace")


def predict_probabilities(
    network: TrainedNetwork,
    dataset: Dataset,
    sample_ids: Tensor,
    *,
    precision: ChosenPrecision,
    protocol: Protocol = "center",
    flip: bool = False,
) -> Floats:
    """Returns the probability of each class of a network for each sample: float64 (N, K)."""
    batches = batches_for([network], sample_ids, protocol)
    answers = torch_probabilities(
        network, dataset, batches, precision=precision, protocol=protocol, flip=flip
    )
    return np.concatenate([rows for _, rows in answers])


def torch_probabilities(
    network: TrainedNetwork,
    dataset: Dataset,
    batches: Sequence[Tensor],
    *,
    precision: ChosenPrecision,
    protocol: Protocol,
    flip: bool,
) -> Answers:
    """Yields the probabilities of a network that torch computes, batch by batch."""
    device = torch.device(precision.device_type)
    model = network.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = views_of(network, dataset, batches, protocol=protocol, flip=flip, device=device)
    for ids, views in seen:
        yield ids, class_probabilities(model, views, precision=precision).numpy()


def exported_probabilities(
    network: PixelClassifier,
    dataset: Dataset,
    batches: Sequence[Tensor],
    *,
    protocol: Protocol,
    flip: bool,
) -> Answers:
    """Yields the same as `torch_probabilities`, of an exported network."""
    seen = pixel_views_of(network, dataset, batches, protocol=protocol, flip=flip)
    for ids, views in seen:
        yield ids, np.mean([network.probabilities(view) for view in views], axis=0)


@torch.inference_mode()
def class_probabilities(
    model: ResNet, views: Sequence[Tensor], *, precision: ChosenPrecision
) -> Tensor:
    """Returns softmax(logits), averaged over the views: float64 (B, K), on the CPU.

    Args:
        model: in evaluation mode, on the device of the images.
        views: of the same images, each float32 (B, C, H, W), normalized.
        precision: of the forward pass.
    """
    with precision.autocast():
        logits = [model(view) for view in views]
    return torch.stack([view.double().softmax(1) for view in logits]).mean(0).cpu()
