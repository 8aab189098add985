"""None, A, B or C: what do shortcuts with parameters gain (table 3)?"""

from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import LARGER_THAN_MARGIN, cifar10, digits, paper
from resnetkit.studies.statistics import ERROR_MARGIN, Runs, error_sample
from resnetkit.studies.study import (
    Finding,
    Groups,
    PaperFigure,
    Study,
    judge_higher,
    judge_not_higher,
    networks,
)

__all__ = ["SHORTCUTS"]


def options(depth: int) -> Groups:
    """Returns the plain network of a depth and the residual ones with each kind of shortcut."""
    name = f"resnet{depth}"
    projections: Groups = {
        f"{name}-{option}": {"model.name": name, "model.options": {"shortcut": option}}
        for option in ("B", "C")
    }
    return {**networks(f"plain{depth}", name), **projections}


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's table 3 and of the text about it."""
    none, a, b, c = runs
    return [
        judge_higher(
            phrase(
                "Any shortcut is better than none: the plain network has a higher training error"
                " than the one with option A."
            ),
            error_sample(runs, none, "train"),
            error_sample(runs, a, "train"),
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "Option A has no parameters: what helps is the shortcut, not its weights."
            ),
            not_confirmed=phrase(
                "At this depth and training length the plain network was trained about as well."
            ),
        ),
        judge_not_higher(
            phrase(
                "Projections gain little: option A, without parameters, has no higher test error"
                " than option C, which projects everywhere."
            ),
            error_sample(runs, a, "test"),
            error_sample(runs, c, "test"),
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "Weights in the shortcut are not what removes degradation; the paper leaves option"
                " C out to save memory and time."
            ),
            not_confirmed=LARGER_THAN_MARGIN,
        ),
        judge_not_higher(
            phrase(
                "Where the shape changes, zeros do as well as a projection: option A has no higher"
                " test error than option B."
            ),
            error_sample(runs, a, "test"),
            error_sample(runs, b, "test"),
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "New channels are filled with zeros and so have no shortcut; that costs little."
            ),
            not_confirmed=LARGER_THAN_MARGIN,
        ),
    ]


TABLE_3 = phrase("He et al. 2015, table 3 (ImageNet, 10 crops)")

SHORTCUTS = Study(
    name="shortcuts",
    title=phrase("Shortcuts: the identity is enough"),
    question=phrase("Does a shortcut need weights of its own, or is the identity enough?"),
    source="He et al. 2015, sec. 3.3 and table 3",
    theory_title=phrase("What can a shortcut compute?"),
    theory=(
        phrase(
            "Option A passes the input on unchanged and fills new channels with zeros. Option B"
            " projects it by a 1x1 convolution where the shape changes. Option C projects it"
            " everywhere: y = F(x) + Wx. Only B and C add parameters."
        ),
    ),
    scales={
        "quick": digits(options(32), cost="20 seconds more than degradation"),
        "short": cifar10(options(56), cost="about 80 minutes on 2 cores (estimate)"),
        "paper": paper(options(56), cost="days on 2 cores: use a GPU"),
    },
    findings=findings,
    paper_figures=(
        PaperFigure("plain34", "28.54", TABLE_3),
        PaperFigure("resnet34-A", "25.03", TABLE_3),
        PaperFigure("resnet34-B", "24.52", TABLE_3),
        PaperFigure("resnet34-C", "24.19", TABLE_3),
    ),
    paper_data=phrase("ImageNet, 1.28 million photographs in 1,000 classes"),
)
