"""The engine OpenVINO: exported graphs on processors."""

from collections.abc import Mapping
from typing import Any

from resnetkit.inference.engines.graph import Compiled
from resnetkit.inference.engines.no_telemetry import forbid_telemetry
from resnetkit.runtime.resources import usable_processors

forbid_telemetry()
import openvino  # noqa: E402  # after the telemetry is forbidden

__all__ = ["compile_graph"]


def compile_graph(files: Mapping[str, bytes], precision: str) -> Compiled:
    """Compiles a graph for the processor; errors are those of the library.

    Args:
        files: model.xml and model.bin.
        precision: bfloat16 is used only where it is asked for; a quantized graph computes in
            float32 what is not quantized.
    """
    core = openvino.Core()
    model = core.read_model(files["model.xml"], files["model.bin"])
    hint = "bf16" if precision == "bfloat16" else "f32"
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",  # one stream with all threads
            "INFERENCE_NUM_THREADS": usable_processors(),
            "ENABLE_CPU_PINNING": False,  # or several processes share a core and leave others idle
        },
    )
    request = compiled.create_infer_request()
    ports = [compiled.output(name) for name in ("logits", "features")]

    def run(pixels: Any) -> tuple[Any, Any]:
        request.infer([pixels], share_inputs=True)
        logits, features = (request.get_tensor(port).data for port in ports)
        return logits.copy(), features.copy()

    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    shape = tuple(dim.get_length() for dim in list(compiled.input(0).get_partial_shape())[1:])
    if precision == "bfloat16" and used != "bf16":
        precision = "float32"
    return Compiled(run, precision, shape)
