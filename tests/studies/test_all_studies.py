"""Every study: its claims hold on runs that say so, and each falls alone when its numbers do."""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from resnetkit.errors import UsageError
from resnetkit.studies.chart import line
from resnetkit.studies.phrase import Phrase
from resnetkit.studies.questions.gradients import GRADIENTS
from resnetkit.studies.statistics import by_depth, error_sample, limit, measured_sample
from resnetkit.studies.study import UNSURE, Sample, Study, Trial
from resnetkit.studies.table import STUDIES
from resnetkit.training.run_folder import Run

WrittenRun = Callable[..., Run]
Numbers = dict[str, dict[str, Any]]  # by group: train, test, or lists by measurement and key
NewRuns = Callable[[Study, Numbers], dict[str, list[Run]]]

TRAINED = {"train": 5.0, "test": 8.0}


@cache
def quick_trials(name: str) -> list[Trial]:
    return STUDIES[name].trials("quick")


@pytest.fixture
def new_runs(written_run: WrittenRun, tmp_path: Path) -> NewRuns:
    """Makes three finished runs of every group at the quick scale; seeds differ by a little."""

    def build(study: Study, numbers: Numbers) -> dict[str, list[Run]]:
        runs: dict[str, list[Run]] = {}
        for trial in quick_trials(study.name):
            seed = trial.recipe.seed
            own = {**TRAINED, **numbers.get(trial.group, {})}
            folder = tmp_path / f"{trial.recipe.digest[:12]}"
            errors = {split: own[split] + seed / 100 for split in ("train", "test")}
            run = written_run(folder, trial.recipe, **errors)
            for name in study.measurements:
                run.probe_path(name).parent.mkdir(exist_ok=True)
                values = {
                    key: [value * (1 + seed / 1000) for value in numbers]
                    for key, numbers in own[name].items()
                }
                run.probe_path(name).write_text(json.dumps(values))
            runs.setdefault(trial.group, []).append(run)
        return runs

    return build


def slopes(value: float) -> dict[str, Any]:
    gradients = {"slope": [value], "input": [1.0, 2.0], "weight": [1.0]}
    return {"gradients": {**gradients, "steps": [0.0, 5.0], "slope along": [value, 0.0]}}


def response(value: float) -> dict[str, Any]:
    return {"responses": {"mean": [value], "deviation": [value + 0.1, value - 0.1]}}


def residual(ratio: float, totals: list[float], before: float = 1.0) -> dict[str, Any]:
    residuals = {"before": [before, before], "after": [ratio, ratio], "mean": [ratio]}
    residuals |= {"steps": [5.0, 10.0], "mean along": [1.0, ratio], "change": [ratio]}
    blocks = [float(length) for length in range(len(totals))]
    return {
        "residuals": residuals,
        "paths": {"blocks": blocks, "gradient": totals, "total": totals},
    }


def lesion(one: float, swapped: float) -> dict[str, Any]:
    harmed = {"whole": [5.0], "one": [one, one], "swapped": [swapped]}
    return {"lesions": {**harmed, "without 2": [one], "without 3": [one]}}


def gradient_numbers() -> Numbers:
    numbers = {group: slopes(0.0) for group in GRADIENTS.scales["quick"].groups}
    numbers["plain56 without BN, deviation 0.01"] |= {**slopes(1.0), "train": 89.0}
    numbers["plain56 without BN, Xavier"] |= slopes(0.2)
    numbers["plain56 without BN, He"] |= slopes(0.05)
    numbers["plain56 with BN, He"] |= {**slopes(-0.05), "train": 70.0}
    numbers["plain20 with BN, He"] |= {"train": 4.0}
    return numbers


MEMORY = {"memory": {"mebibytes": [10.0]}}


def kept_memory() -> Numbers:
    return {group: dict(MEMORY) for group in STUDIES["depth"].scales["quick"].groups}


SHORT, LONG = [10.0, 50.0, 30.0, 2.0, 1.0], [1.0, 2.0, 30.0, 50.0, 60.0]

# The numbers on which every claim holds, and for each claim what makes it fall alone.
CASES: dict[str, tuple[Numbers, list[Numbers]]] = {
    "gradients": (
        gradient_numbers(),
        [
            {"plain56 without BN, deviation 0.01": {**slopes(0.06), "train": 89.0}},
            {"plain56 without BN, Xavier": slopes(0.06)},
            {"plain56 with BN, He": {**slopes(0.3), "train": 70.0}},
            {"plain56 with BN, He": {**slopes(-0.05), "train": 4.0}},
            {"plain56 without BN, deviation 0.01": {**slopes(1.0), "train": 50.0}},
        ],
    ),
    "responses": (
        {
            "plain20": response(1.0),
            "plain56": response(0.9),
            "resnet20": response(0.5),
            "resnet56": response(0.3),
        },
        [{"plain56": response(0.3)}, {"resnet20": response(0.3)}],
    ),
    "residuals": (
        {
            "resnet20": residual(0.8, SHORT),
            "resnet32": residual(0.6, SHORT),
            "resnet56": residual(0.4, SHORT),
        },
        [
            {"resnet20": residual(0.4, SHORT)},
            {"resnet56": residual(0.4, SHORT, before=0.41)},
            {"resnet20": residual(3.0, SHORT), "resnet56": residual(1.2, SHORT, before=2.0)},
            {"resnet56": residual(0.4, LONG)},
        ],
    ),
    "shortcuts": (
        {"plain32": {"train": 20.0}},
        [
            {"plain32": {"train": 5.5}},
            {"resnet32": {"test": 8.0}, "resnet32-C": {"test": 5.0}},
            {"resnet32": {"test": 8.0}, "resnet32-B": {"test": 5.0}},
        ],
    ),
    "depth": (
        {**kept_memory(), "resnet110": {"test": 6.0, **MEMORY}},
        [
            {"resnet110": {"test": 6.0, "train": 9.0, **MEMORY}},
            {"resnet110": {"test": 8.0, **MEMORY}},
        ],
    ),
    "lesion": (
        {"plain20": lesion(80.0, 70.0), "resnet20": lesion(10.0, 9.0)},
        [{"resnet20": lesion(75.0, 9.0)}, {"resnet20": lesion(10.0, 65.0)}],
    ),
    "initialization": (
        {"plain20 without BN, Xavier": {"train": 60.0}, "plain20 without BN": {"train": 30.0}},
        [{"plain20 without BN, Xavier": {"train": 30.0}}, {"plain20 Xavier": {"train": 9.0}}],
    ),
    "bottleneck": (
        {"plain83_bottleneck": {"train": 60.0}},
        [{"resnet83_bottleneck": {"test": 12.0}}, {"plain83_bottleneck": {"train": 5.0}}],
    ),
}


def verdicts(study: Study, runs: dict[str, list[Run]]) -> list[str]:
    return [finding.verdict for finding in study.findings(runs)]


def test_every_study_has_its_cases() -> None:
    assert set(CASES) == set(STUDIES) - {"degradation"}  # which has a file of its own


@pytest.mark.parametrize("name", CASES)
def test_numbers_that_say_so_confirm_every_claim(name: str, new_runs: NewRuns) -> None:
    study = STUDIES[name]
    reached = verdicts(study, new_runs(study, CASES[name][0]))
    assert reached == ["confirmed"] * len(CASES[name][1])


@pytest.mark.parametrize(
    ("name", "claim"),
    [(name, claim) for name, (_, faults) in CASES.items() for claim in range(len(faults))],
)
def test_each_claim_falls_alone(name: str, claim: int, new_runs: NewRuns) -> None:
    study, (numbers, faults) = STUDIES[name], CASES[name]
    reached = verdicts(study, new_runs(study, {**numbers, **faults[claim]}))
    expected = ["confirmed"] * len(faults)
    expected[claim] = "not confirmed"
    assert reached == expected


@pytest.mark.parametrize("name", CASES)
def test_charts_are_drawn_of_every_group_measured(name: str, new_runs: NewRuns) -> None:
    study = STUDIES[name]
    charts = study.charts(new_runs(study, CASES[name][0]))
    assert bool(charts) == bool(study.measurements)
    for chart in charts:
        assert chart.lines
        for drawn in chart.lines:
            assert len(drawn.x) == len(drawn.mean) == len(drawn.low) == len(drawn.high) > 0
            assert all(
                low <= mean <= high
                for low, mean, high in zip(drawn.low, drawn.mean, drawn.high, strict=True)
            )


@pytest.mark.parametrize("name", CASES)
def test_everything_that_a_study_says_can_be_translated(name: str, new_runs: NewRuns) -> None:
    study = STUDIES[name]
    runs = new_runs(study, CASES[name][0])
    texts = {study.title, study.question, study.theory_title, *study.theory}
    for finding in study.findings(runs):
        texts |= {finding.claim, finding.meaning, finding.rule}
        texts |= {finding.first.label, finding.second.label}
    for chart in study.charts(runs):
        texts |= {chart.title, chart.x, chart.y, *(line.label for line in chart.lines)}
    plain = {text for text in texts if not isinstance(text, Phrase)}
    names = {*runs, *(f"{network}{depth}" for network in ("plain", "resnet") for depth in (20, 56))}
    assert plain <= names | {"resnet", "Xavier", "He", "|y - x| / |x|"}


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_a_study_explains_itself(study: Study) -> None:
    assert list(study.scales) == ["quick", "short", "paper"]
    assert any("F(x)" in paragraph or study.name == "initialization" for paragraph in study.theory)
    for scale in study.scales.values():
        assert scale.cost
        assert scale.comparability


def test_studies_share_their_trainings() -> None:
    def digests(name: str) -> set[str]:
        return {trial.recipe.digest for trial in STUDIES[name].trials("quick")}

    whole = digests("degradation")
    assert digests("responses") <= whole
    assert digests("residuals") <= whole
    assert digests("lesion") <= whole
    for name in ("gradients", "shortcuts", "depth", "initialization", "bottleneck"):
        assert digests(name) & whole, name


@pytest.mark.parametrize("name", ["depth", "residuals", "responses"])
def test_a_hundred_layers_are_warmed_up_as_in_the_paper(name: str) -> None:
    """Section 4.2: a rate of 0.01 until the training error is below 80 %, for n = 18."""
    for trial in STUDIES[name].trials("paper"):
        values = trial.recipe.warmup.model_dump()
        if trial.group in ("resnet110", "resnet1202"):
            assert values == {"kind": "until-error", "lr": 0.01, "below": 80.0}
        else:
            assert values["kind"] == "none"


# Samples and lines


def test_a_training_that_diverged_counts_as_guessing(
    written_run: WrittenRun, new_runs: NewRuns
) -> None:
    runs = new_runs(STUDIES["initialization"], {})
    lost = runs["plain20"][0]
    (lost.folder / "metrics.jsonl").write_text("")
    (lost.folder / "failure.json").write_text("{}")
    assert error_sample(runs, "plain20", "train").values == (90.0, 5.01, 5.02)


def test_an_unfinished_training_counts_for_nothing(new_runs: NewRuns) -> None:
    runs = new_runs(STUDIES["initialization"], {})
    (runs["plain20"][0].folder / "metrics.jsonl").write_text("")
    assert error_sample(runs, "plain20", "train").values == (5.01, 5.02)


def test_a_limit_is_as_many_values_as_it_is_compared_with() -> None:
    sample = Sample("slope", (1.0, 2.0), "")
    assert limit("the limit", 0.5, sample) == Sample("the limit", (0.5, 0.5), "")


def test_measured_lists_become_one_number_a_training(new_runs: NewRuns) -> None:
    runs = new_runs(STUDIES["lesion"], CASES["lesion"][0])
    sample = measured_sample(runs, "plain20", "lesions", "one", "error of plain20")
    assert sample.values == pytest.approx((80.0, 80.08, 80.16))
    assert (sample.label, sample.unit) == ("error of plain20", "")


def test_depths_are_numbers_and_families_are_whole_words() -> None:
    runs: dict[str, list[Run]] = {
        name: [] for name in ("resnet110", "resnet20", "plain20", "resnet32-B")
    }
    assert by_depth(runs, "resnet") == ["resnet20", "resnet110"]


def test_a_line_is_the_mean_and_range_of_what_is_finite() -> None:
    a = line("a", [[1.0, 2.0, math.nan], [3.0, math.inf, math.nan]], [0, 5, 7])
    assert (a.x, a.mean, a.low, a.high) == (
        (0, 5),
        (2.0, 2.0),
        (1.0, 2.0),
        (3.0, 2.0),
    )


# What must not be judged


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gradients", "model.options.norm"),
        ("gradients", "length"),
        ("shortcuts", "model.options.shortcut"),
        ("initialization", "model.options.norm"),
        ("degradation", "model"),
        ("residuals", "model.name"),
    ],
)
def test_what_a_study_varies_cannot_be_set_in_any_spelling(name: str, key: str) -> None:
    with pytest.raises(UsageError, match=f"a study varies {key} itself"):
        STUDIES[name].trials("quick", {key: "none"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_not_enough(value: float, new_runs: NewRuns) -> None:
    numbers = {**gradient_numbers(), "plain56 without BN, He": slopes(value)}
    reached = verdicts(GRADIENTS, new_runs(GRADIENTS, numbers))
    assert reached[:2] == ["not enough data"] * 2
    assert reached[2] == "confirmed"


def test_means_that_agree_without_being_sure_are_called_so(new_runs: NewRuns) -> None:
    study = STUDIES["lesion"]
    runs = new_runs(study, CASES["lesion"][0])
    for run, error in zip(runs["plain20"], (90.0, 85.0, 12.0), strict=True):
        path = run.probe_path("lesions")
        path.write_text(json.dumps({**json.loads(path.read_text()), "one": [error]}))
    first = study.findings(runs)[0]
    assert first.verdict == "not confirmed"
    assert first.meaning == UNSURE
