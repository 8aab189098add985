"""Do blocks stay close to the identity, and closer in deeper networks?"""

import statistics

from resnetkit.studies.chart import Chart, Line, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper, warmed_up
from resnetkit.studies.statistics import (
    Runs,
    by_depth,
    limit,
    line_along,
    measured_line,
    measured_sample,
)
from resnetkit.studies.study import (
    Finding,
    Sample,
    Study,
    judge_higher,
    judge_not_higher,
    networks,
)

__all__ = ["RESIDUALS"]

MARGIN = 0.02


def ratio(runs: Runs, group: str) -> Sample:
    """Returns the size of F relative to its shortcut after training, the mean over blocks."""
    label = phrase("F relative to its shortcut in {group}, after training", group=group)
    return measured_sample(runs, group, "residuals", "after", label)


def untrained_ratio(runs: Runs, group: str) -> Sample:
    """Returns the same before training."""
    label = phrase("F relative to its shortcut in {group}, before training", group=group)
    return measured_sample(runs, group, "residuals", "before", label)


def findings(runs: Runs) -> list[Finding]:
    """Judges what depth and training do to the size of F, and whether short paths count."""
    groups = by_depth(runs, "resnet")
    shallow, deep = groups[0], groups[-1]
    return [
        closer_when_deeper(runs, shallow, deep),
        closer_when_trained(runs, deep),
        smaller_than_shortcut(runs, deep),
        short_paths_carry_most(runs, deep),
    ]


def closer_when_deeper(runs: Runs, shallow: str, deep: str) -> Finding:
    """Judges: relative to its shortcut, F is smaller in the deeper network."""
    before = f"{untrained_ratio(runs, shallow).mean - untrained_ratio(runs, deep).mean:.2f}"
    after = f"{ratio(runs, shallow).mean - ratio(runs, deep).mean:.2f}"
    return judge_higher(
        phrase(
            "The blocks of the deeper network are closer to the identity: relative to its shortcut,"
            " F is smaller in {deep} than in {shallow}.",
            deep=deep,
            shallow=shallow,
        ),
        ratio(runs, shallow),
        ratio(runs, deep),
        margin=MARGIN,
        confirmed=phrase(
            "With more blocks, each changes less of what it is given. The difference between the"
            " networks was {before} before training and is {after} after it.",
            before=before,
            after=after,
        ),
        not_confirmed=phrase("At this scale the blocks of both networks change about as much."),
    )


def closer_when_trained(runs: Runs, deep: str) -> Finding:
    """Judges: relative to its shortcut, F is smaller after training than before."""
    return judge_higher(
        phrase(
            "Training brings the blocks of {deep} closer to the identity: relative to its shortcut,"
            " F is smaller than before training.",
            deep=deep,
        ),
        untrained_ratio(runs, deep),
        ratio(runs, deep),
        margin=MARGIN,
        confirmed=phrase(
            "The blocks could have become larger. That they become smaller fits what the shortcut"
            " is for: a block that changes little is close to copying its input."
        ),
        not_confirmed=phrase("Here training did not make F smaller relative to its shortcut."),
    )


def smaller_than_shortcut(runs: Runs, deep: str) -> Finding:
    """Judges: F is smaller than its shortcut."""
    after = ratio(runs, deep)
    return judge_not_higher(
        phrase(
            "On average over the blocks of {deep}, F is smaller than the shortcut to which it is"
            " added.",
            deep=deep,
        ),
        after,
        limit(phrase("as large as the shortcut"), 1.0, after),
        margin=0.0,
        confirmed=phrase(
            "The larger part of the signal passes the blocks unchanged: each adds to its input"
            " rather than replacing it."
        ),
        not_confirmed=phrase("Here the blocks add more than the shortcuts carry."),
    )


def short_paths_carry_most(runs: Runs, deep: str) -> Finding:
    """Judges: most of the gradient arrives on paths through at most half of the blocks."""
    short = Sample(
        phrase(
            "fraction of the summed gradient norms of {deep} on paths through at most half of its"
            " blocks",
            deep=deep,
        ),
        tuple(percent_of_short_paths(measured(run, "paths")["total"]) for run in runs[deep]),
    )
    return judge_higher(
        phrase(
            "By the sum of norms, most of the gradient of {deep} arrives on short paths, through at"
            " most half of its blocks.",
            deep=deep,
        ),
        short,
        limit(phrase("half of the sum"), 50.0, short),
        margin=0.0,
        confirmed=phrase(
            "A residual network is the sum of many paths. The long ones carry almost no gradient;"
            " the network learns through the many short and medium ones."
        ),
        not_confirmed=phrase("Here the longer half of the paths carries as much."),
    )


def percent_of_short_paths(totals: list[float]) -> float:
    """Returns how many percent of the gradient is on paths through at most half of the blocks.

    Args:
        totals: gradient of all paths through 0, 1, 2, ... blocks.
    """
    half = (len(totals) - 1) // 2
    return 100 * sum(totals[: half + 1]) / sum(totals)


def charts(runs: Runs) -> list[Chart]:
    """Returns F relative to its shortcut in every block, and the gradient by path length."""
    deep = by_depth(runs, "resnet")[-1]
    before = [measured(run, "residuals")["before"] for run in runs[deep]]
    return [
        Chart(
            title=phrase("F relative to its shortcut, after training"),
            x=phrase("block, from the input"),
            y=RATIO,
            lines=tuple(measured_line(runs, group, "residuals", "after") for group in runs),
        ),
        Chart(
            title=phrase("The same in {deep}, before and after training", deep=deep),
            x=phrase("block, from the input"),
            y=RATIO,
            lines=(
                line(phrase("before"), before),
                measured_line(runs, deep, "residuals", "after", label=phrase("after")),
            ),
        ),
        Chart(
            title=phrase("Mean over the blocks, during training"),
            x=phrase("step"),
            y=RATIO,
            lines=tuple(
                line_along(runs, group, "residuals", "mean along", label=group) for group in runs
            ),
        ),
        Chart(
            title=phrase("Distance from the identity"),
            x=phrase("block that keeps the shape, from the input"),
            y="|y - x| / |x|",
            lines=tuple(measured_line(runs, group, "residuals", "change") for group in runs),
        ),
        Chart(
            title=phrase("The gradient that paths carry in {deep}", deep=deep),
            x=phrase("number of blocks on the path"),
            y=phrase("% of the summed norms"),
            lines=(path_line(runs, deep),),
        ),
    ]


RATIO = phrase("|F(x)| / |shortcut|")


def path_line(runs: Runs, group: str) -> Line:
    """Returns how many percent of the gradient the paths of each length carry."""
    paths = [measured(run, "paths") for run in runs[group]]
    lengths = [statistics.fmean(seeds) for seeds in zip(*(p["blocks"] for p in paths), strict=True)]
    percents = [[100 * total / sum(p["total"]) for total in p["total"]] for p in paths]
    return line(phrase("all of that length"), percents, lengths)


RESIDUALS = Study(
    name="residuals",
    title=phrase("Residuals: blocks refine their input"),
    question=phrase(
        "Do residual blocks stay close to the identity, and do they get closer as networks get"
        " deeper?"
    ),
    source="He et al. 2015, sec. 3.1; Veit, Wilber and Belongie 2016",
    theory_title=phrase("What is left for a block to learn?"),
    theory=(
        phrase(
            "In y = F(x) + x the identity is already there; the block learns the difference F(x)."
            " The size of F(x) relative to the shortcut tells how far a block is from copying its"
            " input."
        ),
        phrase(
            "Multiplied out, n such blocks are a sum of 2^n paths, each through some F and past the"
            " others. Most pass through about half of the blocks, but each F makes the gradient"
            " smaller, so shorter paths carry more of it."
        ),
    ),
    scales={
        "quick": digits(
            networks("resnet20", "resnet32", "resnet56"),
            trained_once=("resnet32",),
            cost="20 seconds more than degradation",
        ),
        "short": cifar10(
            networks("resnet20", "resnet56"), cost="about 35 minutes on 2 cores (estimate)"
        ),
        "paper": paper(
            {**networks("resnet20", "resnet56"), **warmed_up("resnet110")},
            cost="days on 2 cores: use a GPU",
        ),
    },
    findings=findings,
    measurements=("residuals", "paths"),
    charts=charts,
    about_errors=False,
)
