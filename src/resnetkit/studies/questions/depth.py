"""Does depth keep helping residual networks, beyond a hundred layers (table 6)?"""

from resnetkit.studies.chart import Chart, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import (
    CIFAR10_DATA,
    PAPER_TABLE_6,
    REPRODUCTION,
    cifar10,
    digits,
    paper,
    warmed_up,
)
from resnetkit.studies.statistics import ERROR_MARGIN, Runs, by_depth, error_sample
from resnetkit.studies.study import Finding, Study, judge_higher, judge_not_higher, networks

__all__ = ["DEPTH"]


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's table 6."""
    groups = by_depth(runs, "resnet")
    shallow, deep = groups[0], groups[-1]
    return [
        judge_not_higher(
            phrase(
                "Very deep residual networks can be trained: {deep} has no higher training error"
                " than {shallow}.",
                deep=deep,
                shallow=shallow,
            ),
            error_sample(runs, deep, "train"),
            error_sample(runs, shallow, "train"),
            margin=ERROR_MARGIN,
            confirmed=phrase("With shortcuts, added layers do no harm to the training error."),
            not_confirmed=phrase(
                "In so few steps {deep} did not catch up with {shallow}: deeper networks need more"
                " steps, and the paper warms up its network of 110 layers.",
                deep=deep,
                shallow=shallow,
            ),
        ),
        judge_higher(
            phrase(
                "Depth helps: {deep} has a lower test error than {shallow}.",
                deep=deep,
                shallow=shallow,
            ),
            error_sample(runs, shallow, "test"),
            error_sample(runs, deep, "test"),
            margin=0.0,
            confirmed=phrase("More layers find better features, as long as they can be trained."),
            not_confirmed=phrase(
                "At this scale the task is too small, or the training too short, for the added"
                " layers to show in the test error."
            ),
        ),
    ]


def charts(runs: Runs) -> list[Chart]:
    """Returns what depth costs: time and memory."""
    groups = by_depth(runs, "resnet")
    depths = [float(group.removeprefix("resnet")) for group in groups]
    seeds = list(zip(*(runs[group] for group in groups), strict=True))
    seconds = [[run.seconds for run in seed] for seed in seeds]
    mebibytes = [[measured(run, "memory")["mebibytes"][0] for run in seed] for seed in seeds]
    return [
        Chart(
            title=phrase("Time of one training"),
            x=phrase("depth in layers"),
            y=phrase("seconds"),
            lines=(line("resnet", seconds, depths),),
        ),
        Chart(
            title=phrase("Memory kept for the backward pass"),
            x=phrase("depth in layers"),
            y=phrase("MiB per batch"),
            lines=(line("resnet", mebibytes, depths),),
        ),
    ]


DEPTH = Study(
    name="depth",
    title=phrase("Depth: a hundred layers can be trained"),
    question=phrase(
        "Do residual networks get better with depth, and how deep can they be trained?"
    ),
    source="He et al. 2015, sec. 4.2 and table 6",
    theory_title=phrase("How deep is too deep?"),
    theory=(
        phrase(
            "With y = F(x) + x in every block, a layer that has nothing to add can leave F(x) at"
            " zero. So depth should cost time and memory, but no accuracy, until the network is so"
            " large that it memorizes the training images: the paper's network of 1202 layers"
            " reaches less than 0.1 % training error and is still worse on new images than its"
            " network of 110."
        ),
    ),
    scales={
        "quick": digits(
            networks("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
            cost="40 seconds more than degradation",
        ),
        "short": cifar10(
            networks("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
            cost="about 3 hours on 2 cores (estimate)",
        ),
        "paper": paper(
            {
                **networks("resnet20", "resnet32", "resnet44", "resnet56"),
                **warmed_up("resnet110", "resnet1202"),
            },
            cost="weeks on 2 cores: use a GPU",
        ),
    },
    findings=findings,
    paper_figures=(
        *PAPER_TABLE_6.values(),
        *(REPRODUCTION[group] for group in ("resnet20", "resnet56", "resnet110")),
    ),
    paper_data=CIFAR10_DATA,
    measurements=("memory",),
    charts=charts,
)
