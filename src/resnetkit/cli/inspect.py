"""resnet inspect: the structure of a network, and what happens inside a trained one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.evaluate import Data
from resnetkit.cli.options import Changes, Json, Variant, parse_changes
from resnetkit.cli.output import print_json, print_table, remark, say

if TYPE_CHECKING:
    from resnetkit.models.outline import BlockOutline, ShortcutKind, StageOutline
    from resnetkit.probes.inspection import Inspection, Subject

__all__ = ["inspect"]

OUT_ADVICE = "Choose another path with --out."


def inspect(
    network: str,
    /,
    *,
    compare: Annotated[
        str | None, Parameter(help="A second architecture or run to compare with.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Draw the network, or both, as SVG.")] = None,
    saliency: Annotated[
        str | None,
        Parameter(help="An image file, or the number of a test image: draw its saliency maps."),
    ] = None,
    thorough: Annotated[
        bool, Parameter(negative=(), help="Run the slow probes as well; see above.")
    ] = False,
    data: Data = None,
    changes: Changes = (),
    variant: Variant = None,
    json: Json = False,
) -> None:
    """Show the stages, blocks, shortcuts, shapes and costs of a network, and probe a trained one.

    For a run more tables follow, measured on 64 test images: the gradient at each layer, its
    response, the size of each block's F(x) compared with its shortcut, and the receptive field of
    each feature map. With --thorough also the test error without each block and with neighboring
    blocks exchanged, and the gradient that paths of each length carry; for an architecture, the
    gradient at each layer before training, on noise.

    Args:
        network: An architecture of 'resnet models', a run folder or a file of weights.
    """
    from resnetkit.errors import UsageError
    from resnetkit.probes.inspection import inspect_network

    if saliency is not None:
        if compare or changes or thorough:
            raise UsageError(
                "--saliency takes one network: leave out --compare, --set and --thorough."
            )
        show_saliency(network, saliency, out, variant=variant, data=data, json=json)
        return
    if compare and Path(compare) == Path(network):
        raise UsageError(f"--compare {compare}: it is the same network; name another.")
    names = [network, compare] if compare else [network]
    subjects = find_subjects(names, parse_changes(changes), variant=variant, data=data)
    stages = {name: subject.stages for name, subject in subjects.items()}
    if out is not None:
        draw(stages, out)
    inspections = {
        name: inspect_network(subject, thorough=thorough, data=data)
        for name, subject in subjects.items()
    }
    for inspection in inspections.values():
        for text in inspection.remarks:
            remark(text)
    if json:
        print_json({name: facts(stages[name], inspections[name]) for name in names})
        return
    for name in names:
        show_outline(name, stages[name])
        show_probes(inspections[name])
    if compare:
        show_comparison(stages)


def find_subjects(
    names: list[str], options: dict[str, object], *, variant: str | None, data: str | None
) -> "dict[str, Subject]":
    """Returns the networks of some names.

    Raises:
        UsageError: when data are named and no network is trained.
    """
    from resnetkit.errors import UsageError
    from resnetkit.probes.inspection import find_subject

    subjects = {name: find_subject(name, options, variant=variant) for name in names}
    if data is not None and all(subject.network is None for subject in subjects.values()):
        raise UsageError(f"--data {data}: an architecture has no data; name a trained network.")
    return subjects


def draw(stages: "Mapping[str, Sequence[StageOutline]]", out: Path) -> None:
    """Draws networks side by side to an SVG file.

    Raises:
        UsageError: for a file name of another format.
    """
    from resnetkit.errors import UsageError
    from resnetkit.report.diagram import network_sheet
    from resnetkit.storage import storage_errors, write_file

    if out.suffix.lower() not in ("", ".svg"):
        raise UsageError(f"--out {out}: expected a name that ends in .svg.")
    with storage_errors(out, OUT_ADVICE):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, network_sheet(stages))
    remark(f"drawn in {out}")


def show_outline(name: str, stages: "Sequence[StageOutline]") -> None:
    """Prints one line for each sequence of equal blocks."""
    from itertools import groupby

    from resnetkit.report.diagram import SHORTCUT_NAMES, short

    rows = []
    for stage in stages:
        for (layers, shortcut), members in groupby(stage.blocks, key=appearance):
            blocks = list(members)
            rows.append(
                [
                    stage.name,
                    "x".join(map(str, blocks[-1].output_shape)),
                    str(len(blocks)),
                    " > ".join(layers),
                    SHORTCUT_NAMES[shortcut] if stage.name not in ("stem", "head") else "",
                    short(sum(block.parameters for block in blocks)),
                    short(sum(block.multiply_adds for block in blocks)),
                ]
            )
    say(summary(name, stages))
    print_table(
        ["stage", "output", "blocks", "layers", "shortcut", "parameters", "mult-adds"],
        rows,
        numbers="llrllrr",
    )


def appearance(block: "BlockOutline") -> "tuple[tuple[str, ...], ShortcutKind]":
    """Returns the convolutions and the shortcut of a block, by which neighbors are grouped."""
    return tuple(layer for layer in block.layers if layer not in ("BN", "ReLU")), block.shortcut


def summary(name: str, stages: "Sequence[StageOutline]") -> str:
    """Returns the name and the costs of a network in one line."""
    parameters = sum(stage.parameters for stage in stages)
    multiply_adds = sum(stage.multiply_adds for stage in stages)
    return f"{name}: {parameters:,} parameters, {multiply_adds / 1e6:,.1f} M multiply-adds"


def show_comparison(stages: "Mapping[str, Sequence[StageOutline]]") -> None:
    """Prints the counts of two networks and which of them are equal."""
    from resnetkit.probes.inspection import network_counts

    counts = [network_counts(network) for network in stages.values()]
    rows = [
        [name, *(f"{row[name]:,}" for row in counts), same([row[name] for row in counts])]
        for name in counts[0]
    ]
    say("")
    print_table(["", *stages, ""], rows, numbers="l" + "r" * len(stages) + "l")


def same(values: list[int]) -> str:
    """Returns 'equal' for equal values, else an empty text."""
    return "equal" if len(set(values)) == 1 else ""


def show_saliency(
    name: str,
    selection: str,
    out: Path | None,
    *,
    variant: str | None,
    data: str | None,
    json: bool,
) -> None:
    """Draws saliency maps of the prediction for one image, and prints the prediction."""
    from resnetkit.probes.inspection import load_trained, saliency
    from resnetkit.report.saliency_sheet import write_saliency_sheet
    from resnetkit.storage import check_file, storage_errors

    out = out or Path("saliency.png")
    network = load_trained(name, variant=variant)
    check_file(out, OUT_ADVICE)  # before the work is done
    result = saliency(network, selection, data=data)
    with storage_errors(out, OUT_ADVICE):
        caption = f"{result.answer}, {result.probability:.0%}"
        write_saliency_sheet(out, result.image, result.maps, answer=caption)
    if json:
        facts = {"answer": result.answer, "probability": result.probability, "drawing": str(out)}
        print_json(facts)
    else:
        say(f"{result.answer}, probability {result.probability:.4f}")
    remark(f"drawn in {out}")


def show_probes(inspection: "Inspection") -> None:
    """Prints a table for each probe that was run."""
    from dataclasses import astuple

    headings = {
        "gradients": ["layer", "gradient of weight", "gradient of input"],
        "responses": ["response of", "deviation"],
        "residuals": ["block", "|F(x)| / |shortcut|", "|block(x) - x| / |x|"],
        "receptive_fields": ["feature map", "pixels seen", "stride"],
        "lesions": ["blocks", "test error, %", "points more"],
        "paths": ["through blocks", "paths", "gradient of one"],
    }
    for probe, columns in headings.items():
        measured = getattr(inspection, probe)
        if measured is not None:
            say("")
            rows = [[figure(value) for value in astuple(row)] for row in measured]
            print_table(columns, rows, numbers="l" + "r" * (len(columns) - 1))


def figure(value: object) -> str:
    """Returns a value with four significant figures; a dash for NaN."""
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return str(value)


def facts(stages: "Sequence[StageOutline]", inspection: "Inspection") -> dict[str, object]:
    """Returns a network as JSON values, without the probes that were not run."""
    from dataclasses import asdict

    from resnetkit.training.events import finite

    outlined = [{**asdict(stage), "output_shape": stage.output_shape} for stage in stages]
    probed = {
        name: [finite(row) for row in rows]
        for name, rows in asdict(inspection).items()
        if name != "remarks" and rows is not None
    }
    return {"stages": outlined, **probed}
