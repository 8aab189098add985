"""Do blocks stay near the identity, and the nearer the deeper the network is?"""

import statistics

from resnetkit.studies.chart import Chart, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import (
    Runs,
    by_depth,
    limit,
    line_along,
    measured_line,
    measured_sample,
)
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, judge_not_higher, networks

__all__ = ["RESIDUALS"]

MARGIN = 0.02


def ratio(runs: Runs, group: str, key: str) -> Sample:
    """Returns how large F is beside the shortcut, the mean over blocks, one a training."""
    words = {
        "before": "F beside its shortcut before training of {group}",
        "after": "F beside its shortcut after training of {group}",
    }
    return measured_sample(runs, group, "residuals", key, words[key])


def findings(runs: Runs) -> list[Finding]:
    """Judges whether residuals are small, and smaller in deeper networks, and short paths count."""
    groups = by_depth(runs, "resnet")
    shallow, deep = groups[0], groups[-1]
    after = ratio(runs, deep, "after")
    through_half = Sample(
        phrase(
            "share of the summed gradient norms of {deep} on paths through at most half of its"
            " blocks",
            deep=deep,
        ),
        tuple(share_of_short_paths(measured(run, "paths")["total"]) for run in runs[deep]),
    )
    return [
        judge_higher(
            phrase(
                "In the deeper network the blocks are nearer to the identity: F is smaller beside"
                " its shortcut in {deep} than in {shallow}.",
                deep=deep,
                shallow=shallow,
            ),
            ratio(runs, shallow, "after"),
            after,
            margin=MARGIN,
            confirmed=(
                "With more blocks each has less to change, and a block that changes little is close"
                " to copying its input."
            ),
            not_confirmed="At this scale the blocks of both networks change about as much.",
        ),
        judge_not_higher(
            phrase(
                "F is smaller than what it is added to, on average over the blocks of {deep}.",
                deep=deep,
            ),
            after,
            limit("as large as the shortcut", 1.0, after),
            margin=0.0,
            confirmed=(
                "What passes by the blocks unchanged is the larger part of the signal: the network"
                " refines its input step by step."
            ),
            not_confirmed="Here the blocks add more than they let pass.",
        ),
        judge_higher(
            phrase(
                "By the sum of their norms, most of the gradient of {deep} comes by short paths,"
                " through at most half of its blocks.",
                deep=deep,
            ),
            through_half,
            limit("half of the sum", 50.0, through_half),
            margin=0.0,
            confirmed=(
                "A residual network is the sum of many paths. The long ones carry next to no"
                " gradient; it is the many short and middle ones by which it learns."
            ),
            not_confirmed="Here the longer half of the paths carries as much.",
        ),
    ]


def share_of_short_paths(totals: list[float]) -> float:
    """Returns the share in percent of paths through at most half of the blocks.

    Args:
        totals: gradient of all paths through 0, 1, 2, ... blocks.
    """
    half = (len(totals) - 1) // 2
    return 100 * sum(totals[: half + 1]) / sum(totals)


def charts(runs: Runs) -> list[Chart]:
    """Returns F beside its shortcut in every block, and what the paths of each length carry."""
    deep = by_depth(runs, "resnet")[-1]
    before = [measured(run, "residuals")["before"] for run in runs[deep]]
    paths = [measured(run, "paths") for run in runs[deep]]
    return [
        Chart(
            title="F beside its shortcut, after training",
            x="block, from the input",
            y="|F(x)| / |shortcut|",
            lines=tuple(measured_line(runs, group, "residuals", "after") for group in runs),
        ),
        Chart(
            title=phrase("The same in {deep}, before and after training", deep=deep),
            x="block, from the input",
            y="|F(x)| / |shortcut|",
            lines=(
                line("before", before),
                measured_line(runs, deep, "residuals", "after", label="after"),
            ),
        ),
        Chart(
            title="Mean over the blocks, along training",
            x="step",
            y="|F(x)| / |shortcut|",
            lines=tuple(
                line_along(runs, group, "residuals", "mean along", label=group) for group in runs
            ),
        ),
        Chart(
            title="Distance from the identity",
            x="block that keeps the shape, from the input",
            y="|y - x| / |x|",
            lines=tuple(measured_line(runs, group, "residuals", "change") for group in runs),
        ),
        Chart(
            title=phrase("The gradient that paths carry in {deep}", deep=deep),
            x="blocks that a path passes through",
            y="share of the summed norms, %",
            lines=(line("all of that length", [shares(p["total"]) for p in paths], places(paths)),),
        ),
    ]


def shares(totals: list[float]) -> list[float]:
    """Returns numbers as percent of their sum."""
    return [100 * each / sum(totals) for each in totals]


def places(paths: list[dict[str, list[float]]]) -> list[float]:
    """Returns how many blocks the paths of each length pass through."""
    return [statistics.fmean(each) for each in zip(*(p["blocks"] for p in paths), strict=True)]


RESIDUALS = Study(
    name="residuals",
    title="Residuals: blocks refine, they do not start anew",
    question="Do residual blocks stay near the identity, and the nearer the deeper the network is?",
    source="He et al. 2015, sec. 3.1; Veit, Wilber and Belongie 2016",
    theory_title="What is left for a block to learn?",
    theory=(
        (
            "In y = F(x) + x the identity is already there; the block learns the difference F(x)."
            " Its size beside the shortcut says how far a block is from copying its input."
        ),
        (
            "Multiplied out, n such blocks are a sum of 2^n paths, each through some F and past the"
            " others. Most have about half of the blocks, but each F makes the gradient smaller, so"
            " that shorter paths carry more of it."
        ),
    ),
    scales={
        "quick": digits(
            networks("resnet20", "resnet32", "resnet56"), cost="20 seconds more than degradation"
        ),
        "short": cifar10(
            networks("resnet20", "resnet56"), cost="about 35 minutes on 2 cores (estimate)"
        ),
        "paper": paper(
            networks("resnet20", "resnet56", "resnet110"), cost="days on 2 cores: use a GPU"
        ),
    },
    findings=findings,
    paper_figures=(),
    paper_data="",
    measurements=("residuals", "paths"),
    charts=charts,
    about_errors=False,
)
