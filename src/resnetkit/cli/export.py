"""resnet export: networks for other engines, in folders that prove themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from resnetkit.cli.options import Json, Variant
from resnetkit.cli.output import print_json, remark, say

if TYPE_CHECKING:
    from resnetkit.inference.exported import ExportedNetwork
    from resnetkit.inference.parity import Parity

__all__ = ["export"]

export = App(
    name="export",
    help="Write a trained network for OpenVINO or ONNX Runtime, and check what was written.",
    help_epilogue="Example: resnet export runs/NAME --to openvino --out exported",
    help_format="markdown",
)


@export.default
def export_model(
    network: Path,
    /,
    *,
    to: Annotated[Literal["openvino", "onnx"], Parameter(help="The engine: openvino or onnx.")],
    out: Annotated[Path, Parameter(help="The folder to create.")],
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Parameter(help="float32, the default; or bfloat16, of openvino alone."),
    ] = "float32",
    data: Annotated[
        str | None,
        Parameter(
            help="Data set of the golden images, which lie in the folder; by default the one the"
            " network was trained on, if it is on this machine, or drawn images."
        ),
    ] = None,
    variant: Variant = None,
    json: Json = False,
) -> None:
    """Write a trained network as a folder that another engine computes without torch.

    The folder holds the graph, how images become its input, the class names, golden images with the
    answers of torch, and a program of a page that needs neither torch nor resnetkit.

    Args:
        network: A run folder, its model folder, or weights of another library.
    """
    from resnetkit.inference.export import check_target, export_network
    from resnetkit.weights.load import load_network

    check_target(out)
    loaded = load_network(network, variant=variant)
    remark(loaded.origin)
    exported, report = export_network(loaded, out, engine=to, precision=precision, data=data)
    remark(f"golden images: {report.golden}; they lie in the folder for all who receive it")
    if json:
        print_json({**facts(exported, report.parity), "golden": report.golden})
    else:
        say(f"{out}: {exported.origin}")
        say(describe(report.parity))


@export.command(help_epilogue="Example: resnet export check exported")
def check(folder: Path, /, *, json: Json = False) -> int:
    """Verify an exported network, and compute its golden images on this machine.

    The exit code is 3 if this processor answers differently than on export.

    Args:
        folder: The folder of an exported network.
    """
    from resnetkit.errors import WeightsError
    from resnetkit.inference.exported import read_exported
    from resnetkit.inference.parity import check_here

    network = read_exported(folder)
    network.verify_all()
    result = check_here(network)
    if json:
        print_json({**facts(network, result.parity), "holds": result.holds})
    else:
        say(result.sentence)
    return 0 if result.holds else WeightsError.exit_code


def facts(network: "ExportedNetwork", parity: "Parity") -> dict[str, object]:
    """Returns the facts of an exported network for machines."""
    return {
        "folder": str(network.folder),
        "engine": network.config.engine,
        "precision": network.engine.precision,
        "origin": network.origin,
        "network_sha256": network.network_sha256,
        "parity": parity,
    }


def describe(parity: "Parity") -> str:
    """Returns how the answers differ from those of torch, as a sentence."""
    return (
        f"golden images: {parity.same_top1} of {parity.images} have the top-1 class of torch in"
        f" float32; logits differ by up to {parity.logits_error:.2g} of the largest,"
        f" probabilities by up to {parity.probability_error:.2g}"
    )
