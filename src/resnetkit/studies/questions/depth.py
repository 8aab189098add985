"""Does depth keep helping residual networks, beyond a hundred layers (table 6)?"""

from resnetkit.studies.chart import Chart, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs, by_depth, error_sample
from resnetkit.studies.study import (
    Finding,
    PaperFigure,
    Study,
    judge_higher,
    judge_not_higher,
    networks,
)

__all__ = ["DEPTH"]

MARGIN = 1.0  # percentage points
TABLE_6 = "He et al. 2015, table 6"
NABLA = "nabla0001/resnet, 5 runs"


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
            margin=MARGIN,
            confirmed="The shortcuts make the added layers harmless at worst.",
            not_confirmed=phrase(
                "In so few steps {deep} did not catch up with {shallow}: deeper networks need"
                " more of them, and the paper warms up its network of 110 layers.",
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
            confirmed="More layers find better features, as long as they can be trained.",
            not_confirmed=(
                "At this scale the task is too small, or the training too short, for more layers to"
                " show in the test error."
            ),
        ),
    ]


def charts(runs: Runs) -> list[Chart]:
    """Returns what depth costs: time and memory."""
    groups = by_depth(runs, "resnet")
    depths = [float(group.removeprefix("resnet")) for group in groups]
    seeds = list(zip(*(runs[group] for group in groups), strict=True))
    seconds = [[run.seconds for run in each] for each in seeds]
    kept = [[measured(run, "memory")["mebibytes"][0] for run in each] for each in seeds]
    return [
        Chart(
            title="Time of one training",
            x="depth in layers",
            y="seconds",
            lines=(line("resnet", seconds, depths),),
        ),
        Chart(
            title="Memory kept for the backward pass",
            x="depth in layers",
            y="MiB a batch",
            lines=(line("resnet", kept, depths),),
        ),
    ]


DEPTH = Study(
    name="depth",
    title="Depth: a hundred layers can be trained",
    question="Do residual networks get better with depth, and how deep can they be trained?",
    source="He et al. 2015, sec. 4.2 and table 6",
    theory_title="How deep is too deep?",
    theory=(
        (
            "With y = F(x) + x in every block, a layer that has nothing to add can leave F(x) at"
            " zero. So depth should cost time and memory, but no accuracy, until the network is so"
            " large that it learns the training images by heart: the paper's 1202 layers reach less"
            " than 0.1 % training error and still do worse than 110 on new images."
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
            networks("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"),
            cost="weeks on 2 cores: use a GPU",
        ),
    },
    findings=findings,
    paper_figures=(
        PaperFigure("resnet20", "8.75", TABLE_6),
        PaperFigure("resnet32", "7.51", TABLE_6),
        PaperFigure("resnet44", "7.17", TABLE_6),
        PaperFigure("resnet56", "6.97", TABLE_6),
        PaperFigure("resnet110", "6.61 +- 0.16", TABLE_6),
        PaperFigure("resnet1202", "7.93", TABLE_6),
        PaperFigure("resnet20", "8.51 +- 0.22", NABLA),
        PaperFigure("resnet56", "7.40 +- 0.27", NABLA),
        PaperFigure("resnet110", "7.14 +- 0.20", NABLA),
    ),
    paper_data="CIFAR-10, 50,000 color photographs of 32x32 pixels in 10 classes, 64,000 steps",
    measurements=("memory",),
    charts=charts,
)
