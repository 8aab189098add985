"""Two classifiers on the same images: how much more often one of them is wrong."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ErrorDifference", "error_difference", "fewest_images"]

Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class ErrorDifference:
    """How much more error a classifier makes than another one on the same images.

    Attributes:
        points: difference of the errors, in percentage points; negative if it makes less.
        low: lower end of its 95 % interval by Bonett and Price 2012.
        high: upper end.
    """

    points: float
    low: float
    high: float


def error_difference(
    wrong: npt.NDArray[np.bool_], reference_wrong: npt.NDArray[np.bool_]
) -> ErrorDifference:
    """Compares a classifier with a reference.

    The interval is that of Bonett and Price 2012, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data": one image is added to each kind of
    disagreement, so that it also holds where the two hardly ever disagree.

    Args:
        wrong: bool (N,), whether the classifier is wrong.
        reference_wrong: bool (N,), whether the reference is, on the same images.
    """
    count = len(wrong)
    only_here = int((wrong & ~reference_wrong).sum())
    only_there = int((~wrong & reference_wrong).sum())
    here, there = (only_here + 1) / (count + 2), (only_there + 1) / (count + 2)
    center = here - there
    half = Z * math.sqrt((here + there - center**2) / (count + 2))
    return ErrorDifference(
        points=100 * (only_here - only_there) / count,
        low=100 * (center - half),
        high=100 * (center + half),
    )


def fewest_images(points: float) -> int:
    """Returns how many images can show that a difference is at most `points` percentage points.

    With fewer, the interval is wider than that even if the two never disagree.
    """
    return max(1, math.ceil(100 * Z * math.sqrt(2) / points) - 2)
