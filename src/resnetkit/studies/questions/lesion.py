"""What is left of a trained network when blocks are taken out?"""

import statistics

from resnetkit.studies.chart import Chart, Line, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, networks
from resnetkit.training.run_folder import Run

__all__ = ["LESION"]

MARGIN = 10.0  # percentage points


def harm(run: Run, key: str) -> float:
    """Returns by how many points the test error rises under a kind of lesion, on average."""
    found = measured(run, "lesions")
    return statistics.fmean(found[key]) - found["whole"][0]


def harm_sample(runs: Runs, group: str, key: str) -> Sample:
    """Returns the harm of a kind of lesion to the trainings of a group."""
    rises = tuple(harm(run, key) for run in runs[group])
    return Sample(phrase(RISES[key], group=group), rises, "points")


RISES = {
    "one": "rise of the test error of {group} when one block is taken out",
    "swapped": "rise of the test error of {group} when two blocks change places",
}
CLAIMS = {
    "one": (
        "Taking out one block harms the plain network ({plain}) more than the residual one"
        " ({residual})."
    ),
    "swapped": (
        "Exchanging two neighboring blocks harms the plain network ({plain}) more than the"
        " residual one ({residual})."
    ),
}


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of Veit et al.: residual networks hardly depend on single blocks."""
    plain, residual = runs
    return [
        judge_higher(
            phrase(claim, plain=plain, residual=residual),
            harm_sample(runs, plain, key),
            harm_sample(runs, residual, key),
            margin=MARGIN,
            confirmed=(
                "In a plain network there is one path, and every layer is needed in its place. In a"
                " residual network half of the paths pass any block by, and go on working."
            ),
            not_confirmed="Here the residual network depended on its blocks about as much.",
        )
        for key, claim in CLAIMS.items()
    ]


def charts(runs: Runs) -> list[Chart]:
    """Returns the test error without each block, and without several at random."""
    return [
        Chart(
            title="Without one block",
            x="block that is taken out, from the input",
            y="test error, %",
            lines=tuple(
                line(group, [measured(run, "lesions")["one"] for run in found])
                for group, found in runs.items()
            ),
        ),
        Chart(
            title="Without several blocks at random",
            x="blocks that are taken out",
            y="test error, %",
            lines=tuple(several(group, found) for group, found in runs.items()),
        ),
    ]


def several(group: str, runs: list[Run]) -> Line:
    """Returns the mean test error against the number of blocks taken out."""
    found = [measured(run, "lesions") for run in runs]
    counts = sorted(int(key.split()[1]) for key in found[0] if key.startswith("without "))
    keys = ["whole", "one", *(f"without {count}" for count in counts)]
    seeds = [[statistics.fmean(each[key]) for key in keys] for each in found]
    return line(group, seeds, [0, 1, *counts])


LESION = Study(
    name="lesion",
    title="Lesions: residual networks survive the loss of a block",
    question="How much does a trained network depend on each of its blocks?",
    source="Veit, Wilber and Belongie 2016, sec. 4",
    theory_title="Why could a block be missing?",
    theory=(
        (
            "A network of blocks y = F(x) + x is a sum of many paths. Taking one block out, F(x)"
            " = 0, closes half of them and leaves the other half as they are. In a plain network"
            " there is only one path, and it goes through every block."
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
    paper_figures=(),
    paper_data="",
    measurements=("lesions",),
    charts=charts,
    about_errors=False,
)
