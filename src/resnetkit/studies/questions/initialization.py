"""Xavier's weights against He's at depth, with and without normalization."""

from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import LARGER_THAN_MARGIN, cifar10, digits, paper
from resnetkit.studies.statistics import ERROR_MARGIN, Runs, error_sample
from resnetkit.studies.study import Finding, Groups, Study, judge_higher, judge_not_higher

__all__ = ["INITIALIZATION"]


def variants(name: str) -> Groups:
    """Returns a network from both kinds of weights, with and without normalization."""
    options = {
        f"{name} Xavier": {"initialization": "xavier"},
        f"{name} without BN": {"norm": "none"},
        f"{name} without BN, Xavier": {"norm": "none", "initialization": "xavier"},
    }
    changed: Groups = {
        group: {"model.name": name, "model.options": values} for group, values in options.items()
    }
    return {name: {"model.name": name}, **changed}


def findings(runs: Runs) -> list[Finding]:
    """Judges whether He's weights help, and whether normalization makes the choice unimportant."""
    he, xavier, he_without_norm, xavier_without_norm = runs
    return [
        judge_higher(
            phrase(
                "Without normalization a deep plain network learns worse from Xavier's weights than"
                " from He's."
            ),
            error_sample(runs, xavier_without_norm, "train"),
            error_sample(runs, he_without_norm, "train"),
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "For layers with ReLU, Xavier's weights are too small: signal and gradient shrink"
                " in every layer, and training is slow or does not start."
            ),
            not_confirmed=phrase(
                "At this depth and training length Xavier's weights did not do worse."
            ),
        ),
        judge_not_higher(
            phrase(
                "With batch normalization the choice hardly matters: from Xavier's weights the"
                " training error is not higher than from He's."
            ),
            error_sample(runs, xavier, "train"),
            error_sample(runs, he, "train"),
            margin=ERROR_MARGIN,
            confirmed=phrase(
                "Normalization resets the scale of every layer, whatever the initial weights."
            ),
            not_confirmed=LARGER_THAN_MARGIN,
        ),
    ]


INITIALIZATION = Study(
    name="initialization",
    title=phrase("Initialization: He's weights preserve a signal that Xavier's lose"),
    question=phrase("How much does the choice of initial weights matter at depth?"),
    source="Glorot and Bengio 2010; He et al. 2015 (ICCV), sec. 2.2",
    theory_title=phrase("How large should a weight be?"),
    theory=(
        phrase(
            "A layer adds up n products. For its output to be as large as its input, the weights"
            " need a variance of 1/n; ReLU then loses half of the signal, so He's have 2/n. Over"
            " many layers a wrong factor compounds."
        ),
    ),
    scales={
        "quick": digits(variants("plain20"), cost="15 seconds more than degradation"),
        "short": cifar10(variants("plain32"), cost="about 45 minutes on 2 cores (estimate)"),
        "paper": paper(variants("plain32"), cost="days on 2 cores: use a GPU"),
    },
    findings=findings,
    divergence_counts=True,
)
