"""The report of a study against its runs and findings."""

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from resnetkit.errors import StorageError
from resnetkit.report.language import ENGLISH
from resnetkit.report.study_report import study_page, write_study_report
from resnetkit.report.verdicts import cards
from resnetkit.studies.presets import OTHER_TASK
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.questions.shortcuts import SHORTCUTS
from resnetkit.studies.study import Finding, Outcome, Sample, Verdict
from resnetkit.training.run_folder import Run

NewOutcome = Callable[..., Outcome]
OpenPage = Callable[[Path], Any]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def read_findings(outcome: Outcome) -> dict[str, Any]:
    text = (outcome.folder / "findings.json").read_text()
    return dict(json.loads(text, parse_constant=refuse))


def runs_of(outcome: Outcome) -> list[Run]:
    return [run for runs in outcome.runs.values() for run in runs]


def as_shown(text: str) -> str:
    """Returns text with the networks named as the page names them."""
    return re.sub(r"\b(plain|resnet)(\d+)\b", r"\1-\2", text)


def final_error(run: Run, split: str) -> float:
    """Returns the final error straight from the file."""
    events = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return float(next(event for event in events if event["event"] == "final")[split]["error"])


def test_the_page_is_whole_and_holds_every_finding(outcome: Outcome, whole_page: Any) -> None:
    assert outcome.study.title in whole_page.words
    assert outcome.study.question in whole_page.words
    assert "4 of 4 claims confirmed here" in whole_page.words
    for finding in outcome.findings:
        assert as_shown(finding.claim) in whole_page.words
        assert finding.rule in whole_page.words
        assert as_shown(finding.meaning) in whole_page.words
    assert whole_page.words.count("Confirmed claim") == 4
    assert whole_page.count("math") == 4
    assert len(whole_page.values("aria-label")) == 6  # four charts and the two kinds of block


def test_the_parts_come_in_the_order_of_an_argument(whole_page: Any) -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", whole_page.source)
    assert headings == [
        "4 of 4 claims confirmed here",
        "What happens during training",
        "Where training ends",
        "The claims, one by one",
        "Why should depth hurt?",
        "All results",
        "What to try next",
        "How to check this",
    ]


def test_the_table_says_what_the_events_say(outcome: Outcome, whole_page: Any) -> None:
    start = whole_page.cells.index("Time of one training") + 1
    for place, (group, runs) in enumerate(outcome.runs.items()):
        row = whole_page.cells[start + 7 * place : start + 7 * (place + 1)]
        expected = [
            f"{statistics.mean(values):.2f} \xb1 {statistics.stdev(values):.2f} %"
            for values in ([final_error(run, split) for run in runs] for split in ("train", "test"))
        ]
        seconds = [
            sum(json.loads(line)["seconds"] for line in run.timing_path.read_text().splitlines())
            for run in runs
        ]
        # Parameters of the networks of section 4.2 with one channel of input instead of three.
        parameters = {"20": "269,434", "32": "463,866", "56": "852,730"}[group[-2:]]
        # Those of section 4.2 on an image of a sixteenth of the size and one channel.
        costs = {"20": "2.5 M", "32": "4.3 M", "56": "7.8 M"}[group[-2:]]
        cells = [as_shown(group), parameters, costs, *expected, "3"]
        assert row == [*cells, f"{statistics.mean(seconds):.1f} s"]


def test_cards_give_mean_spread_and_bound(new_outcome: NewOutcome, open_page: OpenPage) -> None:
    outcome = new_outcome()
    page = open_page(write_study_report(outcome))
    for finding, side in zip(
        outcome.findings, ["at least", "at most", "at least", "at least"], strict=True
    ):
        bound, difference = (
            f"{value:.2f}".replace("-", "\u2212") for value in (finding.bound, finding.difference)
        )
        sentence = (
            f"Difference in percentage points: {difference}; with 95% confidence {side} {bound}"
        )
        assert sentence in page.words
        for sample in (finding.first, finding.second):
            shown = f"{sample.mean:.2f} \xb1 {sample.spread:.2f} % n = 3"
            assert f"{as_shown(sample.label)} {shown}" in page.words


def test_findings_for_machines_equal_the_findings(outcome: Outcome, whole_page: Any) -> None:
    facts = read_findings(outcome)
    assert (facts["study"], facts["scale"], facts["changes"]) == ("degradation", "quick", {})
    for values, finding in zip(facts["findings"], outcome.findings, strict=True):
        assert values["claim"] == finding.claim
        assert values["verdict"] == finding.verdict
        assert values["rule"] == finding.rule
        assert values["difference"] == pytest.approx(finding.difference)
        assert values["bound"] == pytest.approx(finding.bound)
        for key, sample in (("first", finding.first), ("second", finding.second)):
            assert values[key]["label"] == sample.label
            assert values[key]["values"] == list(sample.values)
            assert values[key]["mean"] == pytest.approx(sample.mean)
            assert values[key]["spread"] == pytest.approx(sample.spread)
            assert values[key]["n"] == len(sample.values)
    runs = runs_of(outcome)
    assert [training["recipe_sha256"] for training in facts["trainings"]] == [
        r.recipe.digest for r in runs
    ]
    assert {training["environment"] for training in facts["trainings"]} == {0}
    (environment,) = facts["environments"]
    assert environment["versions"]["torch"] == "2.15.0"
    assert environment["hardware"]["device"] == "cpu"
    for training, run in zip(facts["trainings"], runs, strict=True):
        assert (outcome.folder / training["folder"]).samefile(run.folder)


def test_a_mixed_cluster_is_noted(new_outcome: NewOutcome, open_page: OpenPage) -> None:
    outcome = new_outcome(seeds=1)
    sentence = "The trainings ran on different processors"
    assert sentence not in open_page(write_study_report(outcome)).words
    assert read_findings(outcome)["processors"] == ["AMD EPYC 9654 96-Core Processor"]
    (run, *_), *_ = outcome.runs.values()
    sessions = json.loads((run.folder / "environment.json").read_text())
    sessions[0]["hardware"]["processor"] = "Another Processor"
    (run.folder / "environment.json").write_text(json.dumps(sessions))
    words = open_page(write_study_report(outcome)).words
    both = "(Another Processor, AMD EPYC 9654 96-Core Processor)"
    assert f"{sentence} {both}. Runs of the same recipe are equal to the byte on" in words
    assert "For 1 of the trainings:" in words
    facts = read_findings(outcome)
    assert facts["processors"] == ["Another Processor", "AMD EPYC 9654 96-Core Processor"]
    numbers = [training["environment"] for training in facts["trainings"]]
    kinds = [facts["environments"][number]["hardware"]["processor"] for number in numbers]
    assert kinds == [
        facts["processors"][0],
        *[facts["processors"][1]] * (len(runs_of(outcome)) - 1),
    ]


def test_one_seed_is_not_enough_and_says_so(new_outcome: NewOutcome, open_page: OpenPage) -> None:
    outcome = new_outcome(seeds=1)
    page = open_page(write_study_report(outcome))
    assert "0 of 4 claims confirmed here, 4 without enough data" in page.words
    assert page.words.count("Not enough data claim") == 4
    assert "nan" not in page.words
    assert "% n = 1" in page.words
    for values in read_findings(outcome)["findings"]:
        assert values["bound"] is None
        assert values["first"]["spread"] is None
        assert values["first"]["n"] == 1


def test_a_claim_that_fails_is_shown_as_failed(
    new_outcome: NewOutcome, open_page: OpenPage
) -> None:
    outcome = new_outcome()
    failed = replace(outcome.findings[1], verdict="not confirmed", bound=2.5)
    outcome = replace(outcome, findings=(outcome.findings[0], failed))
    page = open_page(write_study_report(outcome))
    assert "1 of 2 claims confirmed here, 1 not confirmed" in page.words
    assert "Not confirmed claim 2 of 2" in page.words


def test_each_verdict_differs_in_more_than_color(
    new_outcome: NewOutcome, open_page: OpenPage
) -> None:
    outcome = new_outcome(groups=("plain20", "plain56", "resnet20", "resnet56"))
    verdicts: list[Verdict] = ["confirmed", "not confirmed", "not enough data"]
    findings = tuple(replace(outcome.findings[0], verdict=verdict) for verdict in verdicts)
    page = open_page(write_study_report(replace(outcome, findings=findings)))
    badges = re.findall(r'<span class="badge \w+">(<svg.*?</svg>) ([\w ]+)</span>', page.source)
    assert [name for _, name in badges] == [verdict.capitalize() for verdict in verdicts]
    assert len({re.sub(r' class="[^"]*"', "", symbol) for symbol, _ in badges}) == 3
    assert all(symbol.count("<path") == 1 for symbol, _ in badges)


def test_a_sample_without_values_does_not_stop_the_report(
    new_outcome: NewOutcome, open_page: OpenPage
) -> None:
    outcome = new_outcome(seeds=1)
    empty = Sample("test error of nothing", ())
    bound = float("nan")
    finding = Finding("Nothing is known.", empty, empty, bound, "A rule.", "not enough data", "")
    page = open_page(write_study_report(replace(outcome, findings=(finding,))))
    assert "Difference in percentage points: \u2013" in page.words
    (values,) = read_findings(outcome)["findings"]
    assert values["difference"] is values["first"]["mean"] is None


def test_numbers_of_other_images_are_never_called_the_same(tmp_path: Path) -> None:
    """The published errors of the study of shortcuts are for ImageNet, whatever its scale."""
    for scale in SHORTCUTS.scales:
        page = study_page(Outcome(SHORTCUTS, scale, {}, tmp_path, {}, ()), ENGLISH)
        assert page.comparability == OTHER_TASK
    page = study_page(Outcome(DEGRADATION, "paper", {}, tmp_path, {}, ()), ENGLISH)
    assert page.comparability.startswith("Images and recipe are the same")


def test_what_to_try_next_leaves_this_report_alone_and_keeps_the_network(
    new_outcome: NewOutcome, open_page: OpenPage
) -> None:
    outcome = new_outcome()
    run = outcome.runs["resnet56"][-1]
    options = {"shortcut": "C"}
    model = run.recipe.model.model_copy(update={"options": options})
    recipe = run.recipe.model_copy(update={"model": model})
    changed = replace(outcome, runs={"resnet56": [replace(run, recipe=recipe)]})
    steps = study_page(changed, ENGLISH).next_steps
    commands = [step.command for step in steps]
    root = outcome.folder.parent
    for command in commands:
        if command.startswith("resnet study"):
            same = f"--scale {outcome.scale} " in command
            assert command.endswith(f"--out {root}-longer" if same else f"--out {root}")
    assert commands[-1] == "resnet inspect resnet56 --set shortcut=C"


def test_a_bar_below_zero_is_not_drawn() -> None:
    """A slope of -0.065 below a limit of 0.05 must not look like the larger of the two."""
    low, high = Sample("slope", (-0.065,) * 3, ""), Sample("limit", (0.05,) * 3, "")
    finding = Finding("claim", low, high, -0.1, "rule", "confirmed", "meaning")
    (card,) = cards([finding])
    assert [bar.percent for bar in card.bars] == [0.0, 100.0]


def test_a_study_without_runs_has_a_page(tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(write_study_report(Outcome(DEGRADATION, "quick", {}, tmp_path, {}, ())))
    assert "0 of 0 claims confirmed here" in page.words


def test_text_comes_through_as_text(new_outcome: NewOutcome, open_page: OpenPage) -> None:
    outcome = new_outcome(seeds=1)
    evil = "<script>alert('x')</script>"
    runs = {**outcome.runs, f"{evil}$": outcome.runs["plain20"]}
    finding = replace(outcome.findings[0], claim=f"{evil} & more", meaning=f"F(x) {evil}")
    study = replace(outcome.study, title=evil, question=evil, theory=(evil,))
    page = open_page(
        write_study_report(
            replace(outcome, runs=runs, study=study, findings=(finding,), changes={"seed": evil})
        )
    )
    assert "<script" not in page.source
    assert f"{evil} & more" in page.words
    assert page.words.count(evil) >= 8
    assert "&lt;script" not in page.words


def test_changes_of_the_recipe_are_named(new_outcome: NewOutcome, open_page: OpenPage) -> None:
    outcome = replace(new_outcome(seeds=1), changes={"length": "24 epochs"})
    page = open_page(write_study_report(outcome))
    assert "length changed to 24 epochs" in page.words
    assert read_findings(outcome)["changes"] == {"length": "24 epochs"}


def test_only_what_differs_between_trainings_is_named(whole_page: Any) -> None:
    assert "They differ only in: model.name, seed" in whole_page.words
    assert "train_on: train+validation" in whole_page.text
    assert "AMD EPYC 9654" in whole_page.words


def test_links_lead_to_the_measurements(outcome: Outcome, whole_page: Any) -> None:
    targets = [target for target in whole_page.values("href") if target.endswith(".jsonl")]
    assert len(targets) == 18
    assert all((outcome.folder / target).is_file() for target in targets)


def test_the_main_chart_is_also_a_file(outcome: Outcome, whole_page: Any) -> None:
    root = ElementTree.parse(outcome.folder / "degradation.svg").getroot()
    last = [final for final in root.iter() if (final.text or "").startswith("plain-56")]
    assert len(last) == 1
    assert "Residual networks: error against epoch:" in str(root.get("aria-label"))


def test_networks_of_one_depth_are_drawn_by_name(
    new_outcome: NewOutcome, open_page: OpenPage
) -> None:
    page = open_page(write_study_report(new_outcome(groups=("plain56", "resnet56"))))
    assert "All networks" in page.words
    assert "depth in layers" not in page.words


def test_the_same_runs_give_the_same_files(new_outcome: NewOutcome) -> None:
    outcome = new_outcome()

    def contents() -> dict[str, str]:
        write_study_report(outcome)
        files = sorted(path for path in outcome.folder.iterdir() if path.is_file())
        return {
            path.name: re.sub(r"<time .*?</time>", "", path.read_text(encoding="utf-8"))
            for path in files
        }

    first = contents()
    assert set(first) == {"degradation.svg", "findings.json", "report.html"}
    assert contents() == first


def test_a_folder_that_cannot_be_written_is_a_sentence(new_outcome: NewOutcome) -> None:
    outcome = new_outcome(seeds=1)
    (outcome.folder / "report.html").mkdir()
    with pytest.raises(StorageError, match="The runs are untouched"):
        write_study_report(outcome)


def test_sentences_are_separated_by_a_space(whole_page: Any) -> None:
    assert "The axes are the same. The training error" in whole_page.words
    assert not re.search(r"[a-z]\.[A-Z]", whole_page.words)


def test_the_tables_have_the_whole_width_of_the_page(whole_page: Any) -> None:
    columns = re.findall(r"\.tables \{[^}]*grid-template-columns: ([^;]*);", whole_page.source)
    assert columns == ["minmax(0, 1fr)"]  # next to another table, the results would be cut off
