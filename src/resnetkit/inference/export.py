"""Exports a trained network: a folder that explains and proves itself; see `exported`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetkit.errors import StorageError, UsageError, WeightsError
from resnetkit.inference.engines.graph import graph_engine
from resnetkit.inference.exported import (
    GOLDEN_FILE,
    INT8_FILE,
    PARITY_FILE,
    EngineName,
    ExportedNetwork,
    GraphPrecision,
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
    allowed,
    check_here,
    golden_bytes,
    report_on,
)
from resnetkit.inference.passed_checks import facts_of, remember
from resnetkit.inference.transform import EvalTransform
from resnetkit.models.zoo import known_as
from resnetkit.runtime.processor import processor_features, processor_name
from resnetkit.storage import check_folder, new_folder, storage_errors, write_synced
from resnetkit.weights.configuration import json_bytes
from resnetkit.weights.exported import CONFIG_FILE, EXPORTED, config_digest
from resnetkit.weights.native import is_plain
from resnetkit.weights.network import TrainedNetwork, check_head
from resnetkit.weights.variants import variant_of

if TYPE_CHECKING:
    from resnetkit.data.dataset import Dataset

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
        UsageError: when a library is missing, the engine or this processor has no such precision,
            or int8 is not faster here; see `quantize`.
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
    budget = budget or Budget()
    dataset = int8_data(network, data, budget) if precision == "int8" else None
    golden = with_answers(images, network)
    program = trace(network)
    graph = graph_files(program, engine, network.origin)
    report = parity_of(graph, network, golden, images.source)  # whatever the precision
    if dataset is not None:
        from resnetkit.inference.quantize import quantize

        graph = quantize(network, program, engine, dataset, budget=budget, observe=observe)
    if precision != "float32":
        graph = replace(graph, precision=precision)
        report = parity_of(graph, network, golden, images.source)
    return write_exported(out, network, graph, golden, report)


def int8_data(network: TrainedNetwork, data: str | None, budget: Budget) -> "Dataset":
    """Returns the data set of int8, or raises DataError before the network is traced."""
    from resnetkit.evaluation.network_data import data_of
    from resnetkit.inference.quantize import check_images

    dataset = data_of(network, data)
    check_images(network, dataset, budget)
    return dataset


def check_target(out: Path) -> None:
    """Raises StorageError for a file, a folder that holds something, or one not to be created."""
    with storage_errors(out, ADVICE):
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise StorageError(f"{out} is a file or a link, expected a new folder. {ADVICE}")
        if out.is_dir() and any(out.iterdir()):
            raise StorageError(f"{out} exists and is not empty. {ADVICE}")
    check_folder(out.parent, ADVICE)


def write_exported(
    out: Path, network: TrainedNetwork, graph: Graph, golden: Golden, report: ParityReport
) -> tuple[ExportedNetwork, ParityReport]:
    """Writes the folder of an exported network, whole or not at all.

    Args:
        out: folder to create; it may exist if it is empty.
        network: that the graph was made from.
        graph: of any precision.
        golden: images with the answers of the network.
        report: parity of the graph on this machine.

    Returns:
        The network as it was read from the folder, and its parity on this machine.

    Raises:
        WeightsError: when what is read from the folder is not what was written.
        StorageError: when the folder exists, or cannot be written.
    """
    content = folder_files(network, graph, golden, report)
    with storage_errors(out, ADVICE), new_folder(out) as folder:
        for name, data in content.items():
            write_synced(folder / name, data)
        check_written(folder)
    exported = read_exported(out)
    remember(facts_of(exported, report.precision))
    return exported, report


def check_written(folder: Path) -> None:
    """Reads a folder as whoever receives it will, before it gets its name.

    Raises:
        WeightsError: when a file is not what was written, or the graph answers otherwise.
    """
    written = read_exported(folder)
    written.verify_all()
    check = check_here(written)
    if not check.holds:
        raise WeightsError(f"{check.sentence} Nothing was written. Please report this.")


def parity_of(
    graph: Graph, network: TrainedNetwork, golden: Golden, golden_source: str
) -> ParityReport:
    """Returns the parity of a graph on this machine.

    Raises:
        UsageError: when this processor does not compute bfloat16.
        WeightsError: when the graph does not compute what the network computes: in float32 within
            `LARGEST_ERROR`, in bfloat16 within `LARGEST_ROUNDING`. What int8 may change was settled
            with more images; see `quantize`.
    """
    engine = graph_engine(
        graph.engine,
        graph.files,
        precision=graph.precision,
        origin=f"{graph.engine} {graph.precision}: {network.origin}",
        network_sha256="",
    )
    if engine.precision != graph.precision:
        raise no_bfloat16(graph.engine)
    report = report_on(engine, golden, golden_source)
    parity = report.parity
    if not Check(parity, report, engine.precision, engine.origin).holds:
        is_exact = engine.precision == "float32"
        raise WeightsError(
            f"the exported graph does not compute what the network computes, so nothing was"
            f" written: on {parity.images} golden images, {parity.same_top1} have the top-1 class"
            f" of torch in float32, and in {engine.precision} logits differ by up to"
            f" {parity.logits_error:.2g} of the largest, features by up to"
            f" {parity.features_error:.2g}, expected at most"
            f" {allowed(engine.precision, parity.logits_error):.2g}."
            f" {'Please report this.' if is_exact else 'Export it in float32.'}"
        )
    return report


def no_bfloat16(engine: EngineName) -> UsageError:
    """Returns the error for a processor that would compute in float32."""
    features = " ".join(processor_features()) or "unknown instructions"
    return UsageError(
        f"--precision bfloat16: {engine} does not compute bfloat16 on this machine"
        f" ({processor_name()}, {features}), which takes AVX-512 BF16 or AMX that"
        " ONEDNN_MAX_CPU_ISA does not deny, so nothing was written. Export it in float32, or on the"
        " machine that will compute it."
    )


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
