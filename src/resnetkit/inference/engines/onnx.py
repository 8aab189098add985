"""The engine ONNX Runtime: exported graphs on processors."""

from collections.abc import Iterator, Mapping
from typing import Any

import onnxruntime

from resnetkit.inference.engines.graph import Compiled
from resnetkit.runtime.resources import usable_processors
from resnetkit.weights.protobuf import Value, fields

__all__ = ["compile_graph"]

ERRORS_ONLY = 3  # a level of its log

# Numbers of fields of onnx.proto.
GRAPH = 7  # of a model
NODE, INITIALIZER = 1, 5  # of a graph
ATTRIBUTE = 5  # of a node
TENSOR = 5  # of an attribute
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a tensor

# Fields that can hold tensors too, and that no exported network has.
OF_MODEL = {20: "graphs for training", 25: "functions"}
OF_GRAPH = {15: "sparse weights"}
OF_ATTRIBUTE = {
    6: "a graph",
    10: "tensors",
    11: "graphs",
    22: "a sparse tensor",
    23: "sparse tensors",
}


def compile_graph(files: Mapping[str, bytes], precision: str) -> Compiled:
    """Compiles a graph for the processor; errors are those of the library.

    Args:
        files: model.onnx.
        precision: float32 or int8; the library does not compute bfloat16 on processors.
    """
    check_self_contained(files["model.onnx"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_processors()
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(
        files["model.onnx"], options, providers=["CPUExecutionProvider"]
    )
    pixels_input = session.get_inputs()[0]

    def run(pixels: Any) -> tuple[Any, Any]:
        logits, features = session.run(["logits", "features"], {pixels_input.name: pixels})
        return logits, features

    return Compiled(run, precision, tuple(pixels_input.shape[1:]))


def check_self_contained(content: bytes) -> None:
    """Checks that a graph holds its weights: it may name no other file of this machine.

    Raises:
        ValueError: when it does, has parts that no exported network has, or is no ONNX file.
    """
    check_parts(memoryview(content), OF_MODEL)
    for graph in within(memoryview(content), GRAPH):
        check_parts(graph, OF_GRAPH)
        attributes = [
            attribute for node in within(graph, NODE) for attribute in within(node, ATTRIBUTE)
        ]
        for attribute in attributes:
            check_parts(attribute, OF_ATTRIBUTE)
        tensors = [*within(graph, INITIALIZER)]
        tensors += [tensor for attribute in attributes for tensor in within(attribute, TENSOR)]
        for tensor in tensors:
            if any(is_elsewhere(number, value) for number, value in fields(tensor)):
                raise ValueError("its weights lie in another file")


def check_parts(message: memoryview, unexpected: Mapping[int, str]) -> None:
    """Raises ValueError for a message with one of some fields."""
    for number, _ in fields(message):
        if number in unexpected:
            raise ValueError(f"it holds {unexpected[number]}, as no exported network does")


def within(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yields the messages in the fields of a number."""
    for field_number, value in fields(message):
        if field_number == number and isinstance(value, memoryview):
            yield value


def is_elsewhere(number: int, value: Value) -> bool:
    """Returns whether a field of a tensor says that its values are in another file."""
    return number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)
