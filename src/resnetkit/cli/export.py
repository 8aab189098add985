"""resnet export: networks for other engines, in folders that prove themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from resnetkit.cli.options import Json, Variant
from resnetkit.cli.output import bar, print_json, print_table, remark, say
from resnetkit.errors import UsageError

if TYPE_CHECKING:
    from resnetkit.inference.bench import BenchRow, Spread
    from resnetkit.inference.exported import ExportedNetwork
    from resnetkit.inference.int8_report import Int8Report
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
        Literal["float32", "bfloat16", "int8"],
        Parameter(
            help="float32, the default; bfloat16, of openvino alone; or int8, whose accuracy is"
            " measured and held."
        ),
    ] = "float32",
    data: Annotated[
        str | None,
        Parameter(
            help="Data set of the golden images, which lie in the folder, and for int8; by default"
            " the one the network was trained on. Without it on this machine, golden images are"
            " drawn, and there is no int8."
        ),
    ] = None,
    budget: Annotated[
        float | None,
        Parameter(
            help="Points of error that int8 may add, at the upper end of the 95 % interval on the"
            " validation split; 0.3 by default."
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
    from resnetkit.inference.int8_report import Budget, read_int8
    from resnetkit.weights.load import load_network

    if budget is not None and precision != "int8":
        raise UsageError(f"--budget {budget:g} is for --precision int8, which has a cost to limit.")
    check_target(out)
    loaded = load_network(network, variant=variant)
    remark(loaded.origin)
    exported, report = export_network(
        loaded,
        out,
        engine=to,
        precision=precision,
        data=data,
        budget=Budget() if budget is None else Budget(points=budget),
        observe=remark,
    )
    remark(f"golden images: {report.golden}; they lie in the folder for all who receive it")
    if json:
        int8 = read_int8(exported) if precision == "int8" else None
        print_json({**facts(exported, report.parity), "golden": report.golden, "int8": int8})
    else:
        say(f"{out}: {exported.origin}")
        say(describe(report.parity))
        if precision == "int8":
            show_int8(read_int8(exported))


def show_int8(report: "Int8Report") -> None:
    """Prints what int8 costs and gains."""
    speedup = report.speedup
    say(f"{report.attempts[-1].candidate}: {report.attempts[-1].accuracy}")
    say(report.test or "there are no test images")
    say(
        f"{speedup.best:.2f} times the images per second of float32 on this machine"
        f" ({speedup.low:.2f} to {speedup.high:.2f}); {speedup.single:.2f} times with one image"
    )
    for doubt in report.doubts:
        remark(f"warning: {doubt}")


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


@export.command(help_epilogue="Example: resnet export bench runs/NAME exported --data cifar10")
def bench(
    *networks: Annotated[
        Path, Parameter(help="Exported folders, runs or weights; the first is the reference.")
    ],
    data: Annotated[
        str | None,
        Parameter(help="Data set whose test split all of them predict, to compare their errors."),
    ] = None,
    rounds: Annotated[int, Parameter(help="Processes of each network; 3 by default.")] = 3,
    seconds: Annotated[
        float, Parameter(help="Of each measurement, one for a size of batch; 1 by default.")
    ] = 1.0,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Parameter(help="Of networks that are not exported: float32, the default, or bfloat16."),
    ] = "float32",
    chart: Annotated[Path | None, Parameter(help="An .svg file to write.")] = None,
    json: Json = False,
) -> None:
    """Measure networks, engines and precisions side by side on this machine.

    Each is measured in fresh processes that take turns: the time of one image, images per second in
    batches of 1 to 32, memory, and the time to the first answer. Networks that are not exported are
    computed by torch on the processor.
    """
    from resnetkit.inference.bench import Plan, as_json
    from resnetkit.inference.bench import bench as measure

    check_chart(chart)
    plan = Plan(rounds=rounds, seconds=seconds)
    with bar("bench") as progress:
        rows = measure(networks, plan=plan, precision=precision, data=data, observe=progress.update)
    if chart is not None:
        write_chart(chart, rows)
    if json:
        print_json(as_json(rows))
    else:
        show_rows(rows)


CHART_ADVICE = "Choose another file with --chart."


def check_chart(chart: Path | None) -> None:
    """Checks, before anything is measured, that a chart can be written.

    Raises:
        UsageError: when it is no SVG file.
        StorageError: when it cannot be written.
    """
    from resnetkit.storage import check_file

    if chart is None:
        return
    if chart.suffix.lower() != ".svg":
        raise UsageError(f"--chart {chart}: expected a name that ends in .svg.")
    check_file(chart, CHART_ADVICE)


def write_chart(chart: Path, rows: "Sequence[BenchRow]") -> None:
    """Writes the chart of a bench."""
    from resnetkit.report.bench_chart import bench_chart
    from resnetkit.storage import storage_errors, write_file

    with storage_errors(chart, CHART_ADVICE):
        write_file(chart, bench_chart(rows))
    remark(f"chart: {chart}")


def show_rows(rows: "Sequence[BenchRow]") -> None:
    """Prints a line for each network, and what the figures are."""
    columns = ["network", "engine", "precision", "p50, ms", "p99, ms", "images/s", "best images/s"]
    columns += ["batch", "memory, MiB", "start, s"]
    with_answers = rows[0].answers is not None
    if with_answers:
        columns += ["same top-1", "error", "more error, points"]
    print_table(
        columns,
        [[*speed_cells(row), *answer_cells(row)] for row in rows],
        numbers="lll" + "r" * (len(columns) - 3),
    )
    remark(
        f"medians of {rows[0].processes} process(es) each, with the lowest and the highest; p50,"
        " p99 and images/s are of one image at a time, start is from the start of the process to"
        " the first answer"
    )
    if with_answers:
        answers = rows[0].answers
        images = answers.images if answers else 0
        remark(
            f"same top-1 and more error are compared with {rows[0].name} on {images:,} test"
            " images, with the 95 % interval of the difference"
        )


def speed_cells(row: "BenchRow") -> list[str]:
    """Returns what was measured of a network, as text."""
    return [
        row.name,
        row.engine,
        row.precision,
        spread_text(row.p50, 2),
        spread_text(row.p99, 2),
        spread_text(row.rates[0].images_per_second, 1),
        spread_text(row.best.images_per_second, 1),
        str(row.best.batch),
        f"{row.memory.median:,.0f}" if row.memory.median else "-",
        spread_text(row.start, 2),
    ]


def answer_cells(row: "BenchRow") -> list[str]:
    """Returns how a network answers, as text; nothing without data."""
    if row.answers is None:
        return []
    more = row.answers.difference
    return [
        f"{row.answers.agreement:.2f} %",
        f"{row.answers.error:.2f} %",
        f"{more.points:+.2f} ({more.low:+.2f} to {more.high:+.2f})",
    ]


def spread_text(spread: "Spread", digits: int) -> str:
    """Returns a median with the lowest and the highest value."""
    middle, low, high = (
        f"{value:,.{digits}f}" for value in (spread.median, spread.low, spread.high)
    )
    return f"{middle} ({low} to {high})"
