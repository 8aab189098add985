"""resnet evaluate: what a trained network gets right and wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetkit.cli.options import Device, Json, Lang, Precision, Variant
from resnetkit.cli.output import bar, print_json, print_table, remark, remark_on_data, say

if TYPE_CHECKING:
    from resnetkit.evaluation.evaluate import Evaluation
    from resnetkit.evaluation.metrics import ErrorRate, Metrics

__all__ = ["evaluate"]

MOST_MISTAKES = 5
VIEWS = {"center": "1 view", "ten-crop": "10 views", "multi-scale": "5 scales, mirrored too"}


def evaluate(
    network: Path,
    /,
    *others: Annotated[Path, Parameter(help="More networks, beside it and as an ensemble.")],
    data: Annotated[
        str | None,
        Parameter(help="Data set; by default the one it was trained on, if that is known."),
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"],
        Parameter(help="Which part: train, validation, or test, the default."),
    ] = "test",
    protocol: Annotated[
        Literal["center", "ten-crop", "multi-scale"],
        Parameter(help="How images are looked at: center, ten-crop or multi-scale; center."),
    ] = "center",
    flip: Annotated[
        bool, Parameter(negative=(), help="Average over each image and its horizontal flip.")
    ] = False,
    precision: Precision = "float32",
    out: Annotated[
        Path | None, Parameter(help="Folder for report.html, with the worst errors, and JSON.")
    ] = None,
    lang: Lang = "en",
    variant: Variant = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure a trained network on images it has not learned from; or several, side by side.

    Args:
        network: A run folder, its model folder, or weights of another library: 'resnet weights
            show' says what it is.
    """
    from resnetkit.errors import UsageError
    from resnetkit.evaluation.evaluate import data_of, evaluate_all, order_in_words
    from resnetkit.report.evaluation_report import evaluation_facts, write_evaluation
    from resnetkit.report.language import find_language
    from resnetkit.weights.load import load_network

    language = find_language(lang)
    if out is not None and (out / "recipe.yaml").exists():
        raise UsageError(
            f"--out {out} is a run, which has a report of its own: name another folder."
        )
    loaded = [load_network(path, variant=variant) for path in (network, *others)]
    dataset = data_of(loaded[0], data)
    remark_on_data(dataset.name)
    for each in loaded:
        remark(f"{each.origin}; {split} part of {dataset.name}")
    for each in loaded:
        if words := order_in_words(each, dataset):
            remark(words)
    with bar("evaluate") as progress:
        evaluations = evaluate_all(
            loaded,
            dataset,
            split=split,
            protocol=protocol,
            flip=flip,
            precision=precision,
            device=device,
            observe=progress.update,
        )
    for measured in evaluations:
        if measured.learned:
            remark(
                f"warning: {measured.origin} has learned from {measured.learned:,} of these"
                f" {measured.metrics.images:,} images: its error says little about others"
            )
    if out is not None:
        remark(f"{write_evaluation(out, evaluations, dataset, language)} shows it")
    if json:
        facts = [evaluation_facts(each) for each in evaluations]
        print_json(facts if others else facts[0])
        return
    if others:
        show_side_by_side(evaluations)
    show(evaluations[-1])


def show_side_by_side(evaluations: "Sequence[Evaluation]") -> None:
    """Prints one line a network, the ensemble last."""
    print_table(
        ["network", "top-1 error", "top-5 error", "loss", "calibration error"],
        [
            [
                each.origin,
                percent(each.metrics.top1.error),
                percent(each.metrics.top5.error),
                f"{each.metrics.loss:.4f}",
                percent(each.metrics.calibration_error),
            ]
            for each in evaluations
        ],
        numbers="lrrrr",
    )
    say(f"\n{evaluations[-1].origin}")


def show(evaluation: "Evaluation") -> None:
    """Prints an evaluation for people."""
    metrics = evaluation.metrics
    views = "2 views (mirrored)" if evaluation.flip else VIEWS[evaluation.protocol]
    say(f"top-1 error  {rate_words(metrics.top1)}")
    if len(metrics.classes) > 5:
        say(f"top-5 error  {rate_words(metrics.top5)}")
    say(f"loss  {metrics.loss:.4f} nats")
    say(f"calibration error  {metrics.calibration_error:.2f} %")
    say(f"{metrics.images:,} images, {views}, {evaluation.precision}\n")
    print_table(
        ["class", "images", "error", "precision"],
        [
            [each.name, f"{each.images:,}", percent(each.error), percent(each.precision)]
            for each in metrics.classes
        ],
        numbers="lrrr",
    )
    show_mistakes(metrics)


def show_mistakes(metrics: "Metrics") -> None:
    """Prints what is mistaken for what most often."""
    from resnetkit.evaluation.metrics import mistakes

    names = [each.name for each in metrics.classes]
    found = mistakes(metrics.confusion)[:MOST_MISTAKES]
    if found:
        say("\nmost frequent mistakes")
    for each in found:
        say(f"{each.count:6,}  {names[each.true]} taken for {names[each.predicted]}")


def rate_words(rate: "ErrorRate") -> str:
    """Returns an error with its interval."""
    return f"{rate.error:.2f} % (95 % interval {rate.low:.2f} to {rate.high:.2f})"


def percent(value: float) -> str:
    """Returns a share for people; a dash when there is none."""
    return "-" if value != value else f"{value:.2f} %"
