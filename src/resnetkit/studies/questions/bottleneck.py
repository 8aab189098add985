"""Two 3x3 layers, or a bottleneck of three at about equal cost?"""

from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs, error_sample
from resnetkit.studies.study import Finding, Study, judge_higher, judge_not_higher, networks

__all__ = ["BOTTLENECK"]

MARGIN = 1.0  # percentage points


def findings(runs: Runs) -> list[Finding]:
    """Judges bottlenecks against basic blocks, and whether plain ones of them degrade too."""
    basic, bottleneck, plain_shallow, plain_deep = runs
    return [
        judge_not_higher(
            phrase(
                "At about equal cost bottlenecks are no worse: {bottleneck} has no higher test"
                " error than {basic}.",
                bottleneck=bottleneck,
                basic=basic,
            ),
            error_sample(runs, bottleneck, "test"),
            error_sample(runs, basic, "test"),
            margin=MARGIN,
            confirmed=(
                "Three thin layers do the work of two thick ones, and the depth comes for free:"
                " this is why ResNet-50 and deeper ones are built of them."
            ),
            not_confirmed=(
                "At this scale the bottlenecks did worse: the deeper network may need more steps."
            ),
        ),
        judge_higher(
            phrase(
                "Plain networks of bottlenecks degrade too: {plain_deep} has a higher training"
                " error than {plain_shallow}.",
                plain_deep=plain_deep,
                plain_shallow=plain_shallow,
            ),
            error_sample(runs, plain_deep, "train"),
            error_sample(runs, plain_shallow, "train"),
            margin=MARGIN,
            confirmed=(
                "The bottleneck is a matter of cost. What makes depth trainable is the shortcut."
            ),
            not_confirmed="At this scale both could be trained about as well.",
        ),
    ]


BOTTLENECK = Study(
    name="bottleneck",
    title="Bottlenecks: more depth at the same cost",
    question="Does a block of 1x1, 3x3 and 1x1 layers do as well as one of two 3x3 layers?",
    source="He et al. 2015, sec. 4.1, figure 5",
    theory_title="Why squeeze?",
    theory=(
        (
            "A 1x1 convolution first reduces the channels to a quarter, the 3x3 works on the thin"
            " middle, and another 1x1 restores them. For y = F(x) + x this costs about as much as"
            " two 3x3 layers, but the shortcut joins the wide ends."
        ),
    ),
    scales={
        "quick": digits(
            networks("resnet56", "resnet83_bottleneck", "plain29_bottleneck", "plain83_bottleneck"),
            cost="50 seconds more than degradation",
        ),
        "short": cifar10(
            networks("resnet56", "resnet83_bottleneck", "plain29_bottleneck", "plain83_bottleneck"),
            cost="about 2 hours on 2 cores (estimate)",
        ),
        "paper": paper(
            networks("resnet56", "resnet83_bottleneck", "plain29_bottleneck", "plain83_bottleneck"),
            cost="days on 2 cores: use a GPU",
        ),
    },
    findings=findings,
    paper_figures=(),
    paper_data="",
)
