"""The scales of the studies: digits in minutes, CIFAR-10 in hours, and the paper's own training."""

from typing import Any

from resnetkit.studies.study import Scale

__all__ = ["cifar10", "digits", "paper"]

Groups = dict[str, dict[str, Any]]

SEEDS = 3


def digits(groups: Groups, *, cost: str) -> Scale:
    """Returns a study on scikit-learn's digits, 13 epochs."""
    return Scale(
        recipe="digits-study",
        groups=groups,
        seeds=SEEDS,
        cost=cost,
        beside_paper=(
            "That is another task: compare the direction (which network is better, and does depth"
            " help?), not the level."
        ),
    )


def cifar10(groups: Groups, *, cost: str) -> Scale:
    """Returns a study on CIFAR-10 in a thirtieth of the paper's steps."""
    return Scale(
        recipe="cifar10-study",
        groups=groups,
        seeds=SEEDS,
        cost=cost,
        beside_paper=(
            "The images are the same, but training here takes a thirtieth of the paper's steps:"
            " compare the direction, not the level."
        ),
    )


def paper(groups: Groups, *, cost: str) -> Scale:
    """Returns a study with the paper's recipe."""
    return Scale(
        recipe="paper-cifar10",
        groups=groups,
        seeds=SEEDS,
        cost=cost,
        beside_paper=(
            "Images and recipe are the same; here 45,000 images are trained on, as in the paper's"
            " choice of the recipe."
        ),
    )
