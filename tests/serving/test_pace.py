"""The prediction of waits, compared with simulated servers."""

from pathlib import Path

import pytest

from resnetkit.serving.model import best_batch, default_name, is_name
from resnetkit.serving.pace import Pace


def test_the_slower_stage_sets_the_pace() -> None:
    pace = Pace(0.010, decode_threads=2)
    assert pace.wait_seconds(0, 0) == 0
    assert pace.wait_seconds(10, 10) == pytest.approx(0.1)
    for _ in range(100):
        pace.decoded(0.060)
    assert pace.wait_seconds(10, 10) == pytest.approx(10 * 0.060 / 2, rel=0.01)


def test_a_slower_engine_is_noticed_by_full_batches_only() -> None:
    pace = Pace(0.010, decode_threads=2)
    for _ in range(100):
        pace.computed(1, 8, 0.050)  # a single image costs more than one of a batch
    assert pace.wait_seconds(1, 1) == pytest.approx(0.010)
    for _ in range(100):
        pace.computed(8, 8, 8 * 0.020)
    assert pace.wait_seconds(1, 1) == pytest.approx(0.020, rel=0.01)


def test_a_faster_engine_is_noticed_by_any_batch() -> None:
    pace = Pace(0.010, decode_threads=2)
    for _ in range(100):
        pace.computed(1, 8, 0.004)
    assert pace.wait_seconds(1, 1) == pytest.approx(0.004, rel=0.01)


def test_images_are_decoded_once_and_computed_for_each_output() -> None:
    pace = Pace(0.010, decode_threads=2)
    assert pace.wait_seconds(10, 30) == pytest.approx(0.3)
    for _ in range(100):
        pace.decoded(0.080)
    assert pace.wait_seconds(10, 30) == pytest.approx(10 * 0.080 / 2, rel=0.01)


def test_slow_observations_are_forgotten_down_to_what_was_measured() -> None:
    pace = Pace(0.010, decode_threads=2)
    for _ in range(100):
        pace.computed(8, 8, 8 * 0.5)
        pace.decoded(0.5)
    for _ in range(100):
        pace.forget()
    assert pace.wait_seconds(1, 1) == pytest.approx(0.010, rel=0.01)
    for _ in range(100):
        pace.computed(8, 8, 8 * 0.002)
    pace.forget()
    assert pace.wait_seconds(1, 1) == pytest.approx(0.002, rel=0.01)


@pytest.mark.parametrize(
    ("fixed", "each", "expected"),
    [
        (0.0, 1.0, 1),  # batches gain nothing: the smallest
        (10.0, 1.0, 32),  # the larger the better
        (0.1, 1.0, 4),  # 4 are within 3 % of the best rate
    ],
)
def test_the_smallest_batch_that_is_nearly_best_is_chosen(
    fixed: float, each: float, expected: int
) -> None:
    batch, seconds = best_batch(lambda size: fixed + each * size, largest=32, longest_seconds=1000)
    assert (batch, seconds) == (expected, pytest.approx(fixed + each * expected))


def test_batches_that_take_too_long_are_not_used() -> None:
    sizes = []

    def seconds(size: int) -> float:
        sizes.append(size)
        return 0.1 + 0.1 * size

    assert best_batch(seconds, largest=1024, longest_seconds=1.0)[0] == 8
    assert sizes == [1, 2, 4, 8, 16]
    assert best_batch(lambda size: 60.0, largest=32, longest_seconds=1.0) == (1, 60.0)


def test_names_of_models_need_no_escape(tmp_path: Path) -> None:
    assert default_name(Path("runs/one two/model")) == "one-two"
    assert default_name(Path("runs/r\u00e9sum\u00e9")) == "r-sum"
    assert default_name(Path("resnet50.safetensors")) == "resnet50"
    (tmp_path / "flowers-1.5" / "model").mkdir(parents=True)
    assert default_name(tmp_path / "flowers-1.5") == "flowers-1.5"
    assert default_name(tmp_path / "flowers-1.5" / "model") == "flowers-1.5"
    assert all(map(is_name, ("resnet50.v2", "model", "a-b_c")))
    assert not any(map(is_name, ("", ".", "..", "a/b", "a b", "-x", "\u00e9")))
