"""An engine for exported graphs, whichever library computes them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from resnetkit.errors import OutOfMemory, UsageError, WeightsError, is_out_of_memory
from resnetkit.inference.engine import Floats, Pixels, Scores, check_layer, softmax

__all__ = [
    "BATCH_SIZES",
    "Compiled",
    "GraphEngine",
    "Outputs",
    "first_outputs",
    "graph_engine",
    "pieces",
]

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Sizes of the batches that a library ever sees: it keeps buffers and kernels for each."""

MOST_PADDING = 0.25  # of a batch

MODULES: Mapping[str, str] = {
    "openvino": "resnetkit.inference.engines.openvino",
    "onnx": "resnetkit.inference.engines.onnx",
}

Run = Callable[[Pixels], tuple[Floats, Floats]]
"""Maps pixels (B, C, H, W) to logits (B, K) and pooled features (B, D)."""


@dataclass(frozen=True)
class Compiled:
    """A graph as a library has compiled it.

    Attributes:
        run: computes a batch; it is called by one thread at a time, and its results are not
            changed by the next call.
        precision: that the library uses on this processor.
        input_shape: C, H and W; the size of the batch is free.
    """

    run: Run
    precision: str
    input_shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a graph computes of a batch.

    Attributes:
        logits: float32 (B, K).
        features: float32 (B, D), the input of the head.
    """

    logits: Floats
    features: Floats


class GraphEngine:
    """Computes an exported graph; see `Engine`.

    Batches of any size are computed in pieces of `BATCH_SIZES`, so that memory does not grow with
    the number of sizes that were seen.
    """

    layers = ("pool", "fc")

    def __init__(self, name: str, compiled: Compiled, *, origin: str, network_sha256: str) -> None:
        self.name = name
        self.precision = compiled.precision
        self.origin = origin
        self.network_sha256 = network_sha256
        self.input_shape = compiled.input_shape
        self._run = compiled.run
        self._lock = threading.Lock()

    def probabilities(self, pixels: Pixels) -> Scores:
        return softmax(self.outputs(pixels).logits)

    def features(self, pixels: Pixels, layer: str) -> Floats:
        check_layer(layer, self.layers)
        outputs = self.outputs(pixels)
        return outputs.logits if layer == "fc" else outputs.features

    def outputs(self, pixels: Pixels) -> Outputs:
        """Returns the logits and features of a batch of any size.

        Args:
            pixels: uint8 (B, C, H, W), with at least one image.

        Raises:
            UsageError: when they have another shape or type.
            OutOfMemory: when the batch does not fit into memory.
        """
        self.check_pixels(pixels)
        logits, features, start = [], [], 0
        with self._lock, out_of_memory():
            for count, size in pieces(len(pixels)):
                results = self._run(padded(pixels[start : start + count], size))
                logits.append(results[0][:count])
                features.append(results[1][:count])
                start += count
        return Outputs(joined(logits), joined(features))

    def check_pixels(self, pixels: Pixels) -> None:
        """Raises UsageError for pixels that are not a batch for this graph."""
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.input_shape or not len(pixels):
            shape = ", ".join(map(str, self.input_shape))
            raise UsageError(
                f"pixels of type {pixels.dtype} and shape {pixels.shape}: expected uint8 (B,"
                f" {shape})."
            )


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """Yields the images and the size of each piece that a batch is computed in.

    A piece is padded where at most a quarter of it is padding, and complete otherwise: 7 images are
    a piece of 8, and 17 are a piece of 16 and one of 1.
    """
    while count:
        size = next((size for size in BATCH_SIZES if size >= count), BATCH_SIZES[-1])
        if size - count > MOST_PADDING * size:
            size = max(smaller for smaller in BATCH_SIZES if smaller <= count)
        yield min(count, size), size
        count -= min(count, size)


def padded(pixels: Pixels, size: int) -> Pixels:
    """Returns pixels in contiguous memory, followed by black images up to a size."""
    if len(pixels) == size:
        return np.ascontiguousarray(pixels)
    batch = np.zeros((size, *pixels.shape[1:]), dtype=np.uint8)
    batch[: len(pixels)] = pixels
    return batch


def joined(parts: list[Floats]) -> Floats:
    """Returns the rows of all pieces."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Turns what a library raises when memory runs out into OutOfMemory."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "there is not enough memory for a batch of this size: use a smaller --batch-size"
            " where the command has it, or a smaller network."
        ) from error


def graph_engine(
    name: str, files: Mapping[str, bytes], *, precision: str, origin: str, network_sha256: str
) -> GraphEngine:
    """Compiles a graph; `first_outputs` shows whether it can be computed.

    Args:
        name: openvino or onnx.
        files: content of the graph's files, by name.
        precision: float32, bfloat16, or int8 for a graph that is quantized.
        origin: see `Engine`.
        network_sha256: see `Engine`.

    Raises:
        UsageError: when the library is not installed.
        WeightsError: when the files are not a graph.
    """
    try:
        compile_graph = import_module(MODULES[name]).compile_graph
    except ImportError as error:
        raise missing_library(name, error) from error
    with corrupt_graph(name, origin):
        compiled: Compiled = compile_graph(files, precision)
        return GraphEngine(name, compiled, origin=origin, network_sha256=network_sha256)


def first_outputs(engine: GraphEngine, pixels: Pixels, widths: tuple[int, int]) -> Outputs:
    """Computes a batch with an engine whose graph may not be that of its network.

    Args:
        engine: that has computed nothing yet.
        pixels: as for `GraphEngine.outputs`.
        widths: K and D that its outputs must have.

    Raises:
        WeightsError: when it cannot be computed, or its outputs have other widths.
    """
    with corrupt_graph(engine.name, engine.origin):
        outputs = engine.outputs(pixels)
    actual = outputs.logits.shape[1], outputs.features.shape[1]
    if actual != widths:
        raise WeightsError(
            f"the graph of the network ({engine.origin}) gives {actual[0]} logits and {actual[1]}"
            f" features, expected {widths[0]} and {widths[1]}. Export the network again."
        )
    return outputs


@contextmanager
def corrupt_graph(name: str, origin: str) -> Iterator[None]:
    """Turns what a library raises for a graph that is none into WeightsError."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:  # what these libraries raise is their own affair
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"the graph of the network ({origin}) cannot be computed by {name}"
            f" ({first_line(error)}). Export the network again."
        ) from error


def missing_library(name: str, error: ImportError) -> UsageError:
    """Returns the error for an engine whose library is not installed."""
    package = {"onnx": "onnxruntime"}.get(name, name)
    return UsageError(
        f"the engine {name} needs {package}, which cannot be imported here ({first_line(error)}):"
        " pip install 'resnetkit[export]'."
    )


def first_line(error: Exception) -> str:
    """Returns the last line of an error that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200].rstrip(".")
