"""Study, Finding and the rules by which a claim is judged."""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from resnetkit.data.published.table import PUBLISHED
from resnetkit.errors import UsageError
from resnetkit.studies.chart import Chart
from resnetkit.studies.phrase import Phrase, phrase, plural_phrase
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.run_folder import Run

__all__ = [
    "CLOSE_TO_CHANCE",
    "CONFIDENCE",
    "Changes",
    "Finding",
    "Groups",
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

TEN_CLASSES = ("digits", *(name for name, data in PUBLISHED.items() if len(data.class_names) == 10))
"""The data sets of studies, whose rules know what error guessing has among ten classes."""

Verdict = Literal["confirmed", "not confirmed", "not enough data"]
Changes = dict[str, object]
"""Values of a recipe to replace, by dotted key such as optimizer.lr."""
Groups = dict[str, Changes]
"""Changes to the recipe of a study for the trainings of each group, by the name of the group."""

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
RULES = {
    "above": phrase(
        "Confirmed when, with {confidence} confidence (one-sided Welch t over seeds), the"
        " difference of the means is above {margin}; fewer than {seeds} seeds are not enough, nor"
        " are networks that guess."
    ),
    "below": phrase(
        "Confirmed when, with {confidence} confidence (one-sided Welch t over seeds), the"
        " difference of the means is below {margin}; fewer than {seeds} seeds are not enough, nor"
        " are networks that guess."
    ),
}
UNSURE = phrase(
    "The means agree with the claim, but the trainings vary too much for the rule: run more seeds."
)
MORE_SEEDS = phrase("The spread between trainings is not known yet: run more seeds.")
NOTHING_LEARNED = phrase(
    "Neither network learned anything here, so there is nothing to compare: train longer, or with"
    " another learning rate."
)
CLOSE_TO_CHANCE = 5.0  # percentage points


@dataclass(frozen=True)
class Sample:
    """One quantity, measured once for each seed.

    Attributes:
        label: what was measured, such as "training error of plain56".
        values: one per seed.
        unit: of the values: % for percent, points for a difference of percentages, empty for a
            plain number.
        chance: for errors, that of guessing; nan for anything else.
    """

    label: str
    values: tuple[float, ...]
    unit: str = "%"
    chance: float = math.nan

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

    @property
    def is_guessing(self) -> bool:
        """Returns whether the mean error is close to that of guessing."""
        return self.mean >= self.chance - CLOSE_TO_CHANCE


@dataclass(frozen=True)
class Finding:
    """A claim, the numbers that decide it, and the verdict.

    Attributes:
        claim: what the source says.
        first: the sample that the claim is about.
        second: the sample it is compared with.
        bound: of `first - second`: the end of the one-sided confidence interval that the rule
            compares with the margin; nan without enough data.
        rule: how the verdict is reached, as a sentence; it does not depend on the runs.
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
        claim: as a sentence.
        first: one value per seed.
        second: likewise.
        margin: in the unit of the quantities; percentage points for percent.
        confirmed: what it means for a learner when the claim holds.
        not_confirmed: what it means when not even the means agree with it.
    """
    bound = -upper_bound(second, first)
    holds, is_close = bound > margin, first.mean - second.mean > margin
    meaning = confirmed if holds else UNSURE if is_close else not_confirmed
    rule = describe_rule("above", margin, first.unit)
    return judged(Finding(claim, first, second, bound, rule, verdict(holds), meaning))


def judge_not_higher(
    claim: str, first: Sample, second: Sample, *, margin: float, confirmed: str, not_confirmed: str
) -> Finding:
    """Judges a claim that the first quantity is not higher; the rest is as in `judge_higher`."""
    bound = upper_bound(first, second)
    holds, is_close = bound < margin, first.mean - second.mean < margin
    meaning = confirmed if holds else UNSURE if is_close else not_confirmed
    rule = describe_rule("below", margin, first.unit)
    return judged(Finding(claim, first, second, bound, rule, verdict(holds), meaning))


def verdict(holds: bool) -> Verdict:
    """Returns the verdict of a rule, for enough seeds and networks that have learned."""
    return "confirmed" if holds else "not confirmed"


def judged(finding: Finding) -> Finding:
    """Returns the finding as far as the data allows: two networks that guess confirm nothing."""
    if math.isnan(finding.bound):
        return replace(finding, verdict="not enough data", meaning=MORE_SEEDS)
    if finding.first.is_guessing and finding.second.is_guessing:
        holds = finding.verdict == "confirmed"
        reached: Verdict = "not enough data" if holds else "not confirmed"
        return replace(finding, verdict=reached, meaning=NOTHING_LEARNED)
    return finding


def describe_rule(side: Literal["above", "below"], margin: float, unit: str) -> Phrase:
    """Returns how a verdict is reached."""
    number, confidence = f"{margin:g}", f"{CONFIDENCE:.0%}"
    points = plural_phrase(
        "{number} percentage point",
        "{number} percentage points",
        1 if margin == 1 else 2,
        number=number,
    )
    return phrase(
        RULES[side],
        confidence=confidence,
        margin=points if unit in ("%", "points") else number,
        seeds=str(FEWEST_SEEDS),
    )


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
    """The size of a study: its recipe, groups and seeds.

    Attributes:
        recipe: name of the recipe of every training.
        groups: by name, the values of the recipe that each group replaces; see `networks`.
        seeds: trainings per group, with seeds 0, 1, ...
        cost: measured, with hardware; an estimate says so.
        comparability: how its numbers compare with the published ones, in a sentence.
        trained_once: groups that are shown but that no claim compares; they get one seed.
    """

    recipe: str
    groups: Groups
    seeds: int
    cost: str
    comparability: str
    trained_once: frozenset[str] = frozenset()

    def seeds_of(self, group: str) -> range:
        """Returns the seeds of the trainings of a group."""
        return range(min(self.seeds, 1) if group in self.trained_once else self.seeds)

    @property
    def trainings(self) -> int:
        return sum(len(self.seeds_of(group)) for group in self.groups)

    @property
    def data(self) -> str:
        """Returns the name of the data set."""
        return load_recipe(self.recipe).data.name


def overlap(key: str, other: str) -> bool:
    """Returns whether two dotted keys are the same or one lies within the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def networks(*names: str) -> Groups:
    """Returns groups that differ only in their network."""
    return {name: {"model.name": name} for name in names}


@dataclass(frozen=True)
class Outcome:
    """A finished study.

    Attributes:
        study: the question.
        scale: name of the scale it was run at.
        changes: values of every recipe that were replaced.
        folder: of the report.
        runs: of each group, in the order of seeds.
        findings: computed from the runs.
        charts: of the measurements.
    """

    study: "Study"
    scale: str
    changes: Changes
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
        findings: returns the findings from the runs of each group.
        paper_figures: published numbers, for comparison.
        paper_data: what the published numbers were measured on; None without any.
        measurements: keys of `MEASUREMENTS`, taken of every run.
        charts: returns the charts of the measurements from the runs of each group.
        about_errors: whether the errors during training and at its end answer the question.
        divergence_counts: whether a training that diverges is a result and not a failure.
    """

    name: str
    title: str
    question: str
    source: str
    theory_title: str
    theory: tuple[str, ...]
    scales: dict[str, Scale]
    findings: Callable[[dict[str, list[Run]]], Sequence[Finding]]
    paper_figures: tuple[PaperFigure, ...] = ()
    paper_data: str | None = None
    measurements: tuple[str, ...] = ()
    charts: Callable[[dict[str, list[Run]]], Sequence[Chart]] = lambda runs: ()
    about_errors: bool = True
    divergence_counts: bool = False

    def choose_scale(self, scale: str | None, data: str | None) -> str:
        """Returns the given scale, or the first one on the given data.

        Args:
            scale: a key of `scales`; None for any.
            data: name of a data set; None for any.

        Raises:
            UsageError: when there is none.
        """
        on_data = [name for name, size in self.scales.items() if data in (None, size.data)]
        if scale is None and not on_data:
            names = ", ".join(dict.fromkeys(size.data for size in self.scales.values()))
            raise UsageError(f"the study '{self.name}' does not use '{data}': expected {names}.")
        chosen = on_data[0] if scale is None else scale
        if chosen in self.scales and chosen not in on_data:
            raise UsageError(
                f"the scale '{chosen}' of '{self.name}' uses {self.scales[chosen].data}, not"
                f" {data}: leave --data or --scale out."
            )
        return chosen

    def varied(self, scale: str) -> set[str]:
        """Returns the keys of the recipe in which the trainings of a scale differ."""
        return {"seed", *chain.from_iterable(self.scales[scale].groups.values())}

    def trials(self, scale: str, changes: Changes | None = None) -> list[Trial]:
        """Returns every training of a scale.

        Args:
            scale: a key of `scales`.
            changes: values of the recipe to replace.

        Raises:
            UsageError: when a change is one of the values that the study varies, or a data set
                without ten classes.
            RecipeError: when a change makes an impossible recipe.
        """
        chosen = self.scales[scale]
        for key in changes or {}:
            if any(overlap(key, varied) for varied in self.varied(scale)):
                raise UsageError(
                    f"a study varies {key} itself: it cannot be set. 'resnet train' trains one"
                    " network."
                )
        data = (changes or {}).get("data.name", TEN_CLASSES[0])
        if data not in TEN_CLASSES:
            raise UsageError(
                f"data.name is '{data}', but studies know what guessing is among ten classes:"
                f" expected one of {', '.join(TEN_CLASSES)}."
            )
        return [
            Trial(group, load_recipe(chosen.recipe, {**(changes or {}), **values, "seed": seed}))
            for group, values in chosen.groups.items()
            for seed in chosen.seeds_of(group)
        ]
