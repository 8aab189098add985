"""The table of studies."""

from resnetkit.errors import UsageError, did_you_mean
from resnetkit.studies.questions.bottleneck import BOTTLENECK
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.questions.depth import DEPTH
from resnetkit.studies.questions.gradients import GRADIENTS
from resnetkit.studies.questions.initialization import INITIALIZATION
from resnetkit.studies.questions.lesion import LESION
from resnetkit.studies.questions.residuals import RESIDUALS
from resnetkit.studies.questions.responses import RESPONSES
from resnetkit.studies.questions.shortcuts import SHORTCUTS
from resnetkit.studies.study import Study

__all__ = ["STUDIES", "find_study"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        DEGRADATION,
        GRADIENTS,
        RESPONSES,
        RESIDUALS,
        SHORTCUTS,
        DEPTH,
        LESION,
        INITIALIZATION,
        BOTTLENECK,
    )
}


def find_study(name: str) -> Study:
    """Returns the named study.

    Raises:
        UsageError: when there is none of that name.
    """
    if name not in STUDIES:
        raise UsageError(
            f"unknown study '{name}': expected one of {', '.join(STUDIES)}."
            + did_you_mean(name, STUDIES)
        )
    return STUDIES[name]
