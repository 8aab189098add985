"""The engine ONNX Runtime: exported graphs on processors."""

from collections.abc import Mapping
from typing import Any

import onnxruntime

from resnetkit.inference.engines.graph import Compiled
from resnetkit.runtime.resources import usable_processors

__all__ = ["compile_graph"]

ERRORS_ONLY = 3  # a level of its log


def compile_graph(files: Mapping[str, bytes], precision: str) -> Compiled:
    """Compiles a graph for the processor; errors are those of the library.

    Args:
        files: model.onnx.
        precision: float32 or int8; the library does not compute bfloat16 on processors.
    """
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
