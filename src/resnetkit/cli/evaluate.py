"""resnet evaluate: what a trained network gets right and wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from resnetkit.cli.options import Device, Json
from resnetkit.cli.output import bar, print_json, print_table, remark

if TYPE_CHECKING:
    from resnetkit.evaluation.evaluate import Evaluation
    from resnetkit.evaluation.metrics import ErrorRate, Metrics

__all__ = ["evaluate"]

MOST_MISTAKES = 5


def evaluate(
    network: Path,
    /,
    *,
    data: Annotated[
        str, Parameter(help="Data set; by default the one it was trained on, if that is known.")
    ] = "",
    split: Annotated[
        Literal["train", "validation", "test"],
        Parameter(help="Which part: train, validation, or test, the default."),
    ] = "test",
    flip: Annotated[
        bool, Parameter(negative=(), help="Average over each image and its mirror image.")
    ] = False,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Parameter(help="float32, the default; bfloat16; or auto."),
    ] = "float32",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure a trained network on images it has not learned from.

    Args:
        network: A run folder, its model folder, or a file of weights: the .th files of
            akamaster/pytorch_resnet_cifar10.
    """
    from resnetkit.data.datasets import open_dataset
    from resnetkit.errors import UsageError
    from resnetkit.evaluation.evaluate import evaluate as measure_network
    from resnetkit.models.weights.load import load_network

    loaded = load_network(network)
    if not (data or loaded.data):
        raise UsageError(
            f"{network} does not say what it was trained on: name the data, such as --data cifar10."
        )
    dataset = open_dataset(data or loaded.data)
    remark(f"{loaded.origin}; {split} part of {dataset.name}")
    with bar("evaluate") as progress:
        evaluation = measure_network(
            loaded,
            dataset,
            split=split,
            flip=flip,
            precision=precision,
            device=device,
            observe=progress.update,
        )
    if json:
        print_json(facts(evaluation))
    else:
        show(evaluation)


def facts(evaluation: "Evaluation") -> dict[str, Any]:
    """Returns an evaluation for machines; null stands for what is not a number."""
    from dataclasses import asdict

    from resnetkit.training.run import finite

    found = asdict(evaluation)
    found["metrics"]["classes"] = [finite(each) for each in found["metrics"]["classes"]]
    return found


def show(evaluation: "Evaluation") -> None:
    """Prints an evaluation for people."""
    metrics = evaluation.metrics
    views = "2 views (mirrored)" if evaluation.flip else "1 view"
    print(f"top-1 error  {rate_words(metrics.top1)}")
    if len(metrics.classes) > 5:
        print(f"top-5 error  {rate_words(metrics.top5)}")
    print(f"loss  {metrics.loss:.4f} nats")
    print(f"calibration error  {metrics.calibration_error:.2f} %")
    print(f"{metrics.images:,} images, {views}, {evaluation.precision}\n")
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
        print("\nmost frequent mistakes")
    for each in found:
        print(f"{each.count:6,}  {names[each.true]} taken for {names[each.predicted]}")


def rate_words(rate: "ErrorRate") -> str:
    """Returns an error with its interval."""
    return f"{rate.error:.2f} % (95 % interval {rate.low:.2f} to {rate.high:.2f})"


def percent(value: float) -> str:
    """Returns a share for people; a dash when there is none."""
    return "-" if value != value else f"{value:.2f} %"
