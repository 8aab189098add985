"""None, A, B or C: what do shortcuts with parameters gain (table 3)?"""

from typing import Any

from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs, error_sample
from resnetkit.studies.study import Finding, PaperFigure, Study, judge_higher, judge_not_higher

__all__ = ["SHORTCUTS"]

MARGIN = 1.0  # percentage points


def options(depth: int) -> dict[str, dict[str, Any]]:
    """Returns the plain network of a depth and the residual ones with each kind of shortcut."""
    return {
        f"plain{depth}": {"model.name": f"plain{depth}"},
        f"resnet{depth}": {"model.name": f"resnet{depth}"},
        **{
            f"resnet{depth}-{each}": {
                "model.name": f"resnet{depth}",
                "model.options": {"shortcut": each},
            }
            for each in ("B", "C")
        },
    }


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's table 3 and of what it says of it."""
    none, a, b, c = runs
    return [
        judge_higher(
            "Any shortcut is better than none: the plain network has a higher training error than"
            " the one with option A.",
            error_sample(runs, none, "train"),
            error_sample(runs, a, "train"),
            margin=MARGIN,
            confirmed="Option A has no parameters: what helps is the shortcut, not its weights.",
            not_confirmed=(
                "At this depth and length the plain network could be trained about as well."
            ),
        ),
        judge_not_higher(
            "Projections gain little: option A, without parameters, has no higher test error than"
            " option C, which projects everywhere.",
            error_sample(runs, a, "test"),
            error_sample(runs, c, "test"),
            margin=MARGIN,
            confirmed=(
                "Weights in the shortcut are not what removes degradation; the paper leaves option"
                " C out to save memory and time."
            ),
            not_confirmed="At this scale the difference is larger than the margin, or not known.",
        ),
        judge_not_higher(
            "Where the shape changes, zeros do as well as a projection: option A has no higher test"
            " error than option B.",
            error_sample(runs, a, "test"),
            error_sample(runs, b, "test"),
            margin=MARGIN,
            confirmed="The new channels that get zeros have no shortcut; that costs little.",
            not_confirmed="At this scale the difference is larger than the margin, or not known.",
        ),
    ]


SHORTCUTS = Study(
    name="shortcuts",
    title="Shortcuts: the identity is enough",
    question="Must a shortcut have weights of its own, or does the identity do?",
    source="He et al. 2015, sec. 3.3 and table 3",
    theory_title="What can pass a block by?",
    theory=(
        (
            "Option A lets the input pass as it is and fills new channels with zeros; option B"
            " projects it by a 1x1 convolution where the shape changes; option C projects"
            " everywhere: y = F(x) + Wx. Only the last two add parameters."
        ),
    ),
    scales={
        "quick": digits(options(32), cost="20 seconds more than degradation"),
        "short": cifar10(options(56), cost="about 80 minutes on 2 cores (estimate)"),
        "paper": paper(options(56), cost="days on 2 cores: use a GPU"),
    },
    findings=findings,
    paper_figures=(
        PaperFigure("plain34", "28.54", "He et al. 2015, table 3 (ImageNet, 10 crops)"),
        PaperFigure("resnet34-A", "25.03", "He et al. 2015, table 3 (ImageNet, 10 crops)"),
        PaperFigure("resnet34-B", "24.52", "He et al. 2015, table 3 (ImageNet, 10 crops)"),
        PaperFigure("resnet34-C", "24.19", "He et al. 2015, table 3 (ImageNet, 10 crops)"),
    ),
    paper_data="ImageNet, 1.28 million photographs in 1,000 classes",
)
