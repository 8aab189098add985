"""Two 3x3 layers, or a bottleneck of three layers at about equal cost?"""

from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import ERROR_MARGIN, Runs, error_sample
from resnetkit.studies.study import Finding, Study, judge_higher, judge_not_higher, networks

__all__ = ["BOTTLENECK"]


def findings(runs: Runs) -> list[Finding]:
    """Judges bottlenecks against basic blocks, and whether plain bottlenecks degrade, too."""
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
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "Three narrow layers do the work of two wide ones, and the depth comes for free:"
                " this is why ResNet-50 and deeper networks are built of bottlenecks."
            ),
            not_confirmed=phrase(
                "At this scale the bottlenecks did worse: the deeper network may need more steps."
            ),
        ),
        judge_higher(
            phrase(
                "Plain networks of bottlenecks degrade too: {deep} has a higher training error than"
                " {shallow}.",
                deep=plain_deep,
                shallow=plain_shallow,
            ),
            error_sample(runs, plain_deep, "train"),
            error_sample(runs, plain_shallow, "train"),
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "The bottleneck is a matter of cost. What makes depth trainable is the shortcut."
            ),
            not_confirmed=phrase("At this scale the deeper network was trained about as well."),
        ),
    ]


NETWORKS = networks("resnet56", "resnet83_bottleneck", "plain29_bottleneck", "plain83_bottleneck")

BOTTLENECK = Study(
    name="bottleneck",
    title=phrase("Bottlenecks: more depth at the same cost"),
    question=phrase(
        "Does a block of 1x1, 3x3, and 1x1 layers do as well as one of two 3x3 layers?"
    ),
    source="He et al. 2015, sec. 4.1, figure 5",
    theory_title=phrase("Why squeeze?"),
    theory=(
        phrase(
            "A 1x1 convolution first reduces the channels to a quarter, a 3x3 convolution works on"
            " these few channels, and another 1x1 convolution restores them. In y = F(x) + x this"
            " costs about as much as two 3x3 layers, while the shortcut connects the wide ends."
        ),
    ),
    scales={
        "quick": digits(NETWORKS, cost="50 seconds more than degradation"),
        "short": cifar10(NETWORKS, cost="about 2 hours on 2 cores (estimate)"),
        "paper": paper(NETWORKS, cost="days on 2 cores: use a GPU"),
    },
    findings=findings,
)
