"""The table of studies."""

from resnetkit.errors import UsageError, did_you_mean
from resnetkit.studies.degradation import DEGRADATION
from resnetkit.studies.study import Study

__all__ = ["STUDIES", "find_study"]

STUDIES: dict[str, Study] = {study.name: study for study in (DEGRADATION,)}


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
