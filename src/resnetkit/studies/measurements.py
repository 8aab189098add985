"""What studies measure in finished networks, kept beside each run.

A measurement is a function from a run to named lists of numbers. It is taken once, written to
`probes/<name>.json` in the run's folder, and read from there.
"""

import json
import statistics
from collections.abc import Callable

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

IMAGES = 128  # that a probe looks at
LARGEST_MEASUREMENT = 2**26  # bytes
LESION_DRAWS = 10
PATHS = 4  # of each length
MOST_LESIONS = 4


def measure(run: Run, name: str) -> None:
    """Takes a measurement of a run, unless it was taken before.

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
    """Returns whether a measurement of a run is there and can be read; else it is taken again."""
    try:
        measured(run, name)
    except DataError:
        return False
    return True


def measured(run: Run, name: str) -> Measured:
    """Returns a measurement of a run; numbers that are none come back as such.

    Raises:
        DataError: when it was not taken or its file is damaged.
    """
    path = run.probe_path(name)
    try:
        values = parse_json(read_bounded(path, LARGEST_MEASUREMENT), finite=False)
        return {key: [float(each) for each in numbers] for key, numbers in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Remove it: the study measures the run again."
        ) from error


def at_start(run: Run) -> tuple[ResNet, Dataset, Normalization]:
    """Returns the network of a run as it was before training, and the data it learned from."""
    recipe = run.recipe
    dataset = open_dataset(recipe.data.name)
    architecture = recipe.architecture(
        num_classes=len(dataset.class_names), in_channels=dataset.channels
    )
    model = architecture.build(torch.Generator().manual_seed(recipe.seed))
    learned = dataset.images[dataset.splits["train"]]
    return model, dataset, measure_normalization(learned, recipe.data.normalize)


def some_images(
    dataset: Dataset, split: Split, normalization: Normalization
) -> tuple[Tensor, Tensor]:
    """Returns the first images of a part as a network sees them (B, C, H, W), and their labels."""
    sample_ids = dataset.splits[split][:IMAGES]
    images = normalization(dataset.images[sample_ids])
    return images, dataset.labels[sample_ids]


def gradients(run: Run) -> Measured:
    """Measures the gradient at every layer on images that are learned from.

    Before training layer by layer, and its slope at the snapshots along training.
    """
    model, dataset, normalization = at_start(run)
    images, labels = some_images(dataset, "train", normalization)
    flow = gradient_flow(model.double(), images.double(), labels)  # down to 1e-308
    along = [] if run.diverged else list(snapshots(run))
    return {
        "input": arriving(flow),
        "weight": [each.weight for each in flow],
        "slope": [slope_per_layer(arriving(flow))],
        "steps": [float(step) for step, _ in along],
        "slope along": [
            slope_per_layer(arriving(gradient_flow(each.model.double(), images.double(), labels)))
            for _, each in along
        ],
    }


def arriving(flow: list[LayerGradient]) -> list[float]:
    """Returns the gradients at the inputs of the layers; that of the images says little."""
    return [each.input for each in flow[1:]]


def trained(run: Run) -> tuple[TrainedNetwork, Dataset, Tensor, Tensor]:
    """Returns the finished network of a run, its data, and some test images with their labels."""
    network = load_network(run.folder)
    dataset = open_dataset(run.recipe.data.name)
    return network, dataset, *some_images(dataset, "test", network.normalization)


def responses(run: Run) -> Measured:
    """Measures the response of every 3x3 layer of the finished network."""
    network, _, images, _ = trained(run)
    deviations = [each.deviation for each in layer_responses(network.model, images)]
    return {"deviation": deviations, "mean": [sum(deviations) / len(deviations)]}


def residuals(run: Run) -> Measured:
    """Measures F beside the shortcut in every block, before training and after, and on the way."""
    network, dataset, images, _ = trained(run)
    fresh, _, normalization = at_start(run)
    warm_up(fresh, some_images(dataset, "train", normalization)[0])
    found = {
        "before": residual_magnitudes(fresh, images),
        "after": residual_magnitudes(network.model, images),
    }
    ratios = {moment: [each.ratio for each in blocks] for moment, blocks in found.items()}
    changes = [each.change for each in found["after"] if each.change == each.change]
    along = [(step, each.model) for step, each in snapshots(run)]
    means = [mean_ratio(model, images) for _, model in along]
    return {
        **ratios,
        "steps": [float(step) for step, _ in along],
        "mean along": means,
        "mean": [sum(ratios["after"]) / len(ratios["after"])],
        "change": changes,
        "mean change": [sum(changes) / len(changes)],
    }


def mean_ratio(model: ResNet, images: Tensor) -> float:
    """Returns how large F is beside its shortcut, the mean over blocks."""
    return statistics.fmean(each.ratio for each in residual_magnitudes(model, images))


def warm_up(model: ResNet, images: Tensor) -> None:
    """Lets the running statistics of an untrained network see images, as its first steps would."""
    model.train()
    with torch.no_grad():
        for _ in range(50):
            model(images)
    model.eval()


def lesions(run: Run) -> Measured:
    """Measures the test error with blocks taken out, one or several, or exchanged."""
    network, dataset, _, _ = trained(run)
    return lesion_errors(network, dataset)


def lesion_errors(network: TrainedNetwork, dataset: Dataset) -> Measured:
    """Measures the test error of a network with blocks taken out, one or several, or exchanged.

    It costs an evaluation of the test part for every lesion.

    Returns:
        Errors in percent: `whole`; `one`, by `removable_blocks`; `without 2` and so on, of random
        blocks; `swapped`, by `neighbors`.
    """
    blocks = removable_blocks(network.model)
    generator = torch.Generator().manual_seed(0)

    def some(count: int) -> list[str]:
        order = torch.randperm(len(blocks), generator=generator)
        return [blocks[place] for place in order[:count].tolist()]

    def error() -> float:
        return top1_test_error(network, dataset)

    found: Measured = {"whole": [error()], "one": [], "swapped": []}
    for name in blocks:
        with without_blocks(network.model, [name]):
            found["one"].append(error())
    for count in range(2, min(MOST_LESIONS, len(blocks)) + 1):
        found[f"without {count}"] = []
        for _ in range(LESION_DRAWS):
            with without_blocks(network.model, some(count)):
                found[f"without {count}"].append(error())
    for first, second in neighbors(blocks):
        with swapped(network.model, first, second):
            found["swapped"].append(error())
    return found


def paths(run: Run) -> Measured:
    """Measures how many paths of each length there are, and the gradient each carries."""
    network, _, images, labels = trained(run)
    found = path_gradients(network.model, images, labels, draws=PATHS)
    return {
        "blocks": [each.blocks for each in found],
        "gradient": [each.gradient for each in found],
        "total": [each.total for each in found],
    }


def memory(run: Run) -> Measured:
    """Measures what a training step of the run keeps for its backward pass, in MiB."""
    model, dataset, normalization = at_start(run)
    images, _ = some_images(dataset, "train", normalization)
    for_one = bytes_kept(model, images[:8]) / 8
    return {"mebibytes": [run.recipe.batch_size * for_one / 2**20]}


MEASUREMENTS: dict[str, Callable[[Run], Measured]] = {
    "gradients": gradients,
    "responses": responses,
    "residuals": residuals,
    "lesions": lesions,
    "paths": paths,
    "memory": memory,
}
