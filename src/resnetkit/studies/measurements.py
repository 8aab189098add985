"""Measurements that studies take of finished networks.

A measurement is a function from a run to named lists of numbers. It is taken once, written to
`probes/<name>.json` in the run's folder, and read from there.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import open_dataset
from resnetkit.data.normalization import Normalization, measure_normalization
from resnetkit.data.splits import Split
from resnetkit.errors import DataError
from resnetkit.models.resnet import ResNet
from resnetkit.probes.gradients import LayerGradient, gradient_flow, slope_per_layer
from resnetkit.probes.lesions import (
    neighbors,
    removable_blocks,
    swapped,
    top1_test_error,
    without_blocks,
)
from resnetkit.probes.memory import bytes_kept
from resnetkit.probes.paths import path_gradients
from resnetkit.probes.residuals import residual_magnitudes
from resnetkit.probes.responses import layer_responses
from resnetkit.probes.snapshots import snapshots
from resnetkit.storage import write_file
from resnetkit.training.run_folder import Run
from resnetkit.untrusted import parse_json, read_bounded
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "MEASUREMENTS",
    "Measured",
    "is_measured",
    "lesion_errors",
    "measure",
    "measured",
]

Measured = dict[str, list[float]]

IMAGES = 128  # per measurement
LARGEST_MEASUREMENT = 2**26  # bytes
LESION_DRAWS = 10
PATHS = 4  # of each length
MOST_LESIONS = 4


def measure(run: Run, name: str) -> None:
    """Takes a measurement of a run, unless its folder contains it.

    Raises:
        StorageError: when it cannot be written.
    """
    if is_measured(run, name):
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values = MEASUREMENTS[name](run)
    finally:
        torch.set_num_threads(threads)
    path = run.probe_path(name)
    with run.writing():
        path.parent.mkdir(exist_ok=True)
        write_file(path, json.dumps(values))


def is_measured(run: Run, name: str) -> bool:
    """Returns whether the folder of a run has a measurement that can be read."""
    try:
        measured(run, name)
    except DataError:
        return False
    return True


def measured(run: Run, name: str) -> Measured:
    """Returns a measurement of a run, whose numbers may be nan or infinite.

    Raises:
        DataError: when it was not taken or its file cannot be read.
    """
    path = run.probe_path(name)
    try:
        values = parse_json(read_bounded(path, LARGEST_MEASUREMENT), finite=False)
        return {key: [float(number) for number in numbers] for key, numbers in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Remove it: the study measures the run again."
        ) from error


def at_start(run: Run) -> tuple[ResNet, Dataset, Normalization]:
    """Returns the network of a run before training, its data set, and the normalization."""
    recipe = run.recipe
    dataset = open_dataset(recipe.data.name)
    architecture = recipe.architecture(
        num_classes=len(dataset.class_names), in_channels=dataset.channels
    )
    model = architecture.build(torch.Generator().manual_seed(recipe.seed))
    images = dataset.images[dataset.splits["train"]]
    return model, dataset, measure_normalization(images, recipe.data.normalize)


def some_images(
    dataset: Dataset, split: Split, normalization: Normalization
) -> tuple[Tensor, Tensor]:
    """Returns the first images of a split, normalized (B, C, H, W), and their labels (B)."""
    sample_ids = dataset.splits[split][:IMAGES]
    images = normalization(dataset.images[sample_ids])
    return images, dataset.labels[sample_ids]


def gradients(run: Run) -> Measured:
    """Measures the gradient on training images: before training at every layer, then its slope.

    The slope is measured at the snapshots taken during training.
    """
    model, dataset, normalization = at_start(run)
    images, labels = some_images(dataset, "train", normalization)
    flow = gradient_flow(model.double(), images.double(), labels)  # down to 1e-308
    along = [] if run.diverged else list(snapshots(run))
    return {
        "input": input_gradients(flow),
        "weight": [layer.weight for layer in flow],
        "slope": [slope_per_layer(input_gradients(flow))],
        "steps": [float(step) for step, _ in along],
        "slope along": [
            slope_per_layer(
                input_gradients(gradient_flow(network.model.double(), images.double(), labels))
            )
            for _, network in along
        ],
    }


def input_gradients(flow: list[LayerGradient]) -> list[float]:
    """Returns the gradients at the inputs of all layers but the first, whose input is the image."""
    return [layer.input for layer in flow[1:]]


def trained(run: Run) -> tuple[TrainedNetwork, Dataset, Tensor, Tensor]:
    """Returns the finished network of a run, its data set, and test images with their labels."""
    network = load_network(run.folder)
    dataset = open_dataset(run.recipe.data.name)
    return network, dataset, *some_images(dataset, "test", network.normalization)


def responses(run: Run) -> Measured:
    """Measures the response of every 3x3 layer of the finished network."""
    network, _, images, _ = trained(run)
    deviations = [layer.deviation for layer in layer_responses(network.model, images)]
    return {"deviation": deviations, "mean": [sum(deviations) / len(deviations)]}


def residuals(run: Run) -> Measured:
    """Measures F relative to the shortcut in every block: before, during and after training."""
    network, dataset, images, _ = trained(run)
    fresh, _, normalization = at_start(run)
    warm_up(fresh, some_images(dataset, "train", normalization)[0])
    before = residual_magnitudes(fresh, images)
    after = residual_magnitudes(network.model, images)
    ratios = [block.ratio for block in after]
    changes = [block.change for block in after if not math.isnan(block.change)]
    along = [
        (step, mean_ratio(snapshot.model, images))
        for step, snapshot in warm_snapshots(run, dataset)
    ]
    return {
        "before": [block.ratio for block in before],
        "after": ratios,
        "steps": [float(step) for step, _ in along],
        "mean along": [mean for _, mean in along],
        "mean": [sum(ratios) / len(ratios)],
        "change": changes,
        "mean change": [sum(changes) / len(changes)],
    }


def layers(run: Run) -> Measured:
    """Measures every layer before, during and after training, at the snapshots of a run.

    Returns:
        `steps`, and for each of them, such as 61: `gradients 61`, the norm of the loss gradient at
        the inputs of all layers but the first; `responses 61`, the standard deviation of the output
        of each 3x3 layer; `residuals 61`, ||F(x)|| / ||shortcut(x)|| of each block, empty in a
        plain network. At step 0 the running statistics are those of training images.
    """
    dataset = open_dataset(run.recipe.data.name)
    values: Measured = {"steps": []}
    for step, network in warm_snapshots(run, dataset):
        images, labels = some_images(dataset, "train", network.normalization)
        model = network.model
        flow = gradient_flow(model, images, labels)
        test_images, _ = some_images(dataset, "test", network.normalization)
        values["steps"].append(float(step))
        values[f"gradients {step}"] = input_gradients(flow)
        values[f"responses {step}"] = [
            layer.deviation for layer in layer_responses(model, test_images)
        ]
        is_plain = network.architecture.shortcut == "none"
        values[f"residuals {step}"] = (
            [] if is_plain else [block.ratio for block in residual_magnitudes(model, test_images)]
        )
    return values


def warm_snapshots(run: Run, dataset: Dataset) -> Iterator[tuple[int, TrainedNetwork]]:
    """Yields the snapshots of a run; before training, with running statistics of images."""
    for step, network in snapshots(run):
        if step == 0:
            warm_up(network.model, some_images(dataset, "train", network.normalization)[0])
        yield step, network


def mean_ratio(model: ResNet, images: Tensor) -> float:
    """Returns the size of F relative to its shortcut, the mean over blocks."""
    return statistics.fmean(block.ratio for block in residual_magnitudes(model, images))


def warm_up(model: ResNet, images: Tensor) -> None:
    """Updates the running statistics of an untrained network on images."""
    model.train()
    with torch.no_grad():
        for _ in range(50):
            model(images)
    model.eval()


def lesions(run: Run) -> Measured:
    """Measures the test error with one or several blocks removed, or two swapped."""
    network, dataset, _, _ = trained(run)
    return lesion_errors(network, dataset)


def lesion_errors(network: TrainedNetwork, dataset: Dataset) -> Measured:
    """Measures the test error of a network with one or several blocks removed, or two swapped.

    Every lesion costs an evaluation on the test split.

    Returns:
        Errors in percent: `whole`; `one`, by `removable_blocks`; `without 2` and so on, of random
        blocks; `swapped`, by `neighbors`.
    """
    blocks = removable_blocks(network.model)
    generator = torch.Generator().manual_seed(0)

    def random_blocks(count: int) -> list[str]:
        order = torch.randperm(len(blocks), generator=generator)
        return [blocks[index] for index in order[:count].tolist()]

    def error() -> float:
        return top1_test_error(network, dataset)

    errors: Measured = {"whole": [error()], "one": [], "swapped": []}
    for name in blocks:
        with without_blocks(network.model, [name]):
            errors["one"].append(error())
    for count in range(2, min(MOST_LESIONS, len(blocks)) + 1):
        errors[f"without {count}"] = []
        for _ in range(LESION_DRAWS):
            with without_blocks(network.model, random_blocks(count)):
                errors[f"without {count}"].append(error())
    for first, second in neighbors(blocks):
        with swapped(network.model, first, second):
            errors["swapped"].append(error())
    return errors


def paths(run: Run) -> Measured:
    """Measures the gradient on a path of each length, and on all paths of that length."""
    network, _, images, labels = trained(run)
    lengths = path_gradients(network.model, images, labels, draws=PATHS)
    return {
        "blocks": [length.blocks for length in lengths],
        "gradient": [length.gradient for length in lengths],
        "total": [length.total for length in lengths],
    }


def memory(run: Run) -> Measured:
    """Measures the memory that a training step saves for its backward pass, in MiB.

    Two small batches tell it for one of any size, without holding that.
    """
    model, dataset, normalization = at_start(run)
    images, _ = some_images(dataset, "train", normalization)
    small, large = bytes_kept(model, images[:8]), bytes_kept(model, images[:16])
    kept = small + (large - small) / 8 * (run.recipe.batch_size - 8)
    return {"mebibytes": [kept / 2**20]}


MEASUREMENTS: dict[str, Callable[[Run], Measured]] = {
    "gradients": gradients,
    "responses": responses,
    "residuals": residuals,
    "layers": layers,
    "lesions": lesions,
    "paths": paths,
    "memory": memory,
}
