"""Charts: the numbers against numpy, the drawing against the numbers, and what a page needs."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from resnetkit.evaluation.metrics import Mistake, mistakes
from resnetkit.report import charts
from resnetkit.report.colors import COLORS
from resnetkit.report.confusion import confusion_chart
from resnetkit.report.drawing import spread_out, standalone_svg
from resnetkit.report.series import (
    FinalErrors,
    display_name,
    error_lines,
    event_line,
    families,
    family_name,
    final_values,
)
from resnetkit.studies.chart import Chart, Line
from resnetkit.training.run_folder import Run

WAVE = Line(
    "plain-20",
    (1, 2, 3),
    (50.0, 20.0, 10.0),
    (40.0, 15.0, 9.0),
    (60.0, 25.0, 11.0),
    end_label="plain-20",
    style="solid",
    color=0,
)
DASHED = replace(WAVE, label="training error of plain-20", end_label=None, style="dashed")
EMPTY = Line("plain-56", (), (), (), ())
ERRORS = Chart(
    "Plain networks", "epoch", "error", (DASHED, WAVE, EMPTY), top=80.0, unit="%", end_values=True
)
LOSS = Chart("Loss", "step", "Loss", (replace(WAVE, label="loss", end_label=None),), top=64.0)
NETWORKS = [FinalErrors("plain-20", 20, (1.0, 2.0)), FinalErrors("plain-56", 56, (40.0, 50.0))]
NewRun = Callable[..., Run]


def draw_everything(name: str = "chart") -> list[str]:
    """Returns one drawing of each kind."""
    return [
        charts.line_chart(ERRORS, name=f"{name}-a"),
        charts.errors_by_depth({"plain": NETWORKS}, title="Final", top=60, name=f"{name}-b"),
        charts.errors_by_network(NETWORKS, title="Final", top=60, name=f"{name}-c"),
        charts.line_chart(LOSS, name=f"{name}-d"),
        confusion_chart([[5, 1], [0, 6]], ["cat", "dog"], name=f"{name}-e"),
    ]


def test_a_line_is_mean_and_range_over_the_runs(new_run: NewRun) -> None:
    runs = [new_run("plain56", seed) for seed in range(3)]
    rows = [
        [
            event["test_error"]
            for event in map(json.loads, run.metrics_path.read_text().splitlines())
            if event["event"] == "epoch"
        ]
        for run in runs
    ]
    table = np.array(rows)
    measured = event_line(runs, "epoch", "test_error", label="test")
    assert measured.x == tuple(range(1, 13))
    np.testing.assert_allclose(measured.mean, table.mean(axis=0))
    np.testing.assert_array_equal(measured.low, table.min(axis=0))
    np.testing.assert_array_equal(measured.high, table.max(axis=0))
    assert measured.last == pytest.approx(table[:, -1].mean())


def test_epochs_without_a_measurement_are_left_out(new_run: NewRun) -> None:
    run = new_run(epochs=0, finished=False)
    same = {"step": 19, "train_loss": 1.0}
    events: list[dict[str, Any]] = [
        {"event": "epoch", "epoch": 1, **same, "train_error": 9.0},
        {
            "event": "epoch",
            "epoch": 2,
            "step": 38,
            "train_loss": 1.0,
            "train_error": 8.0,
            "test_error": 7.0,
        },
        {
            "event": "epoch",
            "epoch": 3,
            "step": 57,
            "train_loss": 1.0,
            "train_error": 5.0,
            "test_error": None,
        },
        {
            "event": "epoch",
            "epoch": 4,
            "step": 76,
            "train_loss": 1.0,
            "train_error": float("nan"),
            "test_error": float("nan"),
        },
    ]
    run.metrics_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    train, held_out = error_lines("resnet20", [run], 0)
    assert (held_out.x, held_out.mean, held_out.low, held_out.high) == ((2,), *[(7.0,)] * 3)
    assert train.x == (1, 2, 3)
    assert (train.end_label, held_out.end_label) == (None, "resnet-20")


def test_final_values_leave_out_unfinished_runs(new_run: NewRun) -> None:
    runs = [new_run("plain20", 0), new_run("plain20", 1, epochs=2, finished=False)]
    final = runs[0].final
    assert final is not None
    assert final_values(runs, "test") == (final.test.error,)
    assert final_values(runs, "validation") == ()


def test_groups_are_families_of_depths() -> None:
    assert families(["plain56", "plain20", "resnet20", "resnet56"]) == {
        "plain": {"plain20": 20, "plain56": 56},
        "resnet": {"resnet20": 20, "resnet56": 56},
    }
    assert families(["resnet20-A", "resnet20-B", "custom"]) == {}
    assert families(["plain20", "resnet20"]) == {}
    assert families([]) == {}


def test_names_for_people() -> None:
    assert [display_name(group) for group in ("plain56", "resnet110", "odd one")] == [
        "plain-56",
        "resnet-110",
        "odd one",
    ]
    assert family_name("plain") == "Plain networks"
    assert family_name("preresnet") == "preresnet networks"


@given(
    st.lists(st.floats(0, 1), max_size=6),
    st.sampled_from([0.05, 0.1, 0.15]),
)
def test_labels_are_spread_out_in_order_and_within_bounds(places: list[float], gap: float) -> None:
    moved = spread_out(places, gap=gap, low=0, high=1)
    order = sorted(range(len(places)), key=places.__getitem__)
    assert all(moved[b] - moved[a] > gap - 1e-9 for a, b in pairwise(order))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


def test_places_that_are_far_apart_stay() -> None:
    assert spread_out([0.9, 0.1, 0.5], gap=0.1, low=0, high=1) == [0.9, 0.1, 0.5]


def bold_lines(drawing: str) -> list[list[tuple[float, float]]]:
    """Returns the points of the bold lines of a drawing."""
    paths = re.findall(r'<path d="([^"]+)"[^>]*stroke-width: 2\.4', drawing)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        for path in paths
    ]


def test_the_curve_is_drawn_where_the_numbers_are() -> None:
    drawing = charts.line_chart(ERRORS, name="c")
    (points,) = bold_lines(drawing)
    left, bottom, width, height = charts.chart_area(ERRORS)
    across, down = charts.PANEL
    for (x, y), epoch, error in zip(points, WAVE.x, WAVE.mean, strict=True):
        assert x == pytest.approx(across * (left + width * (epoch - 1) / 2), abs=0.01)
        assert y == pytest.approx(down * (1 - bottom - height * error / 80), abs=0.01)


def test_a_logarithmic_axis_puts_powers_of_ten_at_equal_distances() -> None:
    decades = Line("norm", (1, 2, 3), *[(1e-4, 1e-2, 1.0)] * 3, end_label="norm", style="solid")
    chart = Chart("Gradient", "layer", "norm", (decades,), logarithmic=True)
    drawing = charts.line_chart(chart, name="c")
    ((_, first), (_, second), (_, third)) = bold_lines(drawing)[0]
    assert first - second == pytest.approx(second - third, abs=0.01)
    assert "10\u207b\u2074" in drawing


@pytest.mark.parametrize("title", ["Error", "The same in resnet-56, before and after training"])
def test_titles_end_inside_the_drawing(title: str) -> None:
    drawing = charts.line_chart(replace(ERRORS, title=title), name="c")
    match = re.search(rf'font-size: ([\d.]+)px[^>]* x="([\d.]+)"[^>]*>{title}<', drawing)
    assert match is not None
    size, x = float(match[1]), float(match[2])
    bold = FontProperties(family="DejaVu Sans", weight="bold")
    width = TextPath((0, 0), title, size=size, prop=bold).get_extents().width
    assert x + width < charts.PANEL[0]
    assert (size == 13) == (title == "Error")


def test_titles_name_networks_as_the_paper_does() -> None:
    drawing = charts.line_chart(replace(ERRORS, title="The same in resnet56, later"), name="c")
    assert drawing.count("The same in resnet-56, later") == 2  # title and description


@pytest.mark.parametrize("name", ["x", "validation", "resnext-50_32x4d"])
def test_labels_end_inside_the_drawing(name: str) -> None:
    lines = tuple(replace(WAVE, end_label=label) for label in ("training", name))
    drawing = charts.line_chart(replace(ERRORS, lines=lines), name="c")
    bold = FontProperties(family="DejaVu Sans", weight="bold")
    labels = re.findall(
        r'font-weight: 700; font-size: 12px[^>]* x="([\d.]+)"[^>]*>([^<]+)<', drawing
    )
    assert len(labels) == 2
    for x, text in labels:
        width = TextPath((0, 0), text, size=12, prop=bold).get_extents().width
        assert float(x) + width < charts.PANEL[0]


def test_descriptions_say_what_is_seen() -> None:
    curves, by_depth, by_network, line, confusion = draw_everything()
    assert "Plain networks: error against epoch:" in curves
    assert "training error of plain-20 from 50.0 % to 10.0 %, at most 60.0 %" in curves
    assert "; plain-20 from 50.0 % to 10.0 %" in curves
    assert "plain-56" not in curves  # nothing of it is measured yet
    assert "plain-20 1.5 % (n = 2); plain-56 45.0 % (n = 2)" in by_depth
    assert "plain-20 1.5 % (n = 2); plain-56 45.0 % (n = 2)" in by_network
    assert "loss from 50 to 10, at most 60" in line
    assert "11 of 12 images are on the diagonal" in confusion


def test_drawings_can_stand_in_one_page() -> None:
    drawings = draw_everything()
    assert draw_everything() == drawings
    ids = [name for drawing in drawings for name in re.findall(r' id="([^"]+)"', drawing)]
    assert len(ids) == len(set(ids))
    for drawing in drawings:
        assert drawing.startswith('<svg class="chart" role="img" aria-label="')
        ElementTree.fromstring(drawing.replace("<svg", '<svg xmlns:xlink="x"', 1))
        referred = re.findall(r"(?:href=\"#|url\(#)([^\")]+)", drawing)
        assert set(referred) <= set(ids)
        assert "<style" not in drawing
        assert not re.search(r"#[0-9a-f]{6}", drawing)
        assert "http" not in drawing


def test_a_drawing_does_not_depend_on_the_users_settings() -> None:
    expected = draw_everything()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert draw_everything() == expected


def test_a_drawing_leaves_no_trace() -> None:
    def settings() -> dict[str, Any]:
        return {key: value for key, value in matplotlib.rcParams.copy().items() if key != "backend"}

    before = settings()
    draw_everything()
    assert settings() == before


def test_the_sheet_is_a_file_of_its_own(tmp_path: Path) -> None:
    sheet = charts.line_sheet(
        [ERRORS, replace(ERRORS, title="Residual networks")], held_out="test", name="degradation"
    )
    root = ElementTree.fromstring(sheet)
    assert root.get("width") == f"{2 * charts.PANEL[0]:g}"
    assert "Plain networks" in str(root.get("aria-label"))
    assert f"fill: {COLORS['surface'][0]}" in sheet
    assert "var(" not in sheet
    assert not re.findall(r"(?:href|src)=\"(?!#)", sheet)


def test_nothing_measured_yet_is_drawn_as_that() -> None:
    lines = charts.line_chart(replace(ERRORS, lines=(EMPTY,)), name="c")
    assert "nothing measured yet." in lines
    endings = {"plain": [FinalErrors("x", 20, ())]}
    by_depth = charts.errors_by_depth(endings, title="Final", top=1, name="c")
    assert "no training is finished yet" in by_depth
    by_network = charts.errors_by_network([], title="Final", top=1, name="c")
    assert "no training is finished yet" in by_network


def test_names_are_text_and_nothing_else() -> None:
    names = ["<script>alert(1)</script>", "costs $5 & $6"]
    drawing = confusion_chart([[5, 1], [0, 6]], names, name="c")
    assert "<script" not in drawing
    assert "$" in drawing
    assert confusion_chart(
        [[1]], ["\u732b"], name="c"
    )  # no warning when the measuring font lacks it


def test_mistakes_are_counted_and_ordered() -> None:
    assert mistakes([[5, 1, 0], [0, 4, 3], [0, 0, 9]]) == [Mistake(1, 2, 3, 7), Mistake(0, 1, 1, 6)]


@pytest.mark.parametrize("classes", [1, 10, 16, 40, 100])
def test_matrices_of_all_sizes_can_be_drawn(classes: int) -> None:
    matrix = [[int(row == col) * 5 for col in range(classes)] for row in range(classes)]
    drawing = confusion_chart(matrix, [f"class {n}" for n in range(classes)], name="c")
    assert f"{5 * classes} of {5 * classes} images" in drawing


def luminance(shade: str) -> float:
    """Returns the relative luminance of WCAG 2."""
    values = [int(shade[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values
    ]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def mix(over: str, under: str, share: float) -> str:
    """Returns a half transparent color over another."""
    pairs = [(int(over[n : n + 2], 16), int(under[n : n + 2], 16)) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_reads_well_on_what_is_behind_it(scheme: int) -> None:
    shades = {role: shade[scheme] for role, shade in COLORS.items()}
    series = [role for role in shades if role.startswith("series-")]
    pairs = [(ink, behind) for ink in ("ink", "muted", "link") for behind in ("page", "surface")]
    pairs += [(role, "surface") for role in series]
    for tone in ("good", "bad", "open"):
        pairs += [(tone, f"{tone}-soft"), (tone, "surface"), ("ink", f"{tone}-soft")]
    weak = {pair: contrast(shades[pair[0]], shades[pair[1]]) for pair in pairs}
    assert {pair: value for pair, value in weak.items() if value < 4.5} == {}
    darkest = mix(shades["series-2"], shades["surface"], 0.5)  # the strongest tint of a mistake
    assert contrast(shades["ink"], darkest) >= 4.5


def test_each_light_color_stands_for_one_role() -> None:
    light = [shades[0] for shades in COLORS.values()]
    assert len(set(light)) == len(light)


def test_a_name_with_control_characters_leaves_the_drawing_readable() -> None:
    name = "a\x1b[31m\x00b\u202e\ud800<&\ufffe"

    def paint(figure: Figure) -> None:
        figure.text(0.1, 0.5, name)

    drawing = standalone_svg(paint, size=(100, 50), name="names", description=name)
    root = ElementTree.fromstring(drawing.encode())
    assert "a\\x1b[31m\\x00b\\u202e\\ud800<&\\ufffe" in "".join(root.itertext())
    assert root.get("aria-label") == "a\\x1b[31m\\x00b\\u202e\\ud800<&\\ufffe"


def test_a_label_that_is_not_text_is_escaped() -> None:
    line = replace(WAVE, end_label="\ud800")
    drawing = charts.line_chart(replace(ERRORS, lines=(line,)), name="c")
    assert "\\ud800" in drawing
