"""Scales and published numbers that several studies share."""

from collections.abc import Collection

from resnetkit.studies.phrase import phrase
from resnetkit.studies.study import Groups, PaperFigure, Scale, networks

__all__ = [
    "CIFAR10_DATA",
    "LARGER_THAN_MARGIN",
    "OTHER_TASK",
    "PAPER_TABLE_6",
    "REPRODUCTION",
    "cifar10",
    "digits",
    "paper",
    "warmed_up",
]

SEEDS = 3
OTHER_TASK = phrase(
    "That is a different task: compare the direction (which network is better, and does depth"
    " help?), not the level."
)
FEWER_STEPS = phrase(
    "The images are the same, but training here takes a thirtieth of the paper's steps: compare the"
    " direction, not the level."
)
SAME_RECIPE = phrase(
    "Images and recipe are the same, but training here uses 45,000 images, as the paper does to"
    " choose its recipe."
)

LARGER_THAN_MARGIN = phrase("At this scale the difference is larger than the margin.")

TABLE_6 = phrase("He et al. 2015, table 6")
FIVE_RUNS = phrase("nabla0001/resnet, 5 runs")
PAPER_TABLE_6 = {
    group: PaperFigure(group, error, TABLE_6)
    for group, error in {
        "resnet20": "8.75",
        "resnet32": "7.51",
        "resnet44": "7.17",
        "resnet56": "6.97",
        "resnet110": "6.61 +- 0.16",
        "resnet1202": "7.93",
    }.items()
}
REPRODUCTION = {
    group: PaperFigure(group, error, FIVE_RUNS)
    for group, error in {
        "plain20": "9.78 +- 0.13",
        "plain56": "12.95 +- 0.22",
        "resnet20": "8.51 +- 0.22",
        "resnet56": "7.40 +- 0.27",
        "resnet110": "7.14 +- 0.20",
    }.items()
}
CIFAR10_DATA = phrase(
    "CIFAR-10, 50,000 color photographs of 32x32 pixels in 10 classes, 64,000 steps"
)


def digits(groups: Groups, *, cost: str, trained_once: Collection[str] = ()) -> Scale:
    """Returns a scale on scikit-learn's digits, 13 epochs.

    Args:
        groups: see `Scale`.
        cost: see `Scale`.
        trained_once: groups of which no claim is made.
    """
    return Scale("digits-study", groups, SEEDS, cost, OTHER_TASK, frozenset(trained_once))


def cifar10(groups: Groups, *, cost: str) -> Scale:
    """Returns a scale on CIFAR-10 with a thirtieth of the paper's steps."""
    return Scale("cifar10-study", groups, SEEDS, cost, FEWER_STEPS)


def paper(groups: Groups, *, cost: str) -> Scale:
    """Returns a scale with the paper's recipe."""
    return Scale("paper-cifar10", groups, SEEDS, cost, SAME_RECIPE)


def warmed_up(*names: str) -> Groups:
    """Returns groups that differ in their network and warm up as in He et al. 2015, sec. 4.2."""
    warm_up = {"warmup.kind": "until-error", "warmup.lr": 0.01, "warmup.below": 80.0}
    return {name: {**values, **warm_up} for name, values in networks(*names).items()}
