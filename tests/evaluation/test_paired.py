"""The difference of two errors on the same images, against simulation and hand computation."""

import numpy as np
import pytest

from resnetkit.evaluation.paired import error_difference, fewest_images


def answers(only_here: int, only_there: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns who is wrong for which of `count` images: a tenth of the others are wrong in both."""
    here, there = np.zeros(count, bool), np.zeros(count, bool)
    here[:only_here] = True
    there[only_here : only_here + only_there] = True
    both = slice(only_here + only_there, only_here + only_there + (count // 10))
    here[both] = there[both] = True
    return here, there


def test_points_are_the_difference_of_the_errors() -> None:
    here, there = answers(30, 10, 1000)
    difference = error_difference(here, there)
    assert difference.points == pytest.approx(100 * (here.mean() - there.mean()))
    assert difference.low < difference.points < difference.high


def test_interval_by_hand() -> None:
    # 13 and 4 of 100: (13 + 1) / 102 = 0.13725, (4 + 1) / 102 = 0.04902, difference 0.08824;
    # its variance (0.18627 - 0.00779) / 102 = 0.0017499, and 1.96 standard errors are 0.08199.
    difference = error_difference(*answers(13, 4, 100))
    assert difference.low == pytest.approx(0.624, abs=0.002)
    assert difference.high == pytest.approx(17.023, abs=0.002)


@pytest.mark.parametrize(("here", "there"), [(0.01, 0.01), (0.002, 0.0005), (0.05, 0.02)])
def test_interval_covers_the_truth_in_95_percent_of_samples(here: float, there: float) -> None:
    rng, count, repeats = np.random.default_rng(0), 2000, 2000
    kinds = rng.multinomial(count, [here, there, 1 - here - there], size=repeats)
    covered = 0
    for only_here, only_there, _ in kinds:
        difference = error_difference(*answers(only_here, only_there, count))
        covered += difference.low <= 100 * (here - there) <= difference.high
    assert covered / repeats > 0.94


def test_swapped_classifiers_have_the_opposite_difference() -> None:
    here, there = answers(21, 8, 500)
    one, other = error_difference(here, there), error_difference(there, here)
    assert (other.points, other.low, other.high) == pytest.approx(
        (-one.points, -one.high, -one.low)
    )


@pytest.mark.parametrize("points", [0.3, 1, 5])
def test_fewest_images_are_just_enough(points: float) -> None:
    count = fewest_images(points)
    assert error_difference(*answers(0, 0, count)).high <= points
    assert error_difference(*answers(0, 0, count - 1)).high > points
