"""int8 whose accuracy holds, or no int8: chosen on validation images, shown once on test images.

Candidates are tried in order, until one answers like float32 within a budget. The accuracy belongs
to a file and a processor: all of this is measured with the engine that will compute the network,
on this machine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.export import ExportedProgram

from resnetkit.data.dataset import Dataset
from resnetkit.data.splits import Split
from resnetkit.errors import DataError, UsageError, WeightsError
from resnetkit.evaluation.network_data import check_fit, images_for, trained_samples
from resnetkit.evaluation.paired import error_difference, fewest_images
from resnetkit.inference.engine import Floats, Pixels
from resnetkit.inference.engines.graph import BATCH_SIZES, GraphEngine, graph_engine
from resnetkit.inference.exported import EngineName
from resnetkit.inference.graphs import (
    Graph,
    onnx_bytes,
    onnx_model,
    openvino_files,
    openvino_model,
)
from resnetkit.inference.int8_report import Accuracy, Attempt, Budget, Int8Report, Speedup
from resnetkit.inference.nncf_models import Candidate, Control, NncfFailed, quantized_model
from resnetkit.inference.sensitivity import LayerHarm, harm_by_layer
from resnetkit.runtime.processor import processor_features, processor_name
from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "CALIBRATION_IMAGES",
    "FEWEST_CALIBRATION_IMAGES",
    "LEAST_SPEEDUP",
    "candidates",
    "check_images",
    "quantize",
]

CALIBRATION_IMAGES = 300
FEWEST_CALIBRATION_IMAGES = 100
LEAST_SPEEDUP = 1.15  # of int8 against float32 on this machine
SPEED_BATCHES = (1, 8, BATCH_SIZES[-1])
SPEED_ROUNDS = 5
SPEED_SECONDS = 0.2  # of a measurement, at least
BLAMED_LAYERS = 5
BLAME_IMAGES = 32

PRODUCTS_OF_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
"""Instructions that add products of int8 in 32 bits, so that nothing overflows."""

Labels = npt.NDArray[np.int64]


def candidates(features: Sequence[str]) -> tuple[Candidate, ...]:
    """Returns what is tried, in order, on a processor with these instructions."""
    mixed = Candidate("mixed preset", asymmetric=True)
    halved = replace(mixed, description="mixed, overflow fix", overflow_fix=True)
    presets = (mixed,) if PRODUCTS_OF_INT8 & set(features) else (mixed, halved)
    name = presets[-1].description.removesuffix(" preset")
    exact = replace(presets[-1], description=f"{name}, exact bias correction", exact_bias=True)
    ends = replace(
        exact, description="the same, first convolution and head in float32", float_ends=True
    )
    control = replace(ends, description="the same, accuracy control", accuracy_control=True)
    return (Candidate("performance preset"), *presets, exact, ends, control)


def quantize(
    network: TrainedNetwork,
    program: ExportedProgram,
    engine: EngineName,
    dataset: Dataset,
    *,
    budget: Budget,
    observe: Callable[[str], None] = lambda sentence: None,
) -> Graph:
    """Quantizes a network to int8 so that a budget holds; `Graph.int8` says how.

    Args:
        network: see `load_network`.
        program: the same network; see `graphs.trace`.
        engine: openvino or onnx.
        dataset: with images for training, for validation, and best for the test; see `data_of`.
        budget: what int8 may cost.
        observe: called with a sentence for each step.

    Raises:
        DataError: when the network expects other images or classes, or there are too few.
        WeightsError: when no candidate holds; the message names the layers to blame.
        UsageError: when int8 is not at least `LEAST_SPEEDUP` times as fast as float32 here.
    """
    check_images(network, dataset, budget)
    dataset = replace(dataset, images=images_for(network, dataset))
    search = Search(network, program, engine, dataset, budget)
    attempts: list[Attempt] = []
    for candidate in candidates(processor_features()):
        attempt, graph = search.attempt(candidate)
        attempts.append(attempt)
        observe(f"{candidate.description}: {attempt.accuracy or attempt.problem}")
        if graph is not None and attempt.accuracy and budget.used(attempt.accuracy) <= 1:
            return replace(graph, int8=search.report(graph, attempts))
    observe("no candidate holds: each layer is computed alone in int8, to see which are to blame")
    raise search.refusal(attempts)


def check_images(network: TrainedNetwork, dataset: Dataset, budget: Budget) -> None:
    """Raises DataError for images that cannot calibrate a network, or show that a budget holds."""
    check_fit(network, dataset)
    training, validation = (len(dataset.splits[split]) for split in ("train", "validation"))
    if training < FEWEST_CALIBRATION_IMAGES:
        raise DataError(
            f"'{dataset.name}' has too few training images to calibrate int8: {training:,},"
            f" expected {FEWEST_CALIBRATION_IMAGES} or more (and {CALIBRATION_IMAGES} are used)."
            " Name the data that the network was trained on with --data."
        )
    needed = fewest_images(budget.points)
    if validation < needed:
        possible = error_difference(*[np.zeros(validation, dtype=np.bool_)] * 2).high
        raise DataError(
            f"'{dataset.name}' has too few validation images to show that int8 adds at most"
            f" {budget.points:g} points of error: {validation:,}, expected {needed:,} or more."
            f" Name larger data with --data, or allow more with --budget: these images can show"
            f" {possible:.2f} points at best."
        )


class Search:
    """What all candidates are compared with."""

    def __init__(
        self,
        network: TrainedNetwork,
        program: ExportedProgram,
        engine: EngineName,
        dataset: Dataset,
        budget: Budget,
    ) -> None:
        self.network, self.engine, self.dataset, self.budget = network, engine, dataset, budget
        self.model = openvino_model(program) if engine == "openvino" else onnx_model(program)
        self.float_engine = self.compiled(graph_of(self.model, engine, "float32"))
        self.float_logits = self.logits(self.float_engine, "validation")
        self.calibration = [
            self.pixels(sample_ids)
            for sample_ids in evenly_spaced(dataset.splits["train"], CALIBRATION_IMAGES).split(1)
        ]

    def attempt(self, candidate: Candidate) -> tuple[Attempt, Graph | None]:
        """Quantizes in one way, and measures the accuracy on the validation split."""
        try:
            model = quantized_model(
                self.model, self.engine, self.calibration, candidate, self.control()
            )
        except NncfFailed as error:
            return Attempt(candidate.description, None, f"NNCF failed: {error}"), None
        graph = graph_of(model, self.engine, "int8")
        logits = self.logits(self.compiled(graph), "validation")
        accuracy = self.accuracy("validation", logits, self.float_logits)
        return Attempt(candidate.description, accuracy), graph

    def control(self) -> Control:
        """Returns what the accuracy control asks for."""
        batches = self.dataset.splits["validation"].split(BATCH_SIZES[-1])
        float_logits = np.split(self.float_logits, np.cumsum([len(ids) for ids in batches])[:-1])

        def budget_used(indices: Sequence[int], logits: Sequence[Floats]) -> float:
            sample_ids = torch.cat([batches[index] for index in indices])
            expected = np.concatenate([float_logits[index] for index in indices])
            labels = self.labels(sample_ids)
            accuracy = compare("validation", np.concatenate(logits), expected, labels)
            return self.budget.used(accuracy)

        return Control(
            pixels=lambda index: self.pixels(batches[index]),
            count=len(batches),
            batch_size=BATCH_SIZES[-1],
            budget_used=budget_used,
            least=budget_used(range(len(batches)), float_logits),
        )

    def report(self, graph: Graph, attempts: Sequence[Attempt]) -> Int8Report:
        """Measures the speed and, once, the accuracy on the test split.

        Raises:
            UsageError: when int8 is not fast enough to be offered.
        """
        engine, validation = self.compiled(graph), self.dataset.splits["validation"]
        speedup = measure_speedup(
            engine, self.float_engine, self.pixels(validation[: BATCH_SIZES[-1]])
        )
        if speedup.best < LEAST_SPEEDUP:
            raise too_slow(self.engine, speedup)
        return Int8Report(
            data=self.dataset.title,
            calibration_images=len(self.calibration),
            budget=self.budget,
            attempts=tuple(attempts),
            test=self.test_accuracy(engine),
            learned=len(trained_samples(self.network, self.dataset, validation)),
            speedup=speedup,
            processor=processor_name(),
            processor_features=processor_features(),
        )

    def test_accuracy(self, engine: GraphEngine) -> Accuracy | None:
        """Returns the accuracy on the test split; None where it is empty, or that of validation."""
        test, validation = self.dataset.splits["test"], self.dataset.splits["validation"]
        if not len(test) or test.equal(validation):
            return None
        logits = [self.logits(computer, "test") for computer in (engine, self.float_engine)]
        return self.accuracy("test", *logits)

    def refusal(self, attempts: Sequence[Attempt]) -> WeightsError:
        """Returns the error for a network whose int8 does not hold, with the layers to blame."""
        measured = [
            (self.budget.used(attempt.accuracy), attempt.candidate, str(attempt.accuracy))
            for attempt in attempts
            if attempt.accuracy
        ]
        if not measured:
            return WeightsError(
                f"this network cannot be quantized: {attempts[-1].problem}. Export it in float32."
            )
        _, candidate, accuracy = min(measured)
        pixels = np.concatenate(self.calibration[:BLAME_IMAGES])
        harms = harm_by_layer(self.network, pixels)
        return WeightsError(
            f"int8 costs this network too much, so nothing was written. The best of"
            f" {len(attempts)} candidates ({candidate}): {accuracy}. Expected:"
            f" {self.budget}. {blame(harms, len(pixels))} Export it in float32 or bfloat16."
        )

    def accuracy(self, split: Split, logits: Floats, float_logits: Floats) -> Accuracy:
        """Compares the logits of all images of a split."""
        return compare(split, logits, float_logits, self.labels(self.dataset.splits[split]))

    def logits(self, engine: GraphEngine, split: Split) -> Floats:
        """Returns the logits of all images of a split: float32 (N, K)."""
        batches = self.dataset.splits[split].split(BATCH_SIZES[-1])
        return np.concatenate([engine.outputs(self.pixels(ids)).logits for ids in batches])

    def pixels(self, sample_ids: torch.Tensor) -> Pixels:
        """Returns images as prediction sees them: uint8 (B, C, H, W)."""
        return np.ascontiguousarray(self.dataset.images[sample_ids].numpy())

    def labels(self, sample_ids: torch.Tensor) -> Labels:
        """Returns the labels of images, int64 (B,)."""
        labels: Labels = self.dataset.labels[sample_ids].numpy()
        return labels

    def compiled(self, graph: Graph) -> GraphEngine:
        """Compiles a graph of this network."""
        return graph_engine(
            self.engine,
            graph.files,
            precision=graph.precision,
            origin=f"{self.engine} {graph.precision}: {self.network.origin}",
            network_sha256="",
        )


def graph_of(model: Any, engine: EngineName, precision: Any) -> Graph:
    """Returns the graph of a model of an engine."""
    if engine == "openvino":
        return Graph(engine, precision, openvino_files(model))
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    return Graph(engine, precision, {"model.onnx": onnx_bytes(model)}, opset)


def compare(split: Split, logits: Floats, float_logits: Floats, labels: Labels) -> Accuracy:
    """Compares logits (N, K) of int8 with those of float32."""
    predicted, expected = logits.argmax(1), float_logits.argmax(1)
    wrong, float_wrong = predicted != labels, expected != labels
    return Accuracy(
        split=split,
        images=len(labels),
        agreement=100 * float((predicted == expected).mean()),
        error=100 * float(wrong.mean()),
        float_error=100 * float(float_wrong.mean()),
        difference=error_difference(wrong, float_wrong),
    )


def evenly_spaced(sample_ids: torch.Tensor, count: int) -> torch.Tensor:
    """Returns up to `count` samples of a split, from all of its range."""
    rows = torch.linspace(0, len(sample_ids) - 1, min(count, len(sample_ids)))
    return sample_ids[rows.long()]


def measure_speedup(int8: GraphEngine, float32: GraphEngine, pixels: Pixels) -> Speedup:
    """Measures two engines in turns.

    Args:
        int8: engine.
        float32: engine.
        pixels: uint8 (B, C, H, W), a batch of the largest size.
    """
    sizes = [size for size in SPEED_BATCHES if size <= len(pixels)]
    rounds = []
    for number in range(SPEED_ROUNDS + 1):  # the first is the warm-up
        engines = (int8, float32) if number % 2 else (float32, int8)
        rates = {
            engine: [images_per_second(engine, pixels[:size]) for size in sizes]
            for engine in engines
        }
        rounds.append((rates[int8], rates[float32]))
    best = [max(ours) / max(floats) for ours, floats in rounds[1:]]
    single = [ours[0] / floats[0] for ours, floats in rounds[1:]]
    return Speedup(median(best), min(best), max(best), median(single))


def images_per_second(engine: GraphEngine, pixels: Pixels) -> float:
    """Measures one size of batch, for two batches at least."""
    calls, began = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - began < SPEED_SECONDS:
        engine.outputs(pixels)
        calls += 1
    return calls * len(pixels) / (time.perf_counter() - began)


def too_slow(engine: EngineName, speedup: Speedup) -> UsageError:
    """Returns the error for an int8 that is not offered."""
    features = " ".join(processor_features()) or "unknown instructions"
    return UsageError(
        f"int8 is {speedup.best:.2f} times as fast as float32 with {engine} on this machine"
        f" ({speedup.low:.2f} to {speedup.high:.2f}; {processor_name()}, {features}), expected"
        f" {LEAST_SPEEDUP} times or more, so nothing was written. Export it in float32, or on the"
        " machine that will compute it."
    )


def blame(harms: Sequence[LayerHarm], images: int) -> str:
    """Returns which layers are to blame, as a sentence."""
    guilty = [harm for harm in harms if harm.changed > 0][:BLAMED_LAYERS]
    if not guilty:
        return (
            f"No layer alone changes the class of any of {images} images: their errors add up, most"
            f" of all in {', '.join(harm.layer for harm in harms[:BLAMED_LAYERS])}."
        )
    listed = ", ".join(f"{harm.layer} ({harm.changed:.0f} %)" for harm in guilty)
    return (
        f"Layers to blame, with the fraction of {images} images whose class changes when they alone"
        f" are in int8: {listed}."
    )
