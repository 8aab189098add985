"""Are the outputs of residual layers smaller than those of plain ones (figure 7)?"""

from resnetkit.studies.chart import Chart, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import Runs, by_depth, measured_line, measured_sample
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, networks

__all__ = ["RESPONSES"]

MARGIN = 0.02  # of the deviation of normalized outputs, which starts at 1


def response(runs: Runs, group: str) -> Sample:
    """Returns the mean response of a group's layers, one a training."""
    return measured_sample(runs, group, "responses", "mean", "mean response of {group}")


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's figure 7."""
    plain, residual = by_depth(runs, "plain"), by_depth(runs, "resnet")
    return [
        judge_higher(
            phrase(
                "The layers of the residual network ({residual_deep}) respond less strongly than"
                " those of its plain counterpart ({plain_deep}).",
                residual_deep=residual[-1],
                plain_deep=plain[-1],
            ),
            response(runs, plain[-1]),
            response(runs, residual[-1]),
            margin=MARGIN,
            confirmed=(
                "The layers of a residual block only add to what passes by, so smaller outputs are"
                " enough: F(x) lies nearer to zero than the output of a plain layer."
            ),
            not_confirmed=(
                "At this scale the responses hardly differ: normalization starts them all at one,"
                " and its scale needs many steps to move away."
            ),
        ),
        judge_higher(
            phrase(
                "The deeper the residual network, the less each layer changes: responses in"
                " {residual_deep} are smaller than in {residual_shallow}.",
                residual_deep=residual[-1],
                residual_shallow=residual[0],
            ),
            response(runs, residual[0]),
            response(runs, residual[-1]),
            margin=MARGIN,
            confirmed="The work is shared by more layers, and each has less of it to do.",
            not_confirmed=(
                "At this scale the responses hardly differ: normalization starts them all at one,"
                " and its scale needs many steps to move away."
            ),
        ),
    ]


def charts(runs: Runs) -> list[Chart]:
    """Returns figure 7: responses in the order of the layers, and sorted by size."""
    return [
        Chart(
            title="In the order of the layers",
            x="layer, from the input",
            y="standard deviation",
            lines=tuple(measured_line(runs, group, "responses", "deviation") for group in runs),
        ),
        Chart(
            title="Sorted by size",
            x="layer, the strongest first",
            y="standard deviation",
            lines=tuple(
                line(
                    group,
                    [
                        sorted(measured(run, "responses")["deviation"], reverse=True)
                        for run in found
                    ],
                )
                for group, found in runs.items()
            ),
        ),
    ]


FOUR = networks("plain20", "plain56", "resnet20", "resnet56")

RESPONSES = Study(
    name="responses",
    title="Responses: residual layers answer more softly",
    question="Do the layers of residual networks put out smaller values than those of plain ones?",
    source="He et al. 2015, figure 7",
    theory_title="Why should residual layers be soft?",
    theory=(
        (
            "If the best a block can do is close to copying its input, then y = F(x) + x asks F(x)"
            " to be small, while a plain layer has to make the whole output anew. The response of a"
            " layer is the standard deviation of its output after normalization, before relu and"
            " addition."
        ),
    ),
    scales={
        "quick": digits(FOUR, cost="shares the trainings of degradation"),
        "short": cifar10(FOUR, cost="shares the trainings of degradation"),
        "paper": paper(
            networks("plain20", "plain56", "resnet20", "resnet56", "resnet110"),
            cost="days on 2 cores: use a GPU",
        ),
    },
    findings=findings,
    paper_figures=(),
    paper_data="",
    measurements=("responses",),
    charts=charts,
    about_errors=False,
)
