"""Does depth make plain networks worse, even on training data, and do residual networks escape?"""

from resnetkit.data.splits import Split
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import (
    CIFAR10_DATA,
    PAPER_TABLE_6,
    REPRODUCTION,
    cifar10,
    digits,
    paper,
)
from resnetkit.studies.statistics import ERROR_MARGIN, SPLIT_NAMES, Runs, by_depth, error_sample
from resnetkit.studies.study import (
    Finding,
    PaperFigure,
    Study,
    judge_higher,
    judge_not_higher,
    networks,
)

__all__ = ["DEGRADATION"]


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's sections 1 and 4.2."""
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
        margin=ERROR_MARGIN,
        confirmed=phrase(
            "{deep} contains {shallow}: its extra layers could copy their input and do no"
            " worse. Training does not find that solution. Since the error is on the training"
            " images, this is not overfitting.",
            deep=deep,
            shallow=shallow,
        ),
        not_confirmed=phrase(
            "At this scale {deep} was trained about as well as {shallow}: degradation did not"
            " show.",
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
        margin=ERROR_MARGIN,
        confirmed=phrase(
            "With shortcuts, a block that has nothing to add only has to push its F(x) toward zero."
            " So {deep}, which is deeper, is as well trained as {shallow}.",
            deep=deep,
            shallow=shallow,
        ),
        not_confirmed=phrase(
            "At this scale {deep} did not reach the training error of {shallow}: it may need more"
            " steps.",
            deep=deep,
            shallow=shallow,
        ),
    )


def residual_wins(runs: Runs, residual: str, plain: str, split: Split) -> Finding:
    """Judges: at the greatest depth the plain network has the higher error."""
    name = SPLIT_NAMES[split]
    return judge_higher(
        phrase(
            "At the greatest depth the residual network ({residual}) has a lower {split} error than"
            " the plain one ({plain}).",
            residual=residual,
            split=name,
            plain=plain,
        ),
        error_sample(runs, plain, split),
        error_sample(runs, residual, split),
        margin=ERROR_MARGIN,
        confirmed=phrase(
            "Both networks have the same layers and the same number of parameters; they differ only"
            " in the shortcuts, and these decide the {split} error.",
            split=name,
        ),
        not_confirmed=phrase(
            "At this scale the shortcuts did not lower the {split} error by the margin.", split=name
        ),
    )


FIGURE_6 = phrase("He et al. 2015, read off figure 6")

DEGRADATION = Study(
    name="degradation",
    title=phrase("Degradation: plain networks get worse with depth, residual networks do not"),
    question=phrase(
        "Does adding layers make a plain network worse even on its training data, and do shortcuts"
        " prevent it?"
    ),
    source=(
        "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2015, figures 1"
        " and 6"
    ),
    theory_title=phrase("Why should depth hurt?"),
    theory=(
        phrase(
            "A deeper network can do everything a shallower one can: its added layers only have to"
            " copy their input. So its training error should never be higher. In practice it is,"
            " once a plain stack of layers is deep enough. This is called degradation. It is not"
            " overfitting, which would lower the training error, and vanishing gradients do not"
            " explain it, because batch normalization keeps the gradients healthy."
        ),
        phrase(
            "A residual block computes y = F(x) + x. Its layers only have to learn what to change,"
            " F(x); copying the input means F(x) = 0, which is easy to reach. The shortcut has no"
            " parameters here (option A), so a plain network and its residual counterpart are equal"
            " in depth, width and number of parameters."
        ),
    ),
    scales={
        "quick": digits(
            networks("plain20", "plain32", "plain56", "resnet20", "resnet32", "resnet56"),
            trained_once=("plain32", "resnet32"),
            cost="about 90 seconds on 2 cores (AMD EPYC, also with AVX2 only)",
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
        PaperFigure("plain20", phrase("about {error}", error="9.5"), FIGURE_6),
        PaperFigure("plain32", phrase("about {error}", error="10"), FIGURE_6),
        PaperFigure("plain44", phrase("about {error}", error="12"), FIGURE_6),
        PaperFigure("plain56", phrase("about {error}", error="13.5"), FIGURE_6),
        *(PAPER_TABLE_6[f"resnet{depth}"] for depth in (20, 32, 44, 56)),
        *(REPRODUCTION[group] for group in ("plain20", "plain56", "resnet20", "resnet56")),
    ),
    paper_data=CIFAR10_DATA,
)
