"""The report of a run, finished or not, against its events."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from resnetkit.errors import DataError, StorageError
from resnetkit.report.filters import duration, mean_and_spread, number, percent, rich
from resnetkit.report.run_report import write_run_report
from resnetkit.training.run_folder import Run

NewRun = Callable[..., Run]
OpenPage = Callable[[Path], Any]

undrawn = pytest.mark.usefixtures("_undrawn")


def test_a_finished_run_is_told_from_its_events(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run("plain32", 7)
    page = open_page(write_run_report(run))
    final = run.final
    assert final is not None
    test = final.test
    wrong = round(test.error * 3.6)
    assert "plain-32 on digits, seed 7" in page.words
    sentence = (
        f"The network misclassifies {wrong} of 360 test images: a test error of {test.error:.2f} %."
    )
    assert sentence in page.words
    start = page.cells.index("training")
    assert page.cells[start : start + 6] == [
        "training",
        f"{final.train.error:.2f} %",
        str(round(final.train.error * 14.37)),
        "1,437",
        f"{final.train.top5_error:.2f} %",
        f"{final.train.loss:.4f}",
    ]
    assert page.cells[start + 6] == "test"
    assert "at 3,000 images per second" in page.words
    assert "name: plain32" in page.text
    assert "AMD EPYC 9654" in page.words


@undrawn
def test_errors_with_flips_averaged_have_a_row_of_their_own(
    new_run: NewRun, open_page: OpenPage
) -> None:
    run = new_run()
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    del lines[-1]["train"]
    flipped = {"loss": 0.25, "error": 5.0, "top5_error": 0.0, "count": 360}
    lines[-1]["test_flipped"] = flipped
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = open_page(write_run_report(run))
    start = page.cells.index("test, with horizontal flips averaged")
    assert page.cells[start + 1 : start + 4] == ["5.00 %", "18", "360"]
    assert page.cells[start - 6] == "test"
    assert "training" not in page.cells
    assert page.words.count("The network misclassifies") == 1


def test_curves_and_their_ends_are_described(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run()
    page = open_page(write_run_report(run))
    labels = page.values("aria-label")
    last = run.epochs[-1]
    assert len(labels) == 5
    assert f"test from {run.epochs[0].test_error:.1f} %" in labels[0]
    assert f"to {last.test_error:.1f} %" in labels[0]
    assert labels[1].startswith("Loss (nats) against epoch")
    assert labels[2].startswith("Learning rate against step")
    assert labels[3].startswith("Gradient norm against step")
    assert labels[4].startswith("Confusion matrix of 10 classes")


@undrawn
def test_the_most_frequent_confusion_is_said_in_words(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run("plain56")
    page = open_page(write_run_report(run))
    final = run.final
    assert final is not None
    matrix = final.confusion
    count, true, predicted = max(
        (matrix[i][j], i, j) for i in range(10) for j in range(10) if i != j
    )
    assert (true, predicted) == (8, 1)
    assert f"8 was taken for 1 {count} of 36 images" in page.words
    wrong = 360 - sum(matrix[i][i] for i in range(10))
    assert f"{wrong} of 360 test images in total." in page.words


@undrawn
def test_classes_are_called_by_their_names(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run("plain56")
    names = [f"<b>class {n}</b> of $names$" for n in range(10)]
    facts = {"class_names": names, "image_size": [8, 8], "layers": {"in_channels": 1}}
    (run.model / "config.json").write_text(json.dumps(facts))
    page = open_page(write_run_report(run))
    assert f"{names[8]} was taken for {names[1]}" in page.words
    assert "<b>class" not in page.source


@undrawn
def test_no_mistake_is_said_too(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run()
    events = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    events[-1]["test"]["confusion"] = [[36 * (i == j) for j in range(10)] for i in range(10)]
    run.metrics_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    page = open_page(write_run_report(run))
    assert "All 360 test images are classified correctly." in page.words


@undrawn
def test_too_many_classes_are_only_listed(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run()
    events = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    many = 101
    events[-1]["test"]["confusion"] = [[int(i == j) for j in range(many)] for i in range(many)]
    events[-1]["test"]["confusion"][3][5] = 2
    run.metrics_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    (run.model / "config.json").write_text("{}")
    page = open_page(write_run_report(run))
    assert "101 classes are too many to draw." in page.words
    assert "3 was taken for 5 2 of 3 images" in page.words


@undrawn
@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_an_unfinished_run_says_so(epochs: int, new_run: NewRun, open_page: OpenPage) -> None:
    page = open_page(write_run_report(new_run(epochs=epochs, finished=False)))
    assert "Not finished yet" in page.words
    assert f"{epochs} of 12 epochs done" in page.words
    assert page.count("svg") == (4 if epochs else 0)
    assert page.count("table") == 0
    assert "nan" not in page.words


@undrawn
def test_a_run_that_diverged_says_where_and_what_to_try(
    new_run: NewRun, open_page: OpenPage
) -> None:
    run = new_run(epochs=1, finished=False)
    run.failure_path.write_text(json.dumps({"step": 1234, "lr": 0.0005, "loss": "nan"}))
    page = open_page(write_run_report(run))
    assert "This training diverged: 1 of 12 epochs done." in page.words
    assert "At step 1,234, with a learning rate of 0.0005, the loss" in page.words
    assert "try a lower optimizer.lr" in page.words
    assert "resumes" not in page.words
    assert "failure.json" in page.words


@undrawn
def test_a_run_that_was_only_prepared_has_a_report(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run(epochs=0, finished=False)
    (run.folder / "environment.json").unlink()
    page = open_page(write_run_report(run))
    assert "Nothing was measured yet." in page.words
    assert "No environment was recorded." in page.words


def test_intervals_before_the_first_epoch_are_drawn(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run(epochs=0, finished=False)
    interval = {"event": "interval", "step": 19, "epoch": 1, "lr": 0.02, "loss": 2.1}
    run.metrics_path.write_text(
        json.dumps({**interval, "error": 80.0, "gradient_norm": 1.9}) + "\n"
    )
    page = open_page(write_run_report(run))
    assert [label.split(" against")[0] for label in page.values("aria-label")] == [
        "Learning rate",
        "Gradient norm",
    ]


@undrawn
def test_an_interrupted_run_says_how_often_it_was_started(
    new_run: NewRun, open_page: OpenPage
) -> None:
    run = new_run()
    (session,) = run.sessions
    again = replace(session, from_step=95)
    starts = [asdict(session), asdict(again)]
    (run.folder / "environment.json").write_text(json.dumps(starts))
    page = open_page(write_run_report(run))
    assert "Interrupted and resumed: 2 sessions, the last from step 95." in page.words


@undrawn
def test_links_lead_to_the_files(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run()
    page = open_page(write_run_report(run))
    targets = [
        target for target in page.values("href") if target[0] != "#" and "data:" not in target
    ]
    assert targets == ["recipe.yaml", "metrics.jsonl", "timing.jsonl", "environment.json"]
    assert all((run.folder / target).is_file() for target in targets)


def test_the_same_run_gives_the_same_page(new_run: NewRun) -> None:
    run = new_run()
    first, second = (
        re.sub(r"<time .*?</time>", "", write_run_report(run).read_text()) for _ in range(2)
    )
    assert first == second


@undrawn
def test_a_folder_that_cannot_be_written_is_a_sentence(new_run: NewRun) -> None:
    run = new_run()
    (run.folder / "report.html").mkdir()
    with pytest.raises(StorageError, match="The run is untouched"):
        write_run_report(run)


def test_numbers_read_well() -> None:
    assert number(-0.5) == "\u22120.50"
    assert percent(float("nan")) == number(float("inf")) == "\u2013"
    assert mean_and_spread(()) == "\u2013"
    assert mean_and_spread((1.0, 3.0)).replace("\xa0", " ") == "2.00 \xb1 1.41 %"
    times = [duration(seconds).replace("\xa0", " ") for seconds in (5.04, 59.97, 200, 7500)]
    assert times == ["5.0 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]


def test_formulas_are_set_and_text_is_escaped() -> None:
    assert rich("a <b> plain20") == "a &lt;b&gt; plain20"
    assert rich("so F(x) = 0.") == (
        'so <math><mrow><mi>F</mi><mo stretchy="false">(</mo><mi>x</mi><mo stretchy="false">)</mo>'
        "<mo>=</mo><mn>0</mn></mrow></math>."
    )
    assert rich("y = F(x) + x").count("<mi>") == 4
    assert rich("(plain20)는", {"plain20": "p"}).endswith(
        ")\N{WORD JOINER}는"
    )  # no line break here
    assert rich("plain20s, plain20", {"plain20": "p<20"}) == (
        'plain20s, <span class="name">p&lt;20</span>'
    )


@undrawn
def test_a_loss_that_is_not_a_number_is_a_dash(new_run: NewRun, open_page: OpenPage) -> None:
    run = new_run()
    text = run.metrics_path.read_text()
    text = re.sub(r'"(test|train)_loss": [0-9.]+', r'"\1_loss": null', text)
    run.metrics_path.write_text(re.sub(r'"loss": [0-9.]+', '"loss": null', text))
    page = open_page(write_run_report(run))
    row = page.cells[page.cells.index("test") :]
    assert row[5] == "\N{EN DASH}"


@undrawn
@pytest.mark.parametrize("line", ["{}", '{"images_per_second": "fast"}'])
def test_a_line_of_timing_without_its_rate_is_named(new_run: NewRun, line: str) -> None:
    run = new_run()
    run.timing_path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"timing\.jsonl is corrupt: line 1 cannot be read"):
        write_run_report(run)
