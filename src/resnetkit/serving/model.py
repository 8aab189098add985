"""A model that is being served: a predictor, measured and checked before its first answer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from resnetkit.errors import DataError, WeightsError
from resnetkit.inference.engine import Pixels
from resnetkit.inference.exported import check_choices, read_exported
from resnetkit.inference.parity import check_first
from resnetkit.inference.predictor import Predictor, load_predictor
from resnetkit.serving.batcher import Computation
from resnetkit.serving.saliency import Explainer, explainer_of
from resnetkit.weights.exported import is_exported

__all__ = [
    "PROBABILITIES",
    "ServedModel",
    "best_batch",
    "default_name",
    "is_name",
    "load_checked",
    "prepare",
]

PROBABILITIES = "probabilities"  # the output that is not a layer
NEARLY_BEST = 0.97  # of the best rate, with which a smaller batch is preferred
TIMED_SECONDS = 0.2  # of each batch size


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A predictor and how it is served.

    Attributes:
        name: in addresses of the Open Inference Protocol.
        predictor: of the answers.
        computations: by output: probabilities, if the network has a head, and layers.
        widths: length of the rows, by output.
        seconds_per_image: in the best batch.
        explainer: computes saliency maps; None if this network has none.
    """

    name: str
    predictor: Predictor
    computations: dict[str, Computation]
    widths: dict[str, int]
    seconds_per_image: float
    explainer: Explainer | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """Returns channels, height and width of the pixels that the network takes."""
        return (self.predictor.transform.channels, *self.predictor.transform.size)

    @property
    def best_batch(self) -> int:
        """Returns the batch size with the best rate."""
        return next(iter(self.computations.values())).largest_batch


def load_checked(
    path: Path,
    *,
    variant: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    batch_size: int,
) -> Predictor:
    """Loads a predictor; an exported network must compute its golden images as on export.

    Args:
        path: as for `load_predictor`.
        variant: likewise.
        device: likewise.
        precision: likewise.
        batch_size: likewise.

    Raises:
        WeightsError: as `load_predictor`, or when this processor answers differently.
        UsageError: as `load_predictor`.
        DataError: as `load_predictor`.
    """
    if not is_exported(path):
        return load_predictor(
            path, variant=variant, device=device, precision=precision, batch_size=batch_size
        )
    network = read_exported(path)
    check_choices(network, variant=variant, device=device, precision=precision)
    check = check_first(network)
    if not check.holds:
        raise WeightsError(f"{check.sentence} It is not served: export the network again here.")
    return Predictor(network.engine, network.transform, network.class_names, batch_size)


def prepare(name: str, predictor: Predictor, *, longest_batch_seconds: float) -> ServedModel:
    """Measures a predictor on drawn pixels, and so shows that it answers.

    Args:
        name: of the model.
        predictor: its batch size is the largest that is tried.
        longest_batch_seconds: larger batches that take longer are not used.

    Raises:
        DataError: when its output is not finite.
        OutOfMemory: when not even a single image fits into memory.
    """
    engine, transform = predictor.engine, predictor.transform
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, transform.channels, *transform.size), dtype=np.uint8)
    functions: dict[str, Callable[[Pixels], np.ndarray]] = {}
    if "fc" in engine.layers:
        functions[PROBABILITIES] = engine.probabilities
    functions |= {layer: layer_function(predictor, layer) for layer in engine.layers}
    rows = {output: function(pixels)[0] for output, function in functions.items()}
    if not all(np.isfinite(row).all() for row in rows.values()):
        raise DataError(
            f"the network ({engine.origin}) gives values that are not finite: it is corrupt."
        )
    first = next(iter(functions.values()))
    batch, seconds = best_batch(
        lambda size: seconds_of(first, np.repeat(pixels, size, axis=0)),
        largest=predictor.batch_size,
        longest_seconds=longest_batch_seconds,
    )
    computations = {output: Computation(function, batch) for output, function in functions.items()}
    widths = {output: len(row) for output, row in rows.items()}
    explainer = explainer_of(engine)
    return ServedModel(name, predictor, computations, widths, seconds / batch, explainer)


def layer_function(predictor: Predictor, layer: str) -> Callable[[Pixels], np.ndarray]:
    """Returns the function that computes a layer."""
    return lambda pixels: predictor.engine.features(pixels, layer)


def best_batch(
    seconds_of_batch: Callable[[int], float], *, largest: int, longest_seconds: float
) -> tuple[int, float]:
    """Finds the batch size with the best rate among powers of two.

    Args:
        seconds_of_batch: measures a batch of this size.
        largest: batch size.
        longest_seconds: of a batch; 1 is used however long it takes.

    Returns:
        The smallest batch size that is nearly as good as the best, and its seconds.
    """
    measured = {1: seconds_of_batch(1)}
    size = 2
    while size <= largest:
        seconds = seconds_of_batch(size)
        if seconds > longest_seconds:
            break
        measured[size] = seconds
        if size / seconds < 0.8 * max(count / took for count, took in measured.items()):
            break
        size *= 2
    best_rate = max(count / took for count, took in measured.items())
    best = min(count for count, took in measured.items() if count / took >= NEARLY_BEST * best_rate)
    return best, measured[best]


def seconds_of(function: Callable[[Pixels], object], pixels: Pixels) -> float:
    """Returns the shortest time of a few calls, after one that is not timed."""
    function(pixels)
    start = perf_counter()
    times: list[float] = []
    while len(times) < 2 or (perf_counter() - start < TIMED_SECONDS and len(times) < 50):
        before = perf_counter()
        function(pixels)
        times.append(perf_counter() - before)
    return min(times)


def default_name(path: Path) -> str:
    """Returns the name of a model for addresses: that of its folder or file."""
    resolved = path.resolve()
    name = resolved.name if resolved.is_dir() else resolved.stem
    name = resolved.parent.name if resolved.name == "model" else name
    kept = "".join(character if is_plain(character) else "-" for character in name)
    return kept.strip("-.") or "model"


def is_name(name: str) -> bool:
    """Returns whether a name needs no escape in an address, and is no relative path."""
    return bool(name) and name == name.strip("-.") and all(map(is_plain, name))


def is_plain(character: str) -> bool:
    """Returns whether a character needs no escape in an address."""
    return character.isascii() and (character.isalnum() or character in "-_.")
