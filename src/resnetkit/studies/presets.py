"""The scales of the studies: digits in minutes, CIFAR-10 in hours, and the paper's own training."""

from typing import Any

from resnetkit.studies.study import Scale

__all__ = ["cifar10", "digits", "paper"]

Groups = dict[str, dict[str, Any]]

SEEDS = 3
OTHER_TASK = (
    "That is another task: compare the direction (which network is better, and does depth help?),"
    " not the level."
)
FEWER_STEPS = (
    "The images are the same, but training here takes a thirtieth of the paper's steps: compare the"
    " direction, not the level."
)
SAME_RECIPE = (
    "Images and recipe are the same; here 45,000 images are trained on, as in the paper's choice of"
    " the recipe."
)


def digits(groups: Groups, *, cost: str) -> Scale:
    """Returns a study on scikit-learn's digits, 13 epochs."""
    return Scale("digits-study", groups, SEEDS, cost, OTHER_TASK)


def cifar10(groups: Groups, *, cost: str) -> Scale:
    """Returns a study on CIFAR-10 in a thirtieth of the paper's steps."""
    return Scale("cifar10-study", groups, SEEDS, cost, FEWER_STEPS)


def paper(groups: Groups, *, cost: str) -> Scale:
    """Returns a study with the paper's recipe."""
    return Scale("paper-cifar10", groups, SEEDS, cost, SAME_RECIPE)
