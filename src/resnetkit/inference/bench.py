"""Measures networks and engines side by side, in fresh processes that take turns.

A machine whose speed drifts treats all of them alike, and nobody profits from what another one has
warmed up. Every process loads a network as `resnet predict` does, and is measured from its start.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from resnetkit.errors import DataError, ResnetkitError, UsageError
from resnetkit.evaluation.paired import ErrorDifference, error_difference
from resnetkit.inference.bench_process import FIRST_ANSWER, Measured

__all__ = ["Answers", "BatchRate", "BenchRow", "Plan", "Spread", "bench"]

STARTING_SECONDS = 300  # that a process may take besides what is measured
SECONDS_EACH = 40  # that it may take for every second of a measurement: large batches take longer
PREDICTING_SECONDS = 4 * 3600


@dataclass(frozen=True)
class Plan:
    """How often and how long is measured.

    Attributes:
        rounds: processes of each network.
        seconds: of each measurement, one for a size of batch.

    Raises:
        UsageError: when one of them is out of range.
    """

    rounds: int = 3
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 100:
            raise UsageError(f"{self.rounds} rounds: expected from 1 to 100.")
        if not 0.01 <= self.seconds <= 600:
            raise UsageError(f"{self.seconds:g} seconds: expected from 0.01 to 600.")


@dataclass(frozen=True)
class Spread:
    """The median of several processes, with the lowest and the highest.

    Attributes:
        median: of all.
        low: lowest.
        high: highest.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class BatchRate:
    """How fast batches of one size are computed.

    Attributes:
        batch: images.
        images_per_second: over all processes.
    """

    batch: int
    images_per_second: Spread


@dataclass(frozen=True)
class Answers:
    """How a network answers the images of a test split.

    Attributes:
        images: their number.
        error: in percent.
        agreement: percentage with the same most probable class as the first network.
        difference: of its error and that of the first network, in points.
    """

    images: int
    error: float
    agreement: float
    difference: ErrorDifference


@dataclass(frozen=True)
class BenchRow:
    """What was measured of a network.

    Attributes:
        name: as it was given.
        engine: torch, openvino or onnx.
        precision: of its computation on this machine.
        processes: their number.
        p50: median time of a batch of one image, in milliseconds.
        p99: 99th percentile of it.
        rates: for each size of batch, the smallest first.
        memory: peak of a process, in MiB; 0 where the system does not say.
        start: from the start of a process to its first answer, in seconds.
        answers: on the test split; None without data.
    """

    name: str
    engine: str
    precision: str
    processes: int
    p50: Spread
    p99: Spread
    rates: tuple[BatchRate, ...]
    memory: Spread
    start: Spread
    answers: Answers | None

    @property
    def best(self) -> BatchRate:
        """Returns the rate of the best size of batch."""
        return max(self.rates, key=lambda rate: rate.images_per_second.median)


def bench(
    networks: Sequence[Path],
    *,
    plan: Plan,
    precision: str = "float32",
    data: str | None = None,
    observe: Callable[[float, str], None] = lambda fraction, name: None,
) -> list[BenchRow]:
    """Measures networks on the processor, in fresh processes that take turns.

    Args:
        networks: folders of exported networks, or anything that `load_network` takes, which torch
            computes.
        plan: how often and how long.
        precision: of networks that torch computes.
        data: data set whose test split all of them predict, once; the first is the reference.
        observe: called with the fraction done, from 0 to 1, and the network in turn.

    Raises:
        UsageError: when there are no networks.
        ResnetkitError: when a process fails; the message is its own.
    """
    if not networks:
        raise UsageError("no networks: name exported folders, runs or weights.")
    total = len(networks) * (plan.rounds + (data is not None))
    answers: list[Answers | None] = [None] * len(networks)
    if data is not None:  # first, because data that cannot be read is noticed here
        observe(0.0, f"the test split of {data}")
        answers[:] = compared_answers(networks, precision, data)
    turns = [
        index for number in range(plan.rounds) for index in rotated(range(len(networks)), number)
    ]
    measurements: list[list[tuple[float, Measured]]] = [[] for _ in networks]
    for done, index in enumerate(turns, start=total - len(turns)):
        observe(done / total, str(networks[index]))
        measurements[index].append(in_fresh_process(networks[index], precision, plan.seconds))
    observe(1.0, "")
    return [
        row(str(network), measured, answer)
        for network, measured, answer in zip(networks, measurements, answers, strict=True)
    ]


def rotated(indices: range, number: int) -> list[int]:
    """Returns indices in the order of a round: every network is first now and then."""
    start = number % len(indices)
    return [*indices[start:], *indices[:start]]


def in_fresh_process(network: Path, precision: str, seconds: float) -> tuple[float, Measured]:
    """Measures a network once: the seconds to its first answer, and what its process printed."""
    deadline = STARTING_SECONDS + SECONDS_EACH * seconds
    began = time.perf_counter()
    with started("measure", network, precision, str(seconds)) as process:
        assert process.stdout is not None
        killer = threading.Timer(deadline, process.kill)
        killer.start()
        try:
            first = process.stdout.readline()
        finally:
            killer.cancel()
        start = time.perf_counter() - began
        if start >= deadline:
            raise too_late(network, deadline)
        output = finish(process, network, deadline)
    if first.strip() != FIRST_ANSWER:
        raise failure(network, first + output)
    return start, Measured.of(json.loads(output.splitlines()[-1]))


def started(work: str, network: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Starts a process that works with a network."""
    code = "from resnetkit.inference.bench_process import main; main()"
    command = [sys.executable, "-c", code, work, str(network), *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


def finish(process: "subprocess.Popen[str]", network: Path, deadline: float) -> str:
    """Returns the rest of what a process prints.

    Raises:
        ResnetkitError: when it fails, or does not end in time.
    """
    try:
        output, _ = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        raise too_late(network, deadline) from None
    if process.returncode:
        raise failure(network, output)
    return output


def too_late(network: Path, deadline: float) -> ResnetkitError:
    """Returns the error of a process that did not end in time."""
    return ResnetkitError(
        f"the measurement of {network} did not end within {deadline:.0f} s: measure fewer"
        " networks, or with fewer --seconds."
    )


def failure(network: Path, output: str) -> ResnetkitError:
    """Returns the error of a process that failed; an error of ours was printed as JSON."""
    lines = output.strip().splitlines()
    try:
        message = json.loads(lines[-1])["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        message = f"its process failed ({lines[-1][:200] if lines else 'without a word'})."
    return ResnetkitError(f"{network}: {message}")


def compared_answers(networks: Sequence[Path], precision: str, data: str) -> list[Answers]:
    """Lets each network predict a test split in its own process, and compares the answers."""
    with TemporaryDirectory(prefix="resnetkit-") as folder:
        predictions = []
        for index, network in enumerate(networks):
            path = Path(folder) / f"{index}.npy"
            with started("predict", network, precision, data, str(path)) as process:
                finish(process, network, PREDICTING_SECONDS)
            predictions.append(np.load(path, allow_pickle=False))
    labels, reference = predictions[0]
    for network, (other, _) in zip(networks, predictions, strict=True):
        if not np.array_equal(other, labels):
            raise DataError(
                f"{network} reads other test images from '{data}' than {networks[0]}, or numbers"
                " their classes in another order: compare networks of the same classes in the same"
                " order, or measure their errors with 'resnet evaluate'."
            )
    return [compare(predicted, reference, labels) for _, predicted in predictions]


Labels = npt.NDArray[np.int64]


def compare(predicted: Labels, reference: Labels, labels: Labels) -> Answers:
    """Compares predictions (N,) with those of the first network."""
    wrong = predicted != labels
    return Answers(
        images=len(labels),
        error=100 * float(wrong.mean()),
        agreement=100 * float((predicted == reference).mean()),
        difference=error_difference(wrong, reference != labels),
    )


def row(name: str, measured: Sequence[tuple[float, Measured]], answers: Answers | None) -> BenchRow:
    """Summarizes the processes of a network."""
    processes = [process for _, process in measured]
    first = processes[0]
    return BenchRow(
        name=name,
        engine=first.engine,
        precision=first.precision,
        processes=len(processes),
        p50=spread([process.p50 for process in processes]),
        p99=spread([process.p99 for process in processes]),
        rates=tuple(
            BatchRate(batch, spread([process.rates[batch] for process in processes]))
            for batch in sorted(first.rates)
        ),
        memory=spread([process.peak_bytes / 2**20 for process in processes]),
        start=spread([start for start, _ in measured]),
        answers=answers,
    )


def spread(values: Sequence[float]) -> Spread:
    """Returns the median, the lowest and the highest of some values."""
    return Spread(median(values), min(values), max(values))


def as_json(rows: Sequence[BenchRow]) -> list[dict[str, Any]]:
    """Returns rows as objects, with the best size of batch."""
    return [{**asdict(line), "best_batch": line.best.batch} for line in rows]
