"""Quantizes the model of an engine with NNCF."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnetkit.inference.engine import Floats, Pixels
from resnetkit.inference.engines.graph import first_line
from resnetkit.inference.engines.no_telemetry import forbid_telemetry
from resnetkit.inference.exported import EngineName
from resnetkit.inference.graphs import onnx_bytes, quietly

forbid_telemetry()
import nncf  # noqa: E402  # after the telemetry is forbidden
from nncf import quantization  # noqa: E402

__all__ = ["Candidate", "Control", "NncfFailed", "quantized_model"]

MOST_REVERTED = 10  # groups of layers that the accuracy control returns to float32
RANKED_IMAGES = 300  # that it ranks layers with


class NncfFailed(Exception):
    """NNCF cannot quantize a model in this way; the message is its own."""


@dataclass(frozen=True)
class Candidate:
    """A way to quantize.

    Attributes:
        description: for people.
        asymmetric: whether activations have a zero point of their own (the preset mixed), or none
            (the preset performance).
        overflow_fix: whether weights use half of their range: processors without VNNI add products
            in 16 bits, which overflow otherwise.
        exact_bias: whether biases are corrected layer by layer, on what the layers before compute
            in int8, or all at once.
        float_ends: whether the first convolution and the head stay in float32.
        accuracy_control: whether layers return to float32, the most harmful first, until the budget
            holds.
    """

    description: str
    asymmetric: bool = False
    overflow_fix: bool = False
    exact_bias: bool = False
    float_ends: bool = False
    accuracy_control: bool = False


@dataclass(frozen=True)
class Control:
    """What the accuracy control needs to know.

    Attributes:
        pixels: maps the index of a batch to its images, uint8 (B, C, H, W).
        count: of batches.
        batch_size: of all but the last one.
        budget_used: maps the logits of some batches, by their index, to the fraction of the budget
            that their answers use, of which 1 is allowed.
        least: fraction that the network itself uses, because the images are not infinitely many.
    """

    pixels: Callable[[int], Pixels]
    count: int
    batch_size: int
    budget_used: Callable[[Sequence[int], Sequence[Floats]], float]
    least: float


def quantized_model(
    model: Any, engine: EngineName, images: Sequence[Pixels], candidate: Candidate, control: Control
) -> Any:
    """Returns a quantized copy of a model in float32.

    Args:
        model: an `openvino.Model` or an `onnx.ModelProto`.
        engine: openvino or onnx.
        images: for calibration, each uint8 (1, C, H, W).
        candidate: how it is quantized.
        control: used by the accuracy control alone.

    Raises:
        NncfFailed: when NNCF cannot.
    """
    copy = model.clone() if engine == "openvino" else deepcopy(model)
    items = list(images) if engine == "openvino" else [{"pixels": image} for image in images]
    options = {
        "preset": nncf.QuantizationPreset.MIXED
        if candidate.asymmetric
        else nncf.QuantizationPreset.PERFORMANCE,
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(images),
        "fast_bias_correction": not candidate.exact_bias,
        "ignored_scope": nncf.IgnoredScope(names=ends(copy, engine))
        if candidate.float_ends
        else None,
    }
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if candidate.overflow_fix else nncf.OverflowFix.DISABLE
    )
    try:
        with quietly():
            if not candidate.accuracy_control:
                return nncf.quantize(
                    copy, nncf.Dataset(items), advanced_parameters=advanced, **options
                )
            return nncf.quantize_with_accuracy_control(
                copy,
                nncf.Dataset(items),
                nncf.Dataset(range(control.count)),
                validation(engine, control),
                max_drop=1 - control.least,
                drop_type=nncf.DropType.ABSOLUTE,
                advanced_quantization_parameters=advanced,
                advanced_accuracy_restorer_parameters=restorer(control),
                **options,
            )
    except Exception as error:  # what NNCF raises is its own affair
        if isinstance(error, MemoryError):
            raise
        raise NncfFailed(first_line(error)) from error


def restorer(control: Control) -> Any:
    """Returns how the accuracy control searches."""
    return quantization.advanced_parameters.AdvancedAccuracyRestorerParameters(
        max_num_iterations=MOST_REVERTED,
        ranking_subset_size=max(1, RANKED_IMAGES // control.batch_size),
        num_ranking_workers=1,
    )


def validation(
    engine: EngineName, control: Control
) -> Callable[[Any, Iterable[int]], tuple[float, list[float]]]:
    """Returns the function that scores models: minus the fraction of the budget that they use."""

    def score(model: Any, indices: Iterable[int]) -> tuple[float, list[float]]:
        compute = logits_of(model, engine)
        chosen = list(indices)
        logits = [compute(control.pixels(index)) for index in chosen]
        single = [
            -control.budget_used([index], [rows])
            for index, rows in zip(chosen, logits, strict=True)
        ]
        return -control.budget_used(chosen, logits), single

    return score


def logits_of(model: Any, engine: EngineName) -> Callable[[Pixels], Floats]:
    """Returns the function from pixels to logits of a model, as NNCF hands it over."""
    if engine == "onnx":
        from resnetkit.inference.engines.onnx import compile_graph

        run = compile_graph({"model.onnx": onnx_bytes(model)}, "int8").run
        return lambda pixels: run(pixels)[0]
    return lambda pixels: np.array(model([pixels])["logits"])


def ends(model: Any, engine: EngineName) -> list[str]:
    """Returns the names of the first convolution and of the head in a model."""
    if engine == "onnx":
        kinds = [(node.op_type, node.name) for node in model.graph.node]
    else:
        kinds = [(op.get_type_name(), op.get_friendly_name()) for op in model.get_ordered_ops()]
    convolutions = [name for kind, name in kinds if kind in ("Conv", "Convolution")]
    products = [name for kind, name in kinds if kind in ("Gemm", "MatMul")]
    return [*convolutions[:1], *products[-1:]]
