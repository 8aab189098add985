"""The findings on degradation: right on runs that say so, and wrong when a fault is planted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from resnetkit.studies.cluster import Workers
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.runner import run_study
from resnetkit.studies.study import Finding, Study
from resnetkit.training.run_folder import Run

Errors = dict[str, tuple[float, float]]  # training and test error in percent, by network
NewRuns = Callable[..., dict[str, list[Run]]]

AS_IN_THE_PAPER: Errors = {
    "plain20": (9.0, 12.0),
    "plain32": (15.0, 18.0),
    "plain56": (40.0, 42.0),
    "resnet20": (0.4, 2.0),
    "resnet32": (0.3, 1.8),
    "resnet56": (0.2, 1.6),
}
CLAIMS = ("plain degrades", "residual does not", "lower training error", "lower test error")


def confirmed(findings: list[Finding]) -> set[str]:
    """Returns the claims that are confirmed; the others are not, for lack of the effect."""
    verdicts = dict(zip(CLAIMS, (finding.verdict for finding in findings), strict=True))
    assert set(verdicts.values()) <= {"confirmed", "not confirmed"}
    return {claim for claim, verdict in verdicts.items() if verdict == "confirmed"}


def test_the_papers_numbers_confirm_every_claim(degradation_runs: NewRuns) -> None:
    assert confirmed(list(DEGRADATION.findings(degradation_runs(AS_IN_THE_PAPER)))) == set(CLAIMS)


@pytest.mark.parametrize(
    ("claim", "errors"),
    [
        ("plain degrades", {"plain56": (9.5, 42.0)}),
        ("residual does not", {"resnet56": (6.0, 1.6)}),
        ("lower training error", {"resnet20": (40.0, 2.0), "resnet56": (40.0, 1.6)}),
        ("lower test error", {"resnet56": (0.2, 42.0)}),
    ],
)
def test_each_claim_falls_alone(degradation_runs: NewRuns, claim: str, errors: Errors) -> None:
    runs = degradation_runs({**AS_IN_THE_PAPER, **errors})
    assert confirmed(list(DEGRADATION.findings(runs))) == set(CLAIMS) - {claim}


@pytest.mark.parametrize(
    ("claim", "worse", "difference"),
    [
        ("plain degrades", "plain56", 10.0),
        ("residual does not", "resnet56", 1.0),
    ],
)
def test_findings_compare_the_deepest_with_the_shallowest(
    degradation_runs: NewRuns, claim: str, worse: str, difference: float
) -> None:
    changed = {"plain56": (19.0, 42.0), "resnet56": (1.4, 1.6)}
    findings = DEGRADATION.findings(degradation_runs({**AS_IN_THE_PAPER, **changed}))
    finding = findings[CLAIMS.index(claim)]
    assert finding.difference == pytest.approx(difference)
    assert finding.first.label == f"training error of {worse}"
    assert worse in finding.claim


def test_the_last_claims_compare_residual_with_plain(degradation_runs: NewRuns) -> None:
    train, test = DEGRADATION.findings(degradation_runs(AS_IN_THE_PAPER))[2:]
    labels = [(finding.first.label, finding.second.label) for finding in (train, test)]
    assert labels == [
        ("training error of plain56", "training error of resnet56"),
        ("test error of plain56", "test error of resnet56"),
    ]
    assert train.first.values == pytest.approx((40.0, 40.1, 40.2))
    assert test.second.values == pytest.approx((1.6, 1.7, 1.8))


def test_depth_is_a_number_and_order_does_not_matter(degradation_runs: NewRuns) -> None:
    """As words, plain110 comes before plain20."""
    errors = {
        "resnet110": (0.1, 1.0),
        "plain110": (60.0, 60.0),
        "resnet20": (0.4, 2.0),
        "plain20": (9.0, 12.0),
    }
    findings = DEGRADATION.findings(degradation_runs(errors))
    assert confirmed(list(findings)) == set(CLAIMS)
    assert "(plain110)" in findings[0].claim
    assert findings[0].second.label == "training error of plain20"


def test_networks_that_learned_equally_well_confirm_only_that_depth_does_no_harm(
    degradation_runs: NewRuns,
) -> None:
    runs = degradation_runs(dict.fromkeys(AS_IN_THE_PAPER, (5.0, 6.0)))
    assert confirmed(list(DEGRADATION.findings(runs))) == {"residual does not"}


def test_residual_networks_without_their_shortcuts_win_nothing(degradation_runs: NewRuns) -> None:
    """Hand-written: what the runs say when both families degrade alike."""
    plain = {name: AS_IN_THE_PAPER[name] for name in ("plain20", "plain32", "plain56")}
    faulty = {name.replace("plain", "resnet"): errors for name, errors in plain.items()}
    findings = DEGRADATION.findings(degradation_runs({**plain, **faulty}))
    assert confirmed(list(findings)) == {"plain degrades"}


def test_two_seeds_are_not_enough_for_any_claim(degradation_runs: NewRuns) -> None:
    findings = DEGRADATION.findings(degradation_runs(AS_IN_THE_PAPER, seeds=2))
    assert {finding.verdict for finding in findings} == {"not enough data"}


def test_a_run_that_is_not_finished_does_not_count(degradation_runs: NewRuns) -> None:
    runs = degradation_runs(AS_IN_THE_PAPER)
    runs["plain56"][0].metrics_path.write_text("")
    findings = DEGRADATION.findings(runs)
    assert findings[0].verdict == "not enough data"
    assert findings[1].verdict == "confirmed"


def test_every_verdict_has_its_own_meaning(degradation_runs: NewRuns) -> None:
    findings = DEGRADATION.findings(degradation_runs(AS_IN_THE_PAPER))
    assert len({finding.meaning for finding in findings}) == len(CLAIMS)


def family(runs: dict[str, list[Run]], name: str) -> list[bytes]:
    """Returns what the trainings of a network wrote, one a seed."""
    return [run.metrics_path.read_bytes() for run in runs[name]]


def test_a_planted_fault_is_seen_in_real_trainings(
    new_study: Callable[..., Study], tmp_path: Path
) -> None:
    """Residual networks without shortcuts are plain ones, to the last byte; so none can win."""
    study = new_study(findings=DEGRADATION.findings)
    fault = {"model.options.shortcut": "none", "length": "3 steps"}
    workers = Workers(backend="sequential", device="cpu")
    outcome = run_study(study, "tiny", tmp_path, changes=fault, workers=workers)
    assert family(outcome.runs, "resnet8") == family(outcome.runs, "plain8")
    assert outcome.findings[2].difference == outcome.findings[3].difference == 0
    assert "lower training error" not in confirmed(list(outcome.findings))
    assert "lower test error" not in confirmed(list(outcome.findings))


@pytest.mark.slow
def test_the_claims_stand_and_fall_with_the_shortcuts(
    new_study: Callable[..., Study], tmp_path: Path
) -> None:
    """The quick study, without the networks in between: 88 s on two cores of an EPYC."""
    study = new_study(
        groups=("plain20", "plain56", "resnet20", "resnet56"),
        recipe=DEGRADATION.scales["quick"].recipe,
        findings=DEGRADATION.findings,
    )
    whole = run_study(study, "tiny", tmp_path)
    assert confirmed(list(whole.findings)) == set(CLAIMS)
    faulty = run_study(study, "tiny", tmp_path, changes={"model.options.shortcut": "none"})
    assert confirmed(list(faulty.findings)) <= {"plain degrades"}


def test_networks_that_no_claim_compares_are_trained_once() -> None:
    quick = DEGRADATION.scales["quick"]
    seeds = {
        group: [t.recipe.seed for t in DEGRADATION.trials("quick") if t.group == group]
        for group in quick.groups
    }
    assert [group for group, of_group in seeds.items() if of_group == [0]] == [
        "plain32",
        "resnet32",
    ]
    assert all(of_group in ([0], [0, 1, 2]) for of_group in seeds.values())
    assert quick.trainings == sum(map(len, seeds.values())) == 14
