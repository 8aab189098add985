"""resnet evaluate: the errors of trained networks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetkit.cli.options import Device, Json, Lang, Precision, Variant
from resnetkit.cli.output import bar, print_json, print_table, remark, remark_on_data, say

if TYPE_CHECKING:
    from resnetkit.data.dataset import Dataset
    from resnetkit.evaluation.evaluate import Evaluable, Evaluation
    from resnetkit.evaluation.metrics import ErrorRate, Metrics

__all__ = ["Data", "evaluate"]

MOST_MISTAKES = 5
VIEWS = {"center": "1 view", "ten-crop": "10 views", "multi-scale": "5 scales and their flips"}

Others = Annotated[Path, Parameter(help="More networks: each is measured, and their ensemble.")]
Data = Annotated[
    str | None,
    Parameter(help="Data set; by default the one the network was trained on, if known."),
]
SplitName = Annotated[
    Literal["train", "validation", "test"],
    Parameter(help="Which split: train, validation, or test, the default."),
]
ProtocolName = Annotated[
    Literal["center", "ten-crop", "multi-scale"],
    Parameter(help="Views of each image: center, the default; ten-crop or multi-scale."),
]
Flip = Annotated[
    bool, Parameter(negative=(), help="Average over each image and its horizontal flip.")
]
Out = Annotated[
    Path | None, Parameter(help="Folder for report.html, with the worst errors, and JSON.")
]


def evaluate(
    network: Path,
    /,
    *others: Others,
    data: Data = None,
    split: SplitName = "test",
    protocol: ProtocolName = "center",
    flip: Flip = False,
    precision: Precision | None = None,
    out: Out = None,
    lang: Lang = "en",
    variant: Variant = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure the error of a trained network, or of several and their ensemble.

    Args:
        network: A run folder, its model folder, an exported network, or weights of another library,
            as 'resnet weights show' describes them.
    """
    from resnetkit.errors import UsageError
    from resnetkit.evaluation.evaluate import evaluate_all
    from resnetkit.evaluation.network_data import data_of
    from resnetkit.report.evaluation_report import write_evaluation
    from resnetkit.report.language import find_language
    from resnetkit.storage import check_folder

    language = find_language(lang)
    if out is not None and (out / "recipe.yaml").exists():
        raise UsageError(f"--out {out} is a run, which has its own report: choose another folder.")
    loaded = [
        load_any(path, variant=variant, device=device, precision=precision)
        for path in (network, *others)
    ]
    dataset = data_of(loaded[0], data)
    remark_on_networks(loaded, dataset, split)
    if out is not None:
        check_folder(out, "Choose another folder with --out.")  # before the work is done
    with bar("evaluate") as progress:
        evaluations = evaluate_all(
            loaded,
            dataset,
            split=split,
            protocol=protocol,
            flip=flip,
            precision=precision or "float32",
            device=device,
            observe=progress.update,
        )
    remark_on_learned_images(evaluations)
    try:
        show_all(evaluations, json=json)
    finally:  # neither a failed report nor a reader of stdout that has left loses the results
        if out is not None:
            remark(f"report: {write_evaluation(out, evaluations, dataset, language)}")


def load_any(path: Path, *, variant: str | None, device: str, precision: str | None) -> "Evaluable":
    """Loads a trained network, or an exported one after its golden images have been computed."""
    from resnetkit.weights.exported import is_exported

    if is_exported(path):
        from resnetkit.inference.parity import load_exported

        return load_exported(path, variant=variant, device=device, precision=precision)
    from resnetkit.weights.load import load_network

    return load_network(path, variant=variant)


def remark_on_networks(networks: "Sequence[Evaluable]", dataset: "Dataset", split: str) -> None:
    """Reports what is measured, and how classes without names are matched."""
    from resnetkit.evaluation.network_data import describe_class_order

    remark_on_data(dataset.name)
    for network in networks:
        remark(f"{network.origin}; {split} split of {dataset.name}")
        if description := describe_class_order(network, dataset):
            remark(description)


def remark_on_learned_images(evaluations: "Sequence[Evaluation]") -> None:
    """Warns of networks that were trained on images that they are measured on."""
    for evaluation in evaluations:
        if evaluation.learned:
            remark(
                f"warning: {evaluation.origin} was trained on {evaluation.learned:,} of these"
                f" {evaluation.metrics.images:,} images: its error on other images is not known"
            )


def show_all(evaluations: "Sequence[Evaluation]", *, json: bool) -> None:
    """Prints the evaluation of a network, or those of several networks and their ensemble."""
    from resnetkit.report.evaluation_report import evaluation_facts

    if json:
        facts = [evaluation_facts(evaluation) for evaluation in evaluations]
        print_json(facts if len(facts) > 1 else facts[0])
        return
    if len(evaluations) > 1:
        show_side_by_side(evaluations)
    show(evaluations[-1])


def show_side_by_side(evaluations: "Sequence[Evaluation]") -> None:
    """Prints one line for each network, the ensemble last."""
    print_table(
        ["network", "top-1 error", "top-5 error", "loss", "calibration error"],
        [
            [
                evaluation.origin,
                percent(evaluation.metrics.top1.error),
                percent(evaluation.metrics.top5.error),
                f"{evaluation.metrics.loss:.4f}",
                percent(evaluation.metrics.calibration_error),
            ]
            for evaluation in evaluations
        ],
        numbers="lrrrr",
    )
    say(f"\n{evaluations[-1].origin}")


def show(evaluation: "Evaluation") -> None:
    """Prints an evaluation as text."""
    metrics = evaluation.metrics
    views = "2 views (with the flip)" if evaluation.flip else VIEWS[evaluation.protocol]
    say(f"top-1 error  {rate_text(metrics.top1)}")
    if len(metrics.classes) > 5:
        say(f"top-5 error  {rate_text(metrics.top5)}")
    say(f"loss  {metrics.loss:.4f} nats")
    say(f"calibration error  {metrics.calibration_error:.2f} %")
    say(f"{metrics.images:,} images, {views}, {evaluation.precision}\n")
    print_table(
        ["class", "images", "error", "precision"],
        [
            [score.name, f"{score.images:,}", percent(score.error), percent(score.precision)]
            for score in metrics.classes
        ],
        numbers="lrrr",
    )
    show_mistakes(metrics)


def show_mistakes(metrics: "Metrics") -> None:
    """Prints the most frequent mistakes."""
    from resnetkit.evaluation.metrics import mistakes

    names = [score.name for score in metrics.classes]
    frequent = mistakes(metrics.confusion)[:MOST_MISTAKES]
    if frequent:
        say("\nmost frequent mistakes")
    for mistake in frequent:
        say(f"{mistake.count:6,}  {names[mistake.true]} predicted as {names[mistake.predicted]}")


def rate_text(rate: "ErrorRate") -> str:
    """Returns an error with its interval."""
    return f"{rate.error:.2f} % (95 % interval {rate.low:.2f} to {rate.high:.2f})"


def percent(value: float) -> str:
    """Returns a percentage as text; a dash for NaN."""
    return "-" if value != value else f"{value:.2f} %"
