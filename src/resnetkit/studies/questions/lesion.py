"""How much does a trained network depend on each of its blocks?"""

import statistics

from resnetkit.studies.chart import Chart, Line, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs, measured_line
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, networks
from resnetkit.training.run_folder import Run

__all__ = ["LESION"]

MARGIN = 10.0  # percentage points
RISES = {
    "one": phrase("rise of the test error of {group} when one block is removed"),
    "swapped": phrase("rise of the test error of {group} when two blocks are swapped"),
}
CLAIMS = {
    "one": phrase(
        "Removing one block harms the plain network ({plain}) more than the residual one"
        " ({residual})."
    ),
    "swapped": phrase(
        "Swapping two neighboring blocks harms the plain network ({plain}) more than the residual"
        " one ({residual})."
    ),
}


def rise(run: Run, key: str) -> float:
    """Returns by how many percentage points the test error rises on average under a lesion."""
    errors = measured(run, "lesions")
    return statistics.fmean(errors[key]) - errors["whole"][0]


def rise_sample(runs: Runs, group: str, key: str) -> Sample:
    """Returns the rise of the test error under a lesion, one per training of a group."""
    rises = tuple(rise(run, key) for run in runs[group])
    return Sample(phrase(RISES[key], group=group), rises, "points")


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of Veit et al.: residual networks hardly depend on single blocks."""
    plain, residual = runs
    return [
        judge_higher(
            phrase(claim, plain=plain, residual=residual),
            rise_sample(runs, plain, key),
            rise_sample(runs, residual, key),
            margin=MARGIN,
            confirmed=phrase(
                "A plain network has one path, which needs every layer in its place. In a residual"
                " network half of the paths bypass any given block and keep working."
            ),
            not_confirmed=phrase("Here the residual network depended on its blocks about as much."),
        )
        for key, claim in CLAIMS.items()
    ]


def charts(runs: Runs) -> list[Chart]:
    """Returns the test error without each block, and without several random blocks."""
    return [
        Chart(
            title=phrase("Without one block"),
            x=phrase("removed block, from the input"),
            y=phrase("test error, %"),
            lines=tuple(measured_line(runs, group, "lesions", "one") for group in runs),
        ),
        Chart(
            title=phrase("Without several random blocks"),
            x=phrase("number of removed blocks"),
            y=phrase("test error, %"),
            lines=tuple(removal_line(group, runs[group]) for group in runs),
        ),
    ]


def removal_line(group: str, runs: list[Run]) -> Line:
    """Returns the mean test error against the number of removed blocks."""
    errors = [measured(run, "lesions") for run in runs]
    counts = sorted(int(key.split()[1]) for key in errors[0] if key.startswith("without "))
    keys = ["whole", "one", *(f"without {count}" for count in counts)]
    seeds = [[statistics.fmean(measurement[key]) for key in keys] for measurement in errors]
    return line(group, seeds, [0, 1, *counts])


LESION = Study(
    name="lesion",
    title=phrase("Lesions: residual networks survive the loss of a block"),
    question=phrase("How much does a trained network depend on each of its blocks?"),
    source="Veit, Wilber and Belongie 2016, sec. 4",
    theory_title=phrase("Why can a block be removed?"),
    theory=(
        phrase(
            "A network of blocks y = F(x) + x is a sum of many paths. Removing one block, F(x) = 0,"
            " closes half of them and leaves the other half as they are. A plain network has only"
            " one path, and it goes through every block."
        ),
    ),
    scales={
        "quick": digits(
            networks("plain20", "resnet20"), cost="shares the trainings of degradation"
        ),
        "short": cifar10(
            networks("plain20", "resnet20"), cost="shares the trainings of degradation"
        ),
        "paper": paper(networks("plain20", "resnet20"), cost="hours on 2 cores"),
    },
    findings=findings,
    measurements=("lesions",),
    charts=charts,
    about_errors=False,
)
