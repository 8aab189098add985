"""The engine OpenVINO: exported graphs on processors."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from resnetkit.inference.engines.graph import Compiled
from resnetkit.inference.engines.no_telemetry import forbid_telemetry
from resnetkit.runtime.processor import unused_instructions
from resnetkit.runtime.resources import usable_processors

forbid_telemetry()
import openvino  # noqa: E402  # after the telemetry is forbidden

__all__ = ["compile_graph"]


def compile_graph(files: Mapping[str, bytes], precision: str) -> Compiled:
    """Compiles a graph for the processor; errors are those of the library.

    Args:
        files: model.xml and model.bin.
        precision: bfloat16 is used only where it is asked for, and float32 in its place where this
            processor does not compute it; a quantized graph computes in float32 what is not
            quantized.
    """
    core = shared_core()
    model = core.read_model(files["model.xml"], files["model.bin"])
    if precision == "bfloat16" and "avx512_bf16".startswith(unused_instructions()):
        precision = "float32"  # OpenVINO does not know of it, and fails or crashes (2026.4)
    if precision == "bfloat16":
        compiled, precision = compiled_in_bfloat16(core, model)
    else:
        compiled = core.compile_model(model, "CPU", options("f32"))
    request = compiled.create_infer_request()
    ports = [compiled.output(name) for name in ("logits", "features")]

    def run(pixels: Any) -> tuple[Any, Any]:
        request.infer([pixels], share_inputs=True)
        logits, features = (request.get_tensor(port).data for port in ports)
        return logits.copy(), features.copy()

    shape = tuple(dim.get_length() for dim in list(compiled.input(0).get_partial_shape())[1:])
    return Compiled(run, precision, shape)


@cache
def shared_core() -> Any:
    """Returns the `openvino.Core` of this process, which is kept.

    A core gives the thread that creates it a stack for signal handlers. Of two cores, the one that
    ends last leaves the stack of the other, which may be freed: then the next signal would end the
    process (OpenVINO 2026.4).
    """
    return openvino.Core()


def compiled_in_bfloat16(core: Any, model: Any) -> tuple[Any, str]:
    """Compiles for bfloat16, or for float32 where this processor does not compute bfloat16.

    OpenVINO falls back by itself, or finds no kernel.
    """
    try:
        compiled = core.compile_model(model, "CPU", options("bf16"))
    except RuntimeError:
        return core.compile_model(model, "CPU", options("f32")), "float32"
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return compiled, "bfloat16" if used == "bf16" else "float32"


def options(hint: str) -> dict[str, Any]:
    """Returns the options of a compilation."""
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",  # one stream with all threads
        "INFERENCE_NUM_THREADS": usable_processors(),
        "ENABLE_CPU_PINNING": False,  # or several processes share a core and leave others idle
    }
