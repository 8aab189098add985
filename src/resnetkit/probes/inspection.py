"""Inspection: the structure of a network, and what all probes measure in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.errors import (
    ArchitectureError,
    DataError,
    StorageError,
    TransferError,
    UsageError,
    WeightsError,
)
from resnetkit.evaluation.evaluate import nonempty_split
from resnetkit.evaluation.network_data import check_fit, data_of
from resnetkit.inference.transform import EvalTransform
from resnetkit.models.outline import StageOutline, outline
from resnetkit.models.zoo import ARCHITECTURES, Architecture, find_architecture
from resnetkit.probes.gradients import LayerGradient, gradient_flow
from resnetkit.probes.lesions import (
    neighbors,
    removable_blocks,
    swapped,
    top1_test_error,
    without_blocks,
)
from resnetkit.probes.paths import PathLength, path_gradients
from resnetkit.probes.receptive import ReceptiveField, receptive_fields
from resnetkit.probes.residuals import BlockResidual, residual_magnitudes
from resnetkit.probes.responses import Response, layer_responses
from resnetkit.probes.saliency import grad_cam, integrated_gradients
from resnetkit.weights.load import is_trained, load_network
from resnetkit.weights.network import TrainedNetwork, check_head

__all__ = [
    "Inspection",
    "Lesion",
    "Saliency",
    "Subject",
    "find_subject",
    "inspect_network",
    "load_trained",
    "network_counts",
    "saliency",
]

IMAGES = 64  # of the test split, for probes
NOISE_IMAGES = 4  # for a network that was not trained

WITHOUT_DATA = (UsageError, DataError, TransferError, StorageError, WeightsError)
"""What is raised where the data of a network is unknown, not on this machine, or does not fit."""


@dataclass(frozen=True)
class Subject:
    """A network to inspect.

    Attributes:
        architecture: of the network.
        image_size: side of its images in pixels.
        network: the trained network; None for an architecture.
    """

    architecture: Architecture
    image_size: int
    network: TrainedNetwork | None = None

    @cached_property
    def stages(self) -> tuple[StageOutline, ...]:
        """Returns the outline of the network."""
        return outline(self.architecture, self.image_size)


@dataclass(frozen=True)
class Lesion:
    """The error of a network without a block, or with two blocks exchanged.

    Attributes:
        blocks: description of the change, such as "without layer1.1".
        error: on the test split, in percent.
        points: by how many percentage points it is higher than that of the whole network.
    """

    blocks: str
    error: float
    points: float


@dataclass(frozen=True)
class Inspection:
    """What the probes measure in a network; None for a probe that was not run.

    Attributes:
        gradients: of every layer with weights; see `gradient_flow`.
        receptive_fields: of every feature map.
        responses: of every 3x3 layer of a trained network.
        lesions: of a trained network, in a thorough inspection.
        residuals: of every block of a trained residual network.
        paths: through a trained residual network by their length, in a thorough inspection.
        remarks: why probes were not run.
    """

    gradients: tuple[LayerGradient, ...] | None = None
    receptive_fields: tuple[ReceptiveField, ...] | None = None
    responses: tuple[Response, ...] | None = None
    lesions: tuple[Lesion, ...] | None = None
    residuals: tuple[BlockResidual, ...] | None = None
    paths: tuple[PathLength, ...] | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saliency:
    """The prediction for an image, and the pixels that it depends on.

    Attributes:
        image: the input of the network before normalization: uint8 (C, H, W).
        answer: name of the most probable class, or its number.
        probability: of this class.
        maps: by the name of the method, float (H, W) from 0 to 1.
    """

    image: Tensor
    answer: str
    probability: float
    maps: dict[str, Tensor]


def find_subject(
    name: str, options: dict[str, object] | None = None, *, variant: str | None = None
) -> Subject:
    """Returns the network of a name or path.

    Args:
        name: an architecture, a run folder or a file of weights.
        options: of an architecture, as in `create_model`.
        variant: v1 or v1.5; see `load_network`.

    Raises:
        ArchitectureError: for an unknown architecture or option.
        UsageError: for options of a trained network.
        WeightsError: for weights that cannot be read.
    """
    if name in ARCHITECTURES or not is_trained(name):
        architecture = find_architecture(name).with_options(**(options or {}))
        return Subject(architecture, architecture.input_size)
    if options:
        raise UsageError(f"--set changes an architecture: {name} is a trained network.")
    network = load_network(Path(name), variant=variant)
    return Subject(network.architecture, min(network.image_size), network)


def inspect_network(
    subject: Subject, *, thorough: bool = False, data: str | None = None
) -> Inspection:
    """Runs the probes on a network.

    A trained network is probed on images of the test split of its data; without them, no probe is
    run. An architecture is probed in a thorough inspection only: before training, on noise.

    Args:
        subject: selection network.
        thorough: also run the probes that take minutes.
        data: data set of a trained network, by default the one that it was trained on.

    Raises:
        UsageError: when there is no data set of the name `data`.
        DataError: when that data set cannot be read, or does not fit the network.
    """
    if subject.network is not None:
        return inspect_trained(subject.network, thorough=thorough, data=data)
    return inspect_untrained(subject) if thorough else Inspection()


def inspect_untrained(subject: Subject) -> Inspection:
    """Measures the gradient at each layer of a network with fresh weights, on images of noise."""
    generator = torch.Generator().manual_seed(0)
    architecture = subject.architecture
    model = architecture.build(generator).double()  # the smallest gradients have 300 zeros
    shape = (NOISE_IMAGES, architecture.in_channels, subject.image_size, subject.image_size)
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(NOISE_IMAGES) % architecture.num_classes
    return Inspection(
        gradients=tuple(gradient_flow(model, images, labels)),
        receptive_fields=tuple(receptive_fields(model)),
    )


def inspect_trained(network: TrainedNetwork, *, thorough: bool, data: str | None) -> Inspection:
    """Runs the probes that fit a trained network, on images of its test split."""
    try:
        dataset = data_of(network, data)
        check_fit(network, dataset)
        sample_ids = nonempty_split(dataset, "test")[:IMAGES]
        pixels = dataset.images[sample_ids]
    except WITHOUT_DATA as error:
        if data is not None:
            raise
        return Inspection(remarks=(f"no probe was run: {error}",))
    model, labels = network.model, dataset.labels[sample_ids]
    images = network.normalization(pixels)
    inspection = Inspection(
        gradients=tuple(gradient_flow(model, images, labels)),
        receptive_fields=tuple(receptive_fields(model)),
    )
    try:
        inspection = replace(inspection, responses=tuple(layer_responses(model, images)))
        if thorough:
            inspection = replace(inspection, lesions=tuple(lesions(network, dataset)))
        inspection = replace(inspection, residuals=tuple(residual_magnitudes(model, images)))
        if thorough:
            paths = tuple(path_gradients(model, images, labels))
            inspection = replace(inspection, paths=paths)
    except ArchitectureError as error:
        return replace(inspection, remarks=(str(error),))
    return inspection


def lesions(network: TrainedNetwork, dataset: Dataset) -> list[Lesion]:
    """Measures the error without each block, and with each pair of neighboring blocks exchanged."""
    blocks, whole = removable_blocks(network.model), top1_test_error(network, dataset)
    errors = {}
    for name in blocks:
        with without_blocks(network.model, [name]):
            errors[f"without {name}"] = top1_test_error(network, dataset)
    for first, second in neighbors(blocks):
        with swapped(network.model, first, second):
            errors[f"{first} and {second} exchanged"] = top1_test_error(network, dataset)
    return [Lesion(lesion, error, error - whole) for lesion, error in errors.items()]


def network_counts(stages: Sequence[StageOutline]) -> dict[str, int]:
    """Returns the counts by which networks are compared."""
    blocks = [block for stage in stages[1:-1] for block in stage.blocks]
    return {
        "parameters": sum(stage.parameters for stage in stages),
        "multiply-adds": sum(stage.multiply_adds for stage in stages),
        "blocks": len(blocks),
        "shortcuts": sum(block.shortcut != "none" for block in blocks),
        "projections": sum(block.shortcut == "projection" for block in blocks),
    }


def load_trained(name: str, *, variant: str | None = None) -> TrainedNetwork:
    """Loads a trained network by its path or name.

    Raises:
        UsageError: for the name of an architecture.
        WeightsError: for weights that cannot be read.
    """
    if not Path(name).exists() and name in ARCHITECTURES:
        raise UsageError(f"{name} is an architecture without trained weights: name a run.")
    return load_network(Path(name), variant=variant)


def saliency(network: TrainedNetwork, selection: str, *, data: str | None = None) -> Saliency:
    """Predicts the class of one image, and maps the pixels that the prediction depends on.

    Args:
        network: the trained network.
        selection: number of a test image of its data, or an image file.
        data: data set of test images, by default the one that the network was trained on.

    Raises:
        WeightsError: for a network without a head, which has no classes.
        UsageError: for a number that is too large, or when captum is not installed.
        DataError: for a file that is not an image, or data that cannot be read or does not fit.
    """
    check_head(network)
    image = selected_image(network, selection, data)
    normalized = network.normalization(image[None])[0]
    with torch.inference_mode():
        probabilities = network.model(normalized[None]).double().softmax(1)[0]
    label = int(probabilities.argmax())
    return Saliency(
        image=image,
        answer=network.class_names[label] if network.class_names else f"class {label}",
        probability=float(probabilities[label]),
        maps={
            "Grad-CAM": grad_cam(network.model, normalized, label),
            "integrated gradients": integrated_gradients(network.model, normalized, label),
        },
    )


def selected_image(network: TrainedNetwork, selection: str, data: str | None) -> Tensor:
    """Returns a test image by its number, or the image of a file: uint8 (C, H, W)."""
    if selection.isascii() and selection.isdecimal() and len(selection) < 10:
        dataset = data_of(network, data)
        check_fit(network, dataset)
        tests = dataset.splits["test"]
        if int(selection) >= len(tests):
            raise UsageError(
                f"--saliency {selection}: '{dataset.name}' has {len(tests):,} test images, from 0."
            )
        return dataset.images[tests[int(selection)]]
    return torch.from_numpy(EvalTransform.of(network).pixels(Path(selection)))
