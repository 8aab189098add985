"""From a trained network to the graph of an engine: traced once, then converted.

A graph maps uint8 pixels (B, C, H, W) to logits (B, K) and pooled features (B, D). Subtracting the
mean and dividing by the standard deviation are its first operations: folded into the first
convolution they would change the border of the image, where zeros are padded.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from resnetkit.errors import UsageError, WeightsError, is_out_of_memory
from resnetkit.inference.engines.graph import first_line
from resnetkit.inference.engines.no_telemetry import forbid_telemetry
from resnetkit.inference.exported import LARGEST_GRAPH, EngineName, GraphPrecision
from resnetkit.inference.int8_report import Int8Report
from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "Graph",
    "PixelNetwork",
    "graph_files",
    "onnx_bytes",
    "onnx_model",
    "openvino_files",
    "openvino_model",
    "trace",
]

EXAMPLE_BATCH = 2  # 1 would be taken for a constant
OUTPUTS = ("logits", "features")
LIBRARIES: Mapping[EngineName, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph that an engine computes.

    Attributes:
        engine: openvino or onnx.
        precision: of the computation.
        files: content of its files, by name.
        opset: of an ONNX graph.
        int8: how an int8 graph was chosen.
    """

    engine: EngineName
    precision: GraphPrecision
    files: Mapping[str, bytes]
    opset: int | None = None
    int8: Int8Report | None = None


class PixelNetwork(nn.Module):
    """A network from uint8 pixels (B, C, H, W) to logits (B, K) and pooled features (B, D)."""

    def __init__(self, network: TrainedNetwork) -> None:
        super().__init__()
        self.model = network.model
        self.mean = nn.Buffer(network.normalization.mean)
        self.std = nn.Buffer(network.normalization.std)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = (pixels.to(torch.float32) - self.mean) / self.std
        *_, (_, maps) = self.model.stages(images)
        features = torch.flatten(self.model.avgpool(maps), 1)
        return self.model.fc(features), features


def trace(network: TrainedNetwork) -> ExportedProgram:
    """Traces a network, for batches of any size."""
    # An evaluation may have left it on another device, or channels-last, or training.
    network.model.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    shape = (EXAMPLE_BATCH, network.architecture.in_channels, *network.image_size)
    example = torch.zeros(shape, dtype=torch.uint8)
    with torch.no_grad(), quietly():
        return torch.export.export(
            PixelNetwork(network).eval(),
            (example,),
            dynamic_shapes={"pixels": {0: Dim("batch", min=1)}},
            strict=False,
        )


def graph_files(program: ExportedProgram, engine: EngineName, origin: str) -> Graph:
    """Converts a traced network for an engine, in float32.

    Args:
        program: see `trace`.
        engine: openvino or onnx.
        origin: description of the network, for messages.

    Raises:
        WeightsError: when the engine cannot hold the network.
    """
    try:
        if engine == "openvino":
            return Graph(engine, "float32", openvino_files(openvino_model(program)))
        model = onnx_model(program)
        opset = next(entry.version for entry in model.opset_import if not entry.domain)
        return Graph(engine, "float32", {"model.onnx": onnx_bytes(model)}, opset)
    except WeightsError:
        raise
    except Exception as error:  # what converters raise is their own affair
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"the engine {engine} cannot hold this network ({origin}): {first_line(error)}. Try the"
            " other engine with --to."
        ) from error


def check_engine(engine: EngineName, precision: GraphPrecision) -> None:
    """Checks that an engine can be written here, and has a precision.

    Raises:
        UsageError: when it cannot, or does not have it.
    """
    if engine == "onnx" and precision == "bfloat16":
        raise UsageError(
            "--precision bfloat16: ONNX Runtime does not compute bfloat16 on processors. Use --to"
            " openvino, or another precision."
        )
    forbid_telemetry()
    for library in (*LIBRARIES[engine], *(["nncf"] if precision == "int8" else [])):
        try:
            import_module(library)
        except ImportError as error:
            raise UsageError(
                f"--to {engine} needs {library}, which cannot be imported here"
                f" ({first_line(error)}): pip install 'resnetkit[export]'."
            ) from error


def openvino_model(program: ExportedProgram) -> Any:
    """Converts a traced network to an `openvino.Model` with named ports."""
    forbid_telemetry()
    import openvino

    with quietly():
        model = openvino.convert_model(program)
    pixels = model.input(0)
    pixels.get_tensor().set_names({"pixels"})
    for port, name in zip(model.outputs, OUTPUTS, strict=True):
        port.get_tensor().set_names({name})
    example = program.example_inputs
    assert example is not None
    model.reshape([-1, *example[0][0].shape[1:]])
    return model


def openvino_files(model: Any) -> dict[str, bytes]:
    """Returns the files of an `openvino.Model`, with its weights as they are."""
    forbid_telemetry()
    import openvino

    with TemporaryDirectory(prefix="resnetkit-") as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}


def onnx_model(program: ExportedProgram) -> Any:
    """Converts a traced network to an `onnx.ModelProto` with named ports and a free batch size."""
    with quietly():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            input_names=["pixels"],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert converted is not None
    model = converted.model_proto
    forget_paths(model)
    for port in (*model.graph.input, *model.graph.output):
        first = port.type.tensor_type.shape.dim[0]
        if first.HasField("dim_value"):
            raise WeightsError(
                f"the ONNX graph has a batch of {first.dim_value} built in. Please report this."
            )
        first.dim_param = "batch"
    return model


def forget_paths(model: Any) -> None:
    """Removes what the converter notes of this machine's files in each node."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    for part in (*model.graph.initializer, *model.graph.value_info):
        del part.metadata_props[:]
    del model.graph.value_info[:]  # shapes of the example batch, which engines infer


def onnx_bytes(model: Any) -> bytes:
    """Returns the content of one ONNX file.

    Raises:
        WeightsError: when it would be larger than a file of this format can be.
    """
    if model.ByteSize() >= LARGEST_GRAPH:
        raise WeightsError(
            "the network is larger than 2 GiB, which one ONNX file cannot hold: use --to openvino."
        )
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def quietly() -> Iterator[None]:
    """Silences converters, which print, log and warn of their own affairs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
