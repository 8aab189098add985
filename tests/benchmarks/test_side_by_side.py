"""What the benchmarks share, and the command that runs all of them."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))
side_by_side = importlib.import_module("side_by_side")

Calibration, Measurement = side_by_side.Calibration, side_by_side.Measurement
QUIET = Calibration(gflops=100.0, granted=1.0)
COMPARISON = side_by_side.Comparison("squares (peer: cubes)", ("-c", "ours"), ("-c", "peer"))


def measurement(rate: float, gflop: float = 0.0, warm_up: float = 1.0) -> Measurement:
    return Measurement(
        images_per_second=rate,
        steps=4,
        warm_up_seconds=warm_up,
        fetching=0.25,
        peak_gib=1.5,
        gflop_per_image=gflop,
    )


def pair(ours: float, peer: float, *calibrations: Calibration) -> side_by_side.Pair:
    return side_by_side.Pair(measurement(ours, gflop=0.5), measurement(peer), calibrations)


def test_a_row_has_the_ratios_of_pairs_with_their_spread_and_the_fraction_of_the_limit() -> None:
    pairs = [pair(10, 10, QUIET), pair(60, 20, QUIET), pair(100, 50, QUIET)]
    cells = side_by_side.row(COMPARISON, pairs)
    assert cells["ours, images/s"] == "60.0 (10.0 to 100.0)"
    assert cells["peer, images/s"] == "20.0 (10.0 to 50.0)"
    assert cells["ratio"] == "2.00 (1.00 to 3.00)"  # the ratio of the medians is 3
    assert cells["n"] == "3"
    assert cells["% of limit"] == "30"  # 60 images/s of 0.5 GFLOP, of 100 GFLOP/s
    assert cells["fetching"] == "0.25 / 0.25"
    assert cells["machine"] == "quiet"


def test_work_that_products_do_not_limit_has_no_limit() -> None:
    pairs = [side_by_side.Pair(measurement(10), measurement(5), (QUIET,))]
    assert side_by_side.row(COMPARISON, pairs)["% of limit"] == ""


@pytest.mark.parametrize(
    ("calibrations", "mark"),
    [
        ([QUIET, Calibration(91, 1.0)], "quiet"),
        ([QUIET, Calibration(80, 1.0), QUIET], "**drifted by 20%**"),
        ([Calibration(80, 1.0), QUIET], "**drifted by 20%**"),
        ([QUIET, Calibration(100, 0.92)], "quiet"),
        ([QUIET, Calibration(100, 0.5)], "**busy: got 50% of the processors**"),
        ([QUIET, Calibration(50, 0.5)], "**drifted by 50%, busy: got 50% of the processors**"),
    ],
)
def test_a_machine_that_drifted_or_was_busy_is_marked(
    calibrations: list[Calibration], mark: str
) -> None:
    assert side_by_side.marks(calibrations) == mark


def test_the_calibration_of_any_pair_marks_the_row() -> None:
    pairs = [pair(1, 1, QUIET, QUIET, QUIET), pair(1, 1, QUIET, Calibration(70, 1.0), QUIET)]
    assert side_by_side.row(COMPARISON, pairs)["machine"] == "**drifted by 30%**"


def test_a_table_has_a_row_for_each_comparison_and_one_that_failed_stays() -> None:
    rows = [
        side_by_side.row(COMPARISON, [pair(2, 1, QUIET)]),
        side_by_side.failed_row(COMPARISON, "ValueError: 1 | 2"),
    ]
    head, rule, first, second = side_by_side.table(rows).splitlines()
    columns = len(side_by_side.COLUMNS)
    assert [line.count("|") for line in (head, rule, first, second)] == [columns + 1] * 4
    assert first.startswith("| squares (peer: cubes) | 2.0 (2.0 to 2.0) | 1.0 (1.0 to 1.0) | 2.00")
    assert second.endswith("| **failed: ValueError: 1 / 2** |")


def test_steps_are_measured_after_the_warm_up_until_the_time_is_over() -> None:
    fetched: list[int] = []
    computed: list[int] = []

    def fetch() -> int:
        fetched.append(len(fetched))
        return fetched[-1]

    result = side_by_side.measured(fetch, computed.append, 8, seconds=0, warm_up=3)
    assert computed == fetched == [0, 1, 2, 3, 4]  # two at least are timed
    assert result.steps == 2
    assert result.images_per_second > 0
    assert result.peak_gib > 0
    longer = side_by_side.measured(fetch, computed.append, 8, seconds=0.05, warm_up=0)
    assert longer.steps / (longer.images_per_second / 8) >= 0.05


def test_the_sides_take_turns_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    rates = iter((100.0, 90.0, 80.0, 70.0, 60.0))
    monkeypatch.setattr(side_by_side, "calibrate", lambda: Calibration(next(rates), 1.0))

    def side(name: str, rate: float) -> tuple[str, str]:
        printed = json.dumps(vars(measurement(rate)))
        note = f"open({str(order)!r}, 'a').write('{name} ')"
        return "-c", f"{note}; print('other output'); print('''{printed}''')"

    comparison = side_by_side.Comparison("", side("ours", 2.0), side("peer", 1.0))
    pairs = list(side_by_side.take_turns(comparison, side_by_side.Plan(rounds=2, seconds=1)))
    assert order.read_text() == "ours peer peer ours "
    assert [(p.ours.images_per_second, p.peer.images_per_second) for p in pairs] == [(2.0, 1.0)] * 2
    assert [[c.gflops for c in p.calibrations] for p in pairs] == [[100, 90, 80], [80, 70, 60]]


def test_a_process_that_fails_is_reported_with_its_last_line() -> None:
    with pytest.raises(side_by_side.MeasurementFailed, match="ValueError: no images"):
        side_by_side.in_fresh_process(("-c", "raise ValueError('no images')"), 1)


def test_a_calibration_is_done_in_what_networks_compute_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "PRODUCT_SIZE", 64)
    monkeypatch.setattr(side_by_side, "CALIBRATION_SECONDS", 0.01)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert side_by_side.precision() == "float32"
    calibration = side_by_side.calibrate()
    assert calibration.gflops > 0
    assert calibration.granted > 0
    assert set(side_by_side.features()) <= {"avx2"}
    assert "`ONEDNN_MAX_CPU_ISA=AVX2`" in side_by_side.header(side_by_side.Plan(3, 10))


def test_the_command_lists_what_it_would_run(tmp_path: Path) -> None:
    options = ["--quick", "--dry-run", "--out", str(tmp_path / "out")]
    command = [sys.executable, str(BENCHMARKS / "all.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *titles, plan = done.stdout.splitlines()
    assert [title.split(" (")[0] for title in titles] == [
        "training resnet20 at 32x32, batch 128",
        "training resnet18 at 224x224, batch 32",
        "training resnet50 at 224x224, batch 16",
        "JPEG 500x375 to crop 224x224, one core",
        "training resnet50 at 224x224, batch 16, JPEGs of 160x120",
        "resnet50, openvino-int8, batch 16",
        "resnet50, openvino-float32, batch 1",
        "JPEG 1600x1200 to answers, resnet50, openvino-int8",
    ]
    assert plan == "3 pairs of processes each, 10 s a measurement: about 18 minutes"
    assert not (tmp_path / "out").exists()
