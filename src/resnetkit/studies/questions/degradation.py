"""Does depth make plain networks worse, even on training data, and do residual ones escape?"""

from resnetkit.data.splits import Split
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import PARTS, Runs, by_depth, error_sample
from resnetkit.studies.study import (
    Finding,
    PaperFigure,
    Study,
    judge_higher,
    judge_not_higher,
    networks,
)

__all__ = ["DEGRADATION"]

MARGIN = 1.0  # percentage points; not adjusted to the runs: docs/log.md, 2026-11-20


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's sections 1 and 4.2 from the runs."""
    plain, residual = by_depth(runs, "plain"), by_depth(runs, "resnet")
    return [
        plain_degrades(runs, plain[0], plain[-1]),
        residual_does_not(runs, residual[0], residual[-1]),
        residual_wins(runs, residual[-1], plain[-1], "train"),
        residual_wins(runs, residual[-1], plain[-1], "test"),
    ]


def plain_degrades(runs: Runs, shallow: str, deep: str) -> Finding:
    """Judges: the deeper plain network has the higher training error."""
    return judge_higher(
        phrase(
            "The deeper plain network ({deep}) has a higher training error than the shallower"
            " ({shallow}).",
            deep=deep,
            shallow=shallow,
        ),
        error_sample(runs, deep, "train"),
        error_sample(runs, shallow, "train"),
        margin=MARGIN,
        confirmed=phrase(
            "{deep} contains {shallow}: its extra layers could copy their input and do no"
            " worse. Training does not find that solution. Since the error is on the training"
            " images, this is not overfitting.",
            deep=deep,
            shallow=shallow,
        ),
        not_confirmed=phrase(
            "At this scale {deep} could be trained about as well as {shallow}: the network was"
            " not deep enough for degradation to show.",
            deep=deep,
            shallow=shallow,
        ),
    )


def residual_does_not(runs: Runs, shallow: str, deep: str) -> Finding:
    """Judges: the deeper residual network does not have the higher training error."""
    return judge_not_higher(
        phrase(
            "The deeper residual network ({deep}) does not have a higher training error than the"
            " shallower ({shallow}).",
            deep=deep,
            shallow=shallow,
        ),
        error_sample(runs, deep, "train"),
        error_sample(runs, shallow, "train"),
        margin=MARGIN,
        confirmed=phrase(
            "With shortcuts, a block that has nothing to add only has to push its F(x) towards"
            " zero. The depth that ruins the plain network leaves {deep} as well trained as"
            " {shallow}.",
            deep=deep,
            shallow=shallow,
        ),
        not_confirmed=phrase(
            "At this scale {deep} did not reach the training error of {shallow}: it may need"
            " more steps.",
            deep=deep,
            shallow=shallow,
        ),
    )


def residual_wins(runs: Runs, residual: str, plain: str, split: Split) -> Finding:
    """Judges: at the greatest depth the plain network has the higher error."""
    part = PARTS[split]
    return judge_higher(
        phrase(
            "At the greatest depth the residual network ({residual}) has a lower {part} error than"
            " the plain one ({plain}).",
            residual=residual,
            part=part,
            plain=plain,
        ),
        error_sample(runs, plain, split),
        error_sample(runs, residual, split),
        margin=MARGIN,
        confirmed=phrase(
            "Both networks have the same layers and the same number of parameters; only the"
            " shortcuts differ, and they decide the {part} error.",
            part=part,
        ),
        not_confirmed=phrase(
            "At this scale the shortcuts did not lower the {part} error by the margin.", part=part
        ),
    )


PAPER = "He et al. 2015, table 6"
READ_OFF = "He et al. 2015, read off figure 6"
NABLA = "nabla0001/resnet, 5 runs"

DEGRADATION = Study(
    name="degradation",
    title="Degradation: plain networks get worse with depth, residual networks do not",
    question=(
        "Does adding layers make a plain network worse even on its training data, and do shortcuts"
        " prevent it?"
    ),
    source=(
        "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2015, figures 1"
        " and 6"
    ),
    theory_title="Why should depth hurt?",
    theory=(
        (
            "A deeper network can do everything a shallower one can: let the added layers copy"
            " their input. So its training error should never be higher. In practice it is, once a"
            " plain stack of layers is deep enough. This is called degradation. It is not"
            " overfitting, which would lower the training error, and it is not explained by"
            " vanishing gradients, because batch normalization keeps them healthy."
        ),
        (
            "A residual block computes y = F(x) + x. Its layers only have to learn what to change,"
            " F(x); copying the input means F(x) = 0, which is easy to reach. The shortcut has no"
            " parameters here (option A), so a plain network and its residual twin are equal in"
            " depth, width and number of parameters."
        ),
    ),
    scales={
        "quick": digits(
            networks("plain20", "plain32", "plain56", "resnet20", "resnet32", "resnet56"),
            cost="70 seconds on 2 cores (AMD EPYC)",
        ),
        "short": cifar10(
            networks("plain20", "plain56", "resnet20", "resnet56"),
            cost="about 70 minutes on 2 cores (AMD EPYC)",
        ),
        "paper": paper(
            networks(
                *(f"plain{depth}" for depth in (20, 32, 44, 56)),
                *(f"resnet{depth}" for depth in (20, 32, 44, 56)),
            ),
            cost="about three days on 2 cores (estimate)",
        ),
    },
    findings=findings,
    paper_figures=(
        PaperFigure("plain20", "about 9.5", READ_OFF),
        PaperFigure("plain32", "about 10", READ_OFF),
        PaperFigure("plain44", "about 12", READ_OFF),
        PaperFigure("plain56", "about 13.5", READ_OFF),
        PaperFigure("resnet20", "8.75", PAPER),
        PaperFigure("resnet32", "7.51", PAPER),
        PaperFigure("resnet44", "7.17", PAPER),
        PaperFigure("resnet56", "6.97", PAPER),
        PaperFigure("plain20", "9.78 +- 0.13", NABLA),
        PaperFigure("plain56", "12.95 +- 0.22", NABLA),
        PaperFigure("resnet20", "8.51 +- 0.22", NABLA),
        PaperFigure("resnet56", "7.40 +- 0.27", NABLA),
    ),
    paper_data="CIFAR-10, 50,000 color photographs of 32x32 pixels in 10 classes, 64,000 steps",
)
