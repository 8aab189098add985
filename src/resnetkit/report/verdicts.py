"""The findings of a study, as cards of a page and as JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from resnetkit.report.page import link, processors_of, shared_environments
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.studies.study import CONFIDENCE, Finding, Outcome, Sample, Verdict

__all__ = ["Card", "cards", "findings_json", "verdict_counts"]

VERDICT_NAMES: dict[Verdict, Phrase] = {
    "confirmed": phrase("Confirmed"),
    "not confirmed": phrase("Not confirmed"),
    "not enough data": phrase("Not enough data"),
}


@dataclass(frozen=True)
class SampleBar:
    """A sample and its bar.

    Attributes:
        sample: what is drawn.
        percent: length of the bar, of the longest of that unit.
    """

    sample: Sample
    percent: float


@dataclass(frozen=True)
class Card:
    """A finding as a page shows it.

    Attributes:
        finding: what is shown.
        bars: of both samples.
    """

    finding: Finding
    bars: tuple[SampleBar, SampleBar]

    @property
    def verdict_name(self) -> Phrase:
        return VERDICT_NAMES[self.finding.verdict]

    @property
    def in_points(self) -> bool:
        """Returns whether the difference is in percentage points."""
        return self.finding.first.unit in ("%", "points")

    @property
    def bound_words(self) -> Phrase:
        """Returns how to read the bound: as a lower limit, an upper one, or exactly."""
        confidence = f"{CONFIDENCE:.0%}"
        if self.finding.bound == self.finding.difference:
            return phrase("with {confidence} confidence exactly", confidence=confidence)
        if self.finding.bound < self.finding.difference:
            return phrase("with {confidence} confidence at least", confidence=confidence)
        return phrase("with {confidence} confidence at most", confidence=confidence)


def cards(findings: Sequence[Finding]) -> list[Card]:
    """Returns the findings with bars on one scale."""
    samples = [sample for finding in findings for sample in (finding.first, finding.second)]
    longest: dict[str, float] = {}
    for sample in samples:
        longest[sample.unit] = max(longest.get(sample.unit, 0.0), length(sample))

    def bar(sample: Sample) -> SampleBar:
        return SampleBar(sample, 100 * length(sample) / (longest[sample.unit] or 1))

    return [Card(finding, (bar(finding.first), bar(finding.second))) for finding in findings]


def length(sample: Sample) -> float:
    """Returns the mean; 0 when there is none to draw, or it lies below zero, where bars begin."""
    return max(finite(sample.mean) or 0.0, 0.0)


def verdict_counts(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """Returns the number of findings with each verdict."""
    verdicts = [finding.verdict for finding in findings]
    return {verdict: verdicts.count(verdict) for verdict in get_args(Verdict)}


def findings_json(outcome: Outcome) -> dict[str, object]:
    """Returns the findings and their trainings as values that strict JSON can hold."""
    runs = [run for group_runs in outcome.runs.values() for run in group_runs]
    environments = shared_environments(runs)
    return {
        "study": outcome.study.name,
        "question": outcome.study.question,
        "source": outcome.study.source,
        "scale": outcome.scale,
        "changes": outcome.changes,
        "confidence": CONFIDENCE,
        "findings": [finding_json(finding) for finding in outcome.findings],
        "trainings": [
            {
                "group": group,
                "seed": run.recipe.seed,
                "folder": link(run.folder, outcome.folder),
                "recipe_sha256": run.recipe.digest,
                "finished": run.final is not None,
                "environment": next(n for n, e in enumerate(environments) if run in e.runs),
            }
            for group, group_runs in outcome.runs.items()
            for run in group_runs
        ],
        "environments": [environment.facts for environment in environments],
        "processors": processors_of(runs),
    }


def finding_json(finding: Finding) -> dict[str, object]:
    """Returns one finding; differences of errors in percent are in percentage points."""
    return {
        "claim": finding.claim,
        "verdict": finding.verdict,
        "difference": finite(finding.difference),
        "bound": finite(finding.bound),
        "rule": finding.rule,
        "meaning": finding.meaning,
        "first": sample_json(finding.first),
        "second": sample_json(finding.second),
    }


def sample_json(sample: Sample) -> dict[str, object]:
    return {
        "label": sample.label,
        "unit": sample.unit,
        "values": [finite(value) for value in sample.values],
        "mean": finite(sample.mean),
        "spread": finite(sample.spread),
        "n": len(sample.values),
    }


def finite(value: float) -> float | None:
    """Returns the value, or None for one that strict JSON cannot hold."""
    return value if math.isfinite(value) else None
