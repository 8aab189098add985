"""Study, Finding and the rules by which a claim is judged."""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from resnetkit.errors import UsageError
from resnetkit.studies.chart import Chart
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.run_folder import Run

__all__ = [
    "CONFIDENCE",
    "Finding",
    "Outcome",
    "PaperFigure",
    "Sample",
    "Scale",
    "Study",
    "Trial",
    "Verdict",
    "judge_higher",
    "judge_not_higher",
    "networks",
]

Verdict = Literal["confirmed", "not confirmed", "not enough data"]

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
RULES = {
    side: (
        "Confirmed when, with {confidence} confidence (one-sided Welch t over seeds), the"
        f" difference of the means is {side} {{margin}}{{unit}}; fewer than {{seeds}} seeds are not"
        " enough."
    )
    for side in ("above", "below")
}
UNITS = {"%": " percentage points", "points": " percentage points"}
UNSURE = (
    "The means agree with the claim, but the trainings differ too much among themselves for the"
    " rule: run more seeds."
)
MORE_SEEDS = "The spread between trainings is not known yet: run more seeds."


@dataclass(frozen=True)
class Sample:
    """One quantity, measured once for each seed.

    Attributes:
        label: what was measured, such as "training error of plain56".
        values: one a seed.
        unit: of the values: % for percent, points for a difference of percents, empty for a plain
            number.
    """

    label: str
    values: tuple[float, ...]
    unit: str = "%"

    @property
    def mean(self) -> float:
        """Returns the mean over seeds; nan without any."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Returns the sample standard deviation over seeds; nan for fewer than two."""
        if len(self.values) < 2 or not all(map(math.isfinite, self.values)):
            return math.nan
        return statistics.stdev(self.values)


@dataclass(frozen=True)
class Finding:
    """A claim in words, the numbers that decide it, and the verdict.

    Attributes:
        claim: what the source says.
        first: the sample that the claim is about.
        second: the sample it is compared with.
        bound: of `first - second`: the end of the one-sided confidence interval that the rule
            looks at; nan without enough data.
        rule: how the verdict is reached, in words; it does not depend on the runs.
        verdict: see `Verdict`.
        meaning: what the outcome says, for a learner.
    """

    claim: str
    first: Sample
    second: Sample
    bound: float
    rule: str
    verdict: Verdict
    meaning: str

    @property
    def difference(self) -> float:
        """Returns the difference of the means, first minus second."""
        return self.first.mean - self.second.mean


def judge_higher(
    claim: str, first: Sample, second: Sample, *, margin: float, confirmed: str, not_confirmed: str
) -> Finding:
    """Judges a claim that the first quantity is higher than the second.

    Args:
        claim: in words.
        first: one value a seed.
        second: likewise.
        margin: in the unit of the quantities; percentage points for percent.
        confirmed: what it means for a learner when the claim holds.
        not_confirmed: what it means when not even the means agree with it.
    """
    bound = -upper_bound(second, first)
    against = UNSURE if first.mean - second.mean > margin else not_confirmed
    meanings: dict[Verdict, str] = {"confirmed": confirmed, "not confirmed": against}
    reached = verdict(bound > margin, bound)
    rule = rule_in_words("above", margin, first.unit)
    meaning = meanings.get(reached, MORE_SEEDS)
    return Finding(claim, first, second, bound, rule, reached, meaning)


def judge_not_higher(
    claim: str, first: Sample, second: Sample, *, margin: float, confirmed: str, not_confirmed: str
) -> Finding:
    """Judges a claim that the first quantity is not higher; otherwise as `judge_higher`."""
    bound = upper_bound(first, second)
    against = UNSURE if first.mean - second.mean < margin else not_confirmed
    meanings: dict[Verdict, str] = {"confirmed": confirmed, "not confirmed": against}
    reached = verdict(bound < margin, bound)
    rule = rule_in_words("below", margin, first.unit)
    meaning = meanings.get(reached, MORE_SEEDS)
    return Finding(claim, first, second, bound, rule, reached, meaning)


def rule_in_words(side: str, margin: float, unit: str) -> Phrase:
    """Returns how a verdict is reached."""
    return phrase(
        RULES[side],
        confidence=f"{CONFIDENCE:.0%}",
        margin=f"{margin:g}",
        unit=UNITS.get(unit, ""),
        seeds=str(FEWEST_SEEDS),
    )


def verdict(holds: bool, bound: float) -> Verdict:
    """Returns the verdict; a bound that is not a number means that there was not enough data."""
    if math.isnan(bound):
        return "not enough data"
    return "confirmed" if holds else "not confirmed"


def upper_bound(first: Sample, second: Sample) -> float:
    """Returns the upper confidence bound of mean(first) - mean(second); nan for too few seeds."""
    if min(len(first.values), len(second.values)) < FEWEST_SEEDS:
        return math.nan
    if not all(map(math.isfinite, (*first.values, *second.values))):
        return math.nan
    if first.spread == second.spread == 0:
        return first.mean - second.mean
    from scipy import stats  # imported where it is used: it takes 0.6 s

    with warnings.catch_warnings():  # scipy warns where one sample has no spread
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_ind(first.values, second.values, equal_var=False, alternative="less")
        return float(test.confidence_interval(CONFIDENCE).high)


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    Attributes:
        group: trials of a group differ in their seed alone.
        recipe: what is trained.
    """

    group: str
    recipe: Recipe


@dataclass(frozen=True)
class PaperFigure:
    """A published number for a group, on the data of its source.

    Attributes:
        group: such as plain56.
        test_error: in percent, as its source gives it, such as "12.95 +- 0.22".
        source: paper and table, or the name of a public reproduction.
    """

    group: str
    test_error: str
    source: str


@dataclass(frozen=True)
class Scale:
    """How large a study is run.

    Attributes:
        recipe: name of the recipe of every training.
        groups: what of the recipe each group changes, by its name; see `networks`.
        seeds: how many trainings of each group, seeds counting from 0.
        cost: measured, with hardware; an estimate says so.
        beside_paper: how its numbers compare with the published ones, in a sentence.
    """

    recipe: str
    groups: dict[str, dict[str, Any]]
    seeds: int
    cost: str
    beside_paper: str

    @property
    def data(self) -> str:
        """Returns the name of the data set."""
        return load_recipe(self.recipe).data.name


def overlap(key: str, other: str) -> bool:
    """Returns whether two dotted keys are the same or one lies within the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def networks(*names: str) -> dict[str, dict[str, Any]]:
    """Returns groups that differ in their network alone."""
    return {name: {"model.name": name} for name in names}


@dataclass(frozen=True)
class Outcome:
    """A finished study.

    Attributes:
        study: what was asked.
        scale: name of the scale it was run at.
        changes: values of every recipe that were replaced, by dotted key.
        folder: where its files are; the runs are below it.
        runs: of each group, in the order of seeds.
        findings: computed from the runs.
        charts: likewise, of what was measured.
    """

    study: "Study"
    scale: str
    changes: dict[str, Any]
    folder: Path
    runs: dict[str, list[Run]]
    findings: tuple[Finding, ...]
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Study:
    """A question, the trainings that answer it, and how findings follow from the runs.

    Attributes:
        name: on the command line.
        title: of the report.
        question: in one sentence.
        source: paper, section and figures.
        theory_title: heading of the theory.
        theory: paragraphs for a learner.
        scales: by name; the first is the default.
        findings: from the runs of each group to the findings.
        paper_figures: published numbers to set beside ours.
        paper_data: what the published numbers were measured on.
        measurements: keys of `MEASUREMENTS`, taken of every run.
        charts: from the runs of each group to what is drawn of their measurements.
        about_errors: whether the errors along training and at its end answer the question.
        divergence_counts: whether a training that diverges is a result, not a failure.
    """

    name: str
    title: str
    question: str
    source: str
    theory_title: str
    theory: tuple[str, ...]
    scales: dict[str, Scale]
    findings: Callable[[dict[str, list[Run]]], Sequence[Finding]]
    paper_figures: tuple[PaperFigure, ...]
    paper_data: str
    measurements: tuple[str, ...] = ()
    charts: Callable[[dict[str, list[Run]]], Sequence[Chart]] = lambda runs: ()
    about_errors: bool = True
    divergence_counts: bool = False

    def choose_scale(self, scale: str | None, data: str | None) -> str:
        """Returns the scale asked for, or the first one on the data asked for.

        Args:
            scale: a key of `scales`; None for any.
            data: name of a data set; None for any.

        Raises:
            UsageError: when there is none.
        """
        on_data = [name for name, each in self.scales.items() if data in (None, each.data)]
        chosen = scale or next(iter(on_data), "")
        if chosen in self.scales and chosen not in on_data:
            raise UsageError(
                f"the scale '{chosen}' of '{self.name}' uses {self.scales[chosen].data}, not"
                f" {data}: leave --data or --scale out."
            )
        if not chosen:
            known = ", ".join(dict.fromkeys(each.data for each in self.scales.values()))
            raise UsageError(f"the study '{self.name}' does not use '{data}': expected {known}.")
        return chosen

    def varied(self, scale: str) -> set[str]:
        """Returns the keys of the recipe in which the trainings of a scale differ."""
        return {"seed", *chain.from_iterable(self.scales[scale].groups.values())}

    def trials(self, scale: str, changes: dict[str, Any] | None = None) -> list[Trial]:
        """Returns every training of a scale.

        Args:
            scale: a key of `scales`.
            changes: values of the recipe to replace, by dotted key.
        """
        chosen = self.scales[scale]
        for key in changes or {}:
            if any(overlap(key, own) for own in self.varied(scale)):
                raise UsageError(
                    f"a study varies {key} itself: it cannot be set. 'resnet train' trains one."
                )
        return [
            Trial(group, load_recipe(chosen.recipe, {**(changes or {}), **own, "seed": seed}))
            for group, own in chosen.groups.items()
            for seed in range(chosen.seeds)
        ]
