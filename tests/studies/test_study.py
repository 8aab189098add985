"""The rules by which claims are judged, against Welch's formula; and the trials of a study."""

import math
import random
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from scipy import stats

from resnetkit.errors import RecipeError, UsageError
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.studies import statistics as study_statistics
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, judge_not_higher
from resnetkit.studies.table import STUDIES
from resnetkit.training.run_folder import flat

Values = tuple[float, ...]
WORDS = {"confirmed": "it holds", "not_confirmed": "it does not"}


def higher(first: Values, second: Values, margin: float = 1.0) -> Finding:
    return judge_higher("claim", Sample("a", first), Sample("b", second), margin=margin, **WORDS)


def not_higher(first: Values, second: Values, margin: float = 1.0) -> Finding:
    return judge_not_higher(
        "claim", Sample("a", first), Sample("b", second), margin=margin, **WORDS
    )


def welch_half_width(first: Values, second: Values) -> float:
    """Returns the reach of the one-sided 95 % interval: Welch 1947, degrees of freedom as there."""
    a, b = (statistics.variance(values) / len(values) for values in (first, second))
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return float(stats.t.ppf(0.95, freedom)) * math.sqrt(a + b)


def drawn(dice: random.Random, mean: float = 50.0) -> Values:
    return tuple(dice.gauss(mean, dice.choice([0.1, 1, 10])) for _ in range(dice.randint(3, 6)))


@pytest.mark.parametrize("seed", range(12))
def test_the_bounds_are_those_of_welch(seed: int) -> None:
    dice = random.Random(seed)
    first, second = drawn(dice), drawn(dice, 52)
    difference = statistics.fmean(first) - statistics.fmean(second)
    reach = welch_half_width(first, second)
    assert higher(first, second).bound == pytest.approx(difference - reach)
    assert not_higher(first, second).bound == pytest.approx(difference + reach)
    assert higher(first, second).difference == pytest.approx(difference)


def test_the_bound_of_equal_variances_is_in_every_table_of_student() -> None:
    """With 3 and 3 values of one variance there are 4 degrees of freedom: t is 2.132."""
    finding = higher((11.0, 12.0, 13.0), (1.0, 2.0, 3.0))
    assert finding.bound == pytest.approx(10 - 2.132 * math.sqrt(2 / 3), abs=1e-3)


def test_equal_means_are_rarely_called_higher() -> None:
    """One in twenty is what 95 % confidence allows; with 5 seeds Welch's rule keeps to it."""
    dice, draws, called = random.Random(0), 500, 0
    for _ in range(draws):
        first, second = (tuple(dice.gauss(0, 1) for _ in range(5)) for _ in range(2))
        called += higher(first, second, margin=0).verdict == "confirmed"
    assert 0.02 < called / draws < 0.08


@pytest.mark.parametrize("judge", [higher, not_higher])
def test_the_margin_decides_on_both_sides(judge: Callable[..., Finding]) -> None:
    first, second = (11.0, 12.0, 14.0), (1.0, 2.0, 2.5)
    bound = judge(first, second).bound
    below, above = ("confirmed", "not confirmed")[:: 1 if judge is higher else -1]
    assert judge(first, second, bound - 1e-6).verdict == below
    assert judge(first, second, bound + 1e-6).verdict == above


def test_a_difference_as_large_as_the_margin_confirms_neither_claim() -> None:
    samples = (11.0,) * 3, (10.0,) * 3
    assert higher(*samples).verdict == not_higher(*samples).verdict == "not confirmed"


def test_the_claims_exclude_each_other() -> None:
    dice = random.Random(1)
    for _ in range(50):
        first, second = drawn(dice), drawn(dice, dice.uniform(40, 60))
        verdicts = [judge(first, second).verdict for judge in (higher, not_higher)]
        assert verdicts.count("confirmed") <= 1


@pytest.mark.parametrize("judge", [judge_higher, judge_not_higher])
def test_networks_that_learned_nothing_confirm_nothing(judge: Callable[..., Finding]) -> None:
    """Ten classes are guessed with an error of 90 %."""

    def judged(first: Values, second: Values, chance: float) -> Finding:
        samples = Sample("a", first, chance=chance), Sample("b", second, chance=chance)
        return judge("claim", *samples, margin=1.0, **WORDS)

    near, nearer, far = (86.0, 86.1, 86.2), (89.8, 89.9, 90.1), (20.0, 21.0, 22.0)
    first, second = (nearer, near) if judge is judge_higher else (near, nearer)
    finding = judged(first, second, 90.0)
    assert finding.verdict == "not enough data"
    assert "learned anything" in finding.meaning
    against = judged(second, first, 90.0)
    assert (against.verdict, against.meaning) == ("not confirmed", finding.meaning)
    assert judged(first, second, math.nan).verdict == "confirmed"  # no error, such as a slope
    for one, other in ((far, near), (near, far)):
        assert "learned anything" not in judged(one, other, 90.0).meaning


def test_without_any_spread_the_bound_is_the_difference() -> None:
    samples = (0.1,) * 3, (0.3,) * 4
    assert higher(*samples).bound == not_higher(*samples).bound == pytest.approx(-0.2)
    assert (higher(*samples).verdict, not_higher(*samples).verdict) == (
        "not confirmed",
        "confirmed",
    )


@pytest.mark.parametrize(
    "constant",
    [
        0.0,
        5.0,
        89.83320095313742,
    ],
)
def test_one_sample_may_be_without_spread(constant: float) -> None:
    """Every seed of a good network ends at 0 % training error: nothing is odd about that."""
    varied, same = (70.0, 71.0, 73.0), (constant,) * 3
    difference = statistics.fmean(varied) - constant
    # Welch's degrees of freedom are then those of the varied sample alone: t of 2 is 2.920.
    reach = 2.920 * statistics.stdev(varied) / math.sqrt(3)
    assert higher(varied, same).bound == pytest.approx(difference - reach, abs=2e-3)
    assert not_higher(same, varied).bound == pytest.approx(reach - difference, abs=2e-3)


@pytest.mark.parametrize(("here", "there"), [(0, 0), (0, 3), (1, 5), (2, 3), (3, 2)])
@pytest.mark.parametrize("judge", [higher, not_higher])
def test_fewer_than_three_seeds_are_not_enough(
    judge: Callable[..., Finding], here: int, there: int
) -> None:
    finding = judge((90.0, 91.0, 92.0)[:here], (1.0, 2.0, 3.0, 4.0, 5.0)[:there])
    assert finding.verdict == "not enough data"
    assert math.isnan(finding.bound)
    assert "more seeds" in finding.meaning


def test_a_sample_knows_mean_and_spread_as_far_as_there_are_any() -> None:
    assert (Sample("a", (1.0, 3.0)).mean, Sample("a", (1.0, 3.0)).spread) == (2.0, math.sqrt(2))
    assert Sample("a", (1.0,)).mean == 1.0
    assert math.isnan(Sample("a", (1.0,)).spread)
    assert math.isnan(Sample("a", ()).mean)
    assert math.isnan(Sample("a", ()).spread)


def test_the_meaning_is_that_of_the_verdict() -> None:
    low, high = (1.0, 1.1, 1.2), (9.0, 9.1, 9.2)
    assert higher(high, low).meaning == not_higher(low, high).meaning == "it holds"
    assert higher(low, high).meaning == not_higher(high, low).meaning == "it does not"


@pytest.mark.parametrize(("judge", "side"), [(higher, "above"), (not_higher, "below")])
def test_the_rule_says_what_is_done(judge: Callable[..., Finding], side: str) -> None:
    rule = judge((1.0,) * 3, (2.0,) * 3, 2.5).rule
    for words in ("95%", "one-sided Welch", f"{side} 2.5 percentage points", "fewer than 3 seeds"):
        assert words in rule


def test_trials_are_every_group_with_every_seed(new_study: Callable[..., Study]) -> None:
    trials = new_study(groups=("plain20", "resnet56")).trials("tiny")
    assert [(trial.group, trial.recipe.seed) for trial in trials] == [
        *(("plain20", seed) for seed in range(3)),
        *(("resnet56", seed) for seed in range(3)),
    ]
    assert all(trial.recipe.model.name == trial.group for trial in trials)
    assert all(str(trial.recipe.length) == "4 steps" for trial in trials)
    assert len({trial.recipe.digest for trial in trials}) == 6


def test_trials_differ_in_network_and_seed_alone(new_study: Callable[..., Study]) -> None:
    recipes = [flat(t.recipe.model_dump(mode="json")) for t in new_study().trials("tiny")]
    for one, other in pairwise(recipes):
        assert {key for key in one if one[key] != other[key]} <= {"model.name", "seed"}


def test_changes_reach_every_trial(new_study: Callable[..., Study]) -> None:
    changes = {"optimizer.lr": 0.5, "model.options.shortcut": "none"}
    trials = new_study().trials("tiny", changes)
    assert {trial.recipe.optimizer.lr for trial in trials} == {0.5}
    assert {trial.recipe.model.options["shortcut"] for trial in trials} == {"none"}
    before = {trial.recipe.digest for trial in new_study().trials("tiny")}
    assert before.isdisjoint(trial.recipe.digest for trial in trials)


def test_an_unknown_change_is_refused(new_study: Callable[..., Study]) -> None:
    with pytest.raises(RecipeError, match=r"Did you mean 'optimizer\.lr'\?"):
        new_study().trials("tiny", {"optimizer.rl": 1})


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_every_study_of_the_table_can_be_run(study: Study) -> None:
    assert STUDIES[study.name] is study
    assert study.question.endswith("?")
    assert study.title
    assert study.source
    assert study.theory
    assert {figure.group.split("-")[0] for figure in study.paper_figures} <= set(ARCHITECTURES)
    for name, scale in study.scales.items():
        trials = study.trials(name)
        assert {trial.group for trial in trials} == set(scale.groups)
        assert len({trial.recipe.digest for trial in trials}) == scale.trainings
        assert scale.trained_once <= set(scale.groups)
        assert scale.seeds >= 3  # with fewer, no claim could be judged


def test_a_line_along_training_leaves_out_seeds_that_diverged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values: dict[str, Any] = {
        "first": {"steps": [], "slope": []},
        "second": {"steps": [0.0, 5.0], "slope": [1.0, 3.0]},
        "third": {"steps": [0.0, 5.0], "slope": [3.0, 5.0]},
    }
    monkeypatch.setattr(study_statistics, "measured", lambda run, _: values[run])
    runs: Any = {"some": ["first", "second", "third"], "none": ["first"]}
    line = study_statistics.line_along(runs, "some", "gradients", "slope", label="some")
    assert line == study_statistics.line_along(
        {**runs, "some": ["second", "third"]}, "some", "gradients", "slope", label="some"
    )
    study_statistics.line_along(runs, "none", "gradients", "slope", label="none")


@pytest.mark.parametrize("name", ["cifar100", "/photos", "digit"])
def test_data_without_ten_classes_is_refused(name: str) -> None:
    study = STUDIES["degradation"]
    with pytest.raises(UsageError, match=f"data.name is '{name}', but .* one of digits, cifar10"):
        study.trials("quick", {"data.name": name})
    trials = study.trials("quick", {"data.name": "fashion-mnist"})
    assert {trial.recipe.data.name for trial in trials} == {"fashion-mnist"}
