"""Xavier's weights against He's at depth, with and without normalization."""

from typing import Any

from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs, error_sample
from resnetkit.studies.study import Finding, Study, judge_higher, judge_not_higher

__all__ = ["INITIALIZATION"]

MARGIN = 1.0  # percentage points


def variants(name: str) -> dict[str, dict[str, Any]]:
    """Returns a network from both kinds of weights, with and without normalization."""
    return {
        f"{name}": {"model.name": name},
        f"{name} Xavier": {"model.name": name, "model.options": {"initialization": "xavier"}},
        f"{name} without BN": {"model.name": name, "model.options": {"norm": "none"}},
        f"{name} without BN, Xavier": {
            "model.name": name,
            "model.options": {"norm": "none", "initialization": "xavier"},
        },
    }


def findings(runs: Runs) -> list[Finding]:
    """Judges whether He's weights help, and whether normalization makes the choice unimportant."""
    he, xavier, bare_he, bare_xavier = runs
    return [
        judge_higher(
            "Without normalization a deep plain network learns worse from Xavier's weights than"
            " from He's.",
            error_sample(runs, bare_xavier, "train"),
            error_sample(runs, bare_he, "train"),
            margin=MARGIN,
            confirmed=(
                "Behind relu Xavier's weights are too small: signal and gradient shrink in every"
                " layer, and training is slow or does not start."
            ),
            not_confirmed=(
                "At this depth and length both learned about as well, or neither learned at all."
            ),
        ),
        judge_not_higher(
            "With batch normalization the choice hardly matters: from Xavier's weights the training"
            " error is not higher than from He's.",
            error_sample(runs, xavier, "train"),
            error_sample(runs, he, "train"),
            margin=MARGIN,
            confirmed="Normalization sets the scale of every layer anew, whatever the weights.",
            not_confirmed="At this scale the difference is larger than the margin, or not known.",
        ),
    ]


INITIALIZATION = Study(
    name="initialization",
    title="Initialization: He's weights carry a signal that Xavier's lose",
    question="How much does the choice of initial weights matter at depth?",
    source="Glorot and Bengio 2010; He et al. 2015 (ICCV), sec. 2.2",
    theory_title="How large should a weight be?",
    theory=(
        (
            "A layer adds up n products. For its output to be as large as its input, the weights"
            " need a variance of 1/n; relu then loses half, so He's have 2/n. Over many layers a"
            " wrong factor multiplies."
        ),
    ),
    scales={
        "quick": digits(variants("plain20"), cost="15 seconds more than degradation"),
        "short": cifar10(variants("plain32"), cost="about 45 minutes on 2 cores (estimate)"),
        "paper": paper(variants("plain32"), cost="days on 2 cores: use a GPU"),
    },
    findings=findings,
    paper_figures=(),
    paper_data="",
    divergence_counts=True,
)
