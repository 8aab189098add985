"""The findings of a study, prepared for people and for machines."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from resnetkit.report.page import link, surroundings
from resnetkit.studies.study import CONFIDENCE, Finding, Outcome, Sample, Verdict

__all__ = ["Card", "cards", "findings_for_machines", "verdict_counts"]


@dataclass(frozen=True)
class Card:
    """A finding as it is shown to people.

    Attributes:
        finding: what is shown.
        difference: of the means, first minus second; nan when one is missing.
        side: how to read the bound: "at least", "at most" or "exactly".
        bars: both samples with the length of their bar, in percent of the longest of that unit.
    """

    finding: Finding
    difference: float
    side: str
    bars: tuple[tuple[Sample, float], tuple[Sample, float]]


def cards(findings: Sequence[Finding]) -> list[Card]:
    """Returns the findings with what is needed to show them on one scale."""
    samples = [sample for finding in findings for sample in (finding.first, finding.second)]
    longest: dict[str, float] = {}
    for sample in samples:
        longest[sample.unit] = max(longest.get(sample.unit, 0.0), length(sample))

    def bar(sample: Sample) -> tuple[Sample, float]:
        return sample, 100 * length(sample) / (longest[sample.unit] or 1)

    return [
        Card(
            finding,
            difference(finding),
            bound_side(finding),
            (bar(finding.first), bar(finding.second)),
        )
        for finding in findings
    ]


def length(sample: Sample) -> float:
    """Returns the size of the mean, or 0 where there is none to draw."""
    return abs(finite(mean(sample)) or 0.0)


def mean(sample: Sample) -> float:
    """Returns the mean; nan for a sample without values."""
    return sample.mean if sample.values else math.nan


def difference(finding: Finding) -> float:
    return mean(finding.first) - mean(finding.second)


def bound_side(finding: Finding) -> str:
    """Returns whether the bound is a lower or an upper one."""
    if finding.bound == difference(finding):
        return "exactly"
    return "at least" if finding.bound < difference(finding) else "at most"


def verdict_counts(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """Returns how many findings have each verdict."""
    reached = [finding.verdict for finding in findings]
    return {verdict: reached.count(verdict) for verdict in get_args(Verdict)}


def findings_for_machines(outcome: Outcome) -> dict[str, Any]:
    """Returns the findings and what they rest on as values that strict JSON can hold."""
    runs = [run for found in outcome.runs.values() for run in found]
    places = surroundings(runs)
    return {
        "study": outcome.study.name,
        "question": outcome.study.question,
        "source": outcome.study.source,
        "scale": outcome.scale,
        "changes": outcome.changes,
        "confidence": CONFIDENCE,
        "findings": [finding_values(finding) for finding in outcome.findings],
        "trainings": [
            {
                "group": group,
                "seed": run.recipe.seed,
                "folder": link(run.folder, outcome.folder),
                "recipe_sha256": run.recipe.digest,
                "finished": run.final is not None,
                "environment": next(n for n, place in enumerate(places) if run in place.runs),
            }
            for group, found in outcome.runs.items()
            for run in found
        ],
        "environments": [place.facts for place in places],
    }


def finding_values(finding: Finding) -> dict[str, Any]:
    """Returns one finding; of errors in percent, differences are in percentage points."""
    return {
        "claim": finding.claim,
        "verdict": finding.verdict,
        "difference": finite(difference(finding)),
        "bound": finite(finding.bound),
        "rule": finding.rule,
        "meaning": finding.meaning,
        "first": sample_values(finding.first),
        "second": sample_values(finding.second),
    }


def sample_values(sample: Sample) -> dict[str, Any]:
    return {
        "label": sample.label,
        "unit": sample.unit,
        "values": [finite(value) for value in sample.values],
        "mean": finite(mean(sample)),
        "spread": finite(sample.spread),
        "n": len(sample.values),
    }


def finite(value: float) -> float | None:
    """Returns the value, or None for one that strict JSON cannot hold."""
    return value if math.isfinite(value) else None
