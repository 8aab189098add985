"""Exports a trained network: a folder that explains and proves itself; see `exported`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from resnetkit.errors import StorageError, WeightsError
from resnetkit.inference.engines.graph import graph_engine
from resnetkit.inference.exported import (
    GOLDEN_FILE,
    INT8_FILE,
    PARITY_FILE,
    EngineName,
    ExportedNetwork,
    GraphPrecision,
    config_digest,
    read_exported,
)
from resnetkit.inference.features import network_sha256
from resnetkit.inference.golden import choose_golden, with_answers
from resnetkit.inference.graphs import Graph, check_engine, graph_files, trace
from resnetkit.inference.int8_report import Budget
from resnetkit.inference.model_card import model_card
from resnetkit.inference.parity import (
    Check,
    Golden,
    ParityReport,
    golden_bytes,
    report_on,
)
from resnetkit.inference.passed_checks import facts_of, remember
from resnetkit.inference.transform import EvalTransform
from resnetkit.models.zoo import known_as
from resnetkit.storage import new_folder, storage_errors, write_synced
from resnetkit.weights.configuration import json_bytes
from resnetkit.weights.exported import CONFIG_FILE, EXPORTED
from resnetkit.weights.native import is_plain
from resnetkit.weights.network import TrainedNetwork, check_head
from resnetkit.weights.variants import variant_of

__all__ = ["check_target", "export_network", "write_exported"]

LIBRARIES = (
    "resnetkit",
    "torch",
    "numpy",
    "pillow",
    "openvino",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "nncf",
)
ADVICE = "Choose another folder with --out."


def export_network(
    network: TrainedNetwork,
    out: str | Path,
    *,
    engine: EngineName,
    precision: GraphPrecision = "float32",
    data: str | None = None,
    budget: Budget | None = None,
    observe: Callable[[str], None] = lambda sentence: None,
) -> tuple[ExportedNetwork, ParityReport]:
    """Writes the folder of a network for an engine.

    Args:
        network: see `load_network`.
        out: folder to create; it may exist if it is empty.
        engine: openvino or onnx.
        precision: float32, bfloat16 or int8.
        data: data set of the golden images, see `choose_golden`; int8 is calibrated on its training
            images and chosen on its validation images, by default those of the network.
        budget: what int8 may cost; see `Budget`.
        observe: called with a sentence for each step of int8.

    Returns:
        The network as it was read from the folder, and its parity on this machine.

    Raises:
        UsageError: when a library is missing, the engine has no such precision, or int8 is not
            faster here; see `quantize`.
        WeightsError: when the network has no head, the engine cannot hold it, or answers otherwise.
        DataError: when the data cannot be read, does not fit the network, or is too small for int8.
        StorageError: when the folder exists, or cannot be written.
    """
    out = Path(out)
    check_target(out)
    check_head(network)
    check_engine(engine, precision)
    EvalTransform.of(network)  # raises DataError for a network that takes no images
    images = choose_golden(network, data)
    if precision == "int8":
        graph = int8_graph(network, engine, data, budget, observe)
    else:
        graph = graph_files(trace(network), engine, precision, network.origin)
    golden = with_answers(images, network)
    return write_exported(out, network, graph, golden, images.source)


def int8_graph(
    network: TrainedNetwork,
    engine: EngineName,
    data: str | None,
    budget: Budget | None,
    observe: Callable[[str], None],
) -> Graph:
    """Returns the quantized graph of a network; see `quantize`."""
    from resnetkit.evaluation.network_data import data_of
    from resnetkit.inference.quantize import check_images, quantize

    dataset = data_of(network, data)
    check_images(network, dataset, budget or Budget())  # before the network is traced
    return quantize(
        network, trace(network), engine, dataset, budget=budget or Budget(), observe=observe
    )


def check_target(out: Path) -> None:
    """Raises StorageError for a folder that exists and holds something, or for a file."""
    with storage_errors(out, ADVICE):
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise StorageError(f"{out} is a file or a link, expected a new folder. {ADVICE}")
        if out.is_dir() and any(out.iterdir()):
            raise StorageError(f"{out} exists and is not empty. {ADVICE}")


def write_exported(
    out: Path, network: TrainedNetwork, graph: Graph, golden: Golden, golden_source: str
) -> tuple[ExportedNetwork, ParityReport]:
    """Writes the folder of an exported network, whole or not at all.

    Args:
        out: folder to create; it may exist if it is empty.
        network: that the graph was made from.
        graph: of any precision.
        golden: images with the answers of the network.
        golden_source: where these images came from.

    Returns:
        The network as it was read from the folder, and its parity on this machine.

    Raises:
        WeightsError: when the graph in the folder does not compute what the network computes.
        StorageError: when the folder exists, or cannot be written.
    """
    report = parity_of(graph, network, golden, golden_source)
    content = folder_files(network, graph, golden, report)
    with storage_errors(out, ADVICE), new_folder(out) as folder:
        for name, data in content.items():
            write_synced(folder / name, data)
    exported = read_exported(out)
    remember(facts_of(exported, report.precision))
    return exported, report


def parity_of(
    graph: Graph, network: TrainedNetwork, golden: Golden, golden_source: str
) -> ParityReport:
    """Returns the parity of a graph on this machine.

    Raises:
        WeightsError: when a graph in float32 does not compute what the network computes.
    """
    engine = graph_engine(
        graph.engine,
        graph.files,
        precision=graph.precision,
        origin=f"{graph.engine} {graph.precision}: {network.origin}",
        network_sha256="",
    )
    report = report_on(engine, golden, golden_source)
    check = Check(report.parity, report, engine.precision, engine.origin)
    if not check.holds:
        raise WeightsError(
            f"the exported graph does not compute what the network computes, so nothing was"
            f" written: {check.sentence} Please report this."
        )
    return report


def folder_files(
    network: TrainedNetwork, graph: Graph, golden: Golden, report: ParityReport
) -> dict[str, bytes]:
    """Returns the files of the folder, config.json with their digests first."""
    config = configuration(network, graph, golden)
    content = {
        **graph.files,
        GOLDEN_FILE: golden_bytes(golden),
        PARITY_FILE: json_bytes(asdict(report)),
        **({INT8_FILE: json_bytes(asdict(graph.int8))} if graph.int8 else {}),
        "predict.py": files("resnetkit.inference").joinpath("standalone.py").read_bytes(),
        "README.md": model_card(config, report, graph.int8).encode(errors="backslashreplace"),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    digests[CONFIG_FILE] = config_digest(json.loads(json_bytes(config)))  # as it will be read
    return {CONFIG_FILE: json_bytes({**config, "sha256": digests}), **content}


def configuration(network: TrainedNetwork, graph: Graph, golden: Golden) -> dict[str, Any]:
    """Returns the content of config.json without digests; see `ExportedConfig`."""
    normalization = network.normalization
    mean = None if normalization.is_per_pixel else normalization.mean.flatten().tolist()
    return {
        "format": EXPORTED,
        "version": 1,
        "engine": graph.engine,
        "precision": graph.precision,
        "architecture": known_as(network.architecture) or "a residual network",
        "variant": variant_of(network.architecture),
        "class_names": list(network.class_names),
        "num_classes": golden.logits.shape[1],
        "num_features": golden.features.shape[1],
        "channels": network.architecture.in_channels,
        "image_size": list(network.image_size),
        "crop_pct": network.crop_pct,
        "resize": asdict(network.resize),
        "mean": mean,
        "std": normalization.std.flatten().tolist(),
        "opset": graph.opset,
        "source": {
            "origin": network.origin,
            "format": network.format,
            "network_sha256": network_sha256(network),
            "data": network.data if is_plain(network.data) else "",
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that have written the folder."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
