"""The table of studies."""

from resnetkit.errors import UsageError, did_you_mean
from resnetkit.studies.bottleneck import BOTTLENECK
from resnetkit.studies.degradation import DEGRADATION
from resnetkit.studies.depth import DEPTH
from resnetkit.studies.gradients import GRADIENTS
from resnetkit.studies.initialisation import INITIALISATION
from resnetkit.studies.lesion import LESION
from resnetkit.studies.residuals import RESIDUALS
from resnetkit.studies.responses import RESPONSES
from resnetkit.studies.shortcuts import SHORTCUTS
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
        INITIALISATION,
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
