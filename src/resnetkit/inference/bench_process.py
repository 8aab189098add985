"""What a process of `bench` does: it measures one network, or predicts with it."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.errors import ResnetkitError
from resnetkit.inference.engine import Engine, Pixels
from resnetkit.inference.predictor import Predictor, load_predictor

__all__ = ["FIRST_ANSWER", "Measured", "main"]

FIRST_ANSWER = "first answer"
BATCHES = (1, 2, 4, 8, 16, 32)
FEWEST_CALLS = 3
FEWEST_SINGLE = 20  # calls with one image
PREDICTED_BATCH = 32


@dataclass(frozen=True)
class Measured:
    """What one process measured.

    Attributes:
        engine: its name.
        precision: of the computation.
        p50: median time of a batch of one image, in milliseconds.
        p99: 99th percentile of it.
        rates: images per second by size of batch.
        peak_bytes: memory of the process.
    """

    engine: str
    precision: str
    p50: float
    p99: float
    rates: Mapping[int, float]
    peak_bytes: int

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Measured":
        """Returns what a process has printed as JSON."""
        rates = {int(batch): rate for batch, rate in fields["rates"].items()}
        return cls(**{**fields, "rates": rates})


def main() -> None:
    """Does what the command line says; an error of ours is printed as JSON, with exit code 1."""
    work, *arguments = sys.argv[1:]
    try:
        WORKS[work](*arguments)
    except ResnetkitError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)


def loaded(path: str, precision: str) -> Predictor:
    """Loads a network as `resnet predict` does; an exported one has its own precision."""
    from resnetkit.weights.exported import is_exported

    chosen = None if is_exported(Path(path)) else precision
    return load_predictor(path, device="cpu", precision=chosen)


def measure(path: str, precision: str, seconds: str) -> None:
    """Prints a line at the first answer, and the measurement as JSON at the end."""
    from resnetkit.runtime.peak import peak_memory

    predictor = loaded(path, precision)
    engine, pixels = predictor.engine, drawn_pixels(predictor, BATCHES[-1])
    engine.probabilities(pixels[:1])
    print(FIRST_ANSWER, flush=True)
    single = timed(engine, pixels[:1], float(seconds), FEWEST_SINGLE)
    rates = {1: 1 / float(np.mean(single))}
    for batch in BATCHES[1:]:
        rates[batch] = batch / float(
            np.mean(timed(engine, pixels[:batch], float(seconds), FEWEST_CALLS))
        )
    p50, p99 = np.percentile(single, [50, 99])
    measured = Measured(
        engine=engine.name,
        precision=engine.precision,
        p50=1000 * float(p50),
        p99=1000 * float(p99),
        rates=rates,
        peak_bytes=peak_memory(),
    )
    print(json.dumps(asdict(measured)))


def drawn_pixels(predictor: Predictor, count: int) -> Pixels:
    """Returns random pixels: what is computed does not depend on them."""
    shape = (count, predictor.transform.channels, *predictor.transform.size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def timed(engine: Engine, pixels: Pixels, seconds: float, fewest: int) -> list[float]:
    """Returns the seconds of each call after a warm-up."""
    compute: Callable[[Pixels], object] = engine.probabilities
    compute(pixels)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < fewest or time.perf_counter() - began < seconds:
        before = time.perf_counter()
        compute(pixels)
        times.append(time.perf_counter() - before)
    return times


def predict(path: str, precision: str, data: str, out: str) -> None:
    """Writes the labels and predicted classes of a test split: int64 (2, N), as numpy does."""
    from resnetkit.evaluation.evaluate import nonempty_split
    from resnetkit.evaluation.network_data import check_fit, data_of
    from resnetkit.weights.exported import is_exported

    network: Any
    if is_exported(Path(path)):
        from resnetkit.inference.parity import load_exported

        network = load_exported(Path(path))
        engine: Engine = network.engine
    else:
        from resnetkit.inference.engines.torch import TorchEngine
        from resnetkit.weights.load import load_network

        network = load_network(path)
        engine = TorchEngine(network, device="cpu", precision=precision)
    dataset = data_of(network, data)
    check_fit(network, dataset)
    sample_ids = nonempty_split(dataset, "test")
    predicted = [
        engine.probabilities(np.ascontiguousarray(dataset.images[ids].numpy())).argmax(1)
        for ids in sample_ids.split(PREDICTED_BATCH)
    ]
    labels = dataset.labels[sample_ids].numpy()
    np.save(out, np.stack([labels, np.concatenate(predicted)]))


WORKS: Mapping[str, Callable[..., None]] = {"measure": measure, "predict": predict}
