"""Are the responses of residual layers smaller than those of plain layers (figure 7)?"""

from resnetkit.studies.chart import Chart, Line, line
from resnetkit.studies.measurements import measured
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper, warmed_up
from resnetkit.studies.statistics import Runs, by_depth, measured_line, measured_sample
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, networks

__all__ = ["RESPONSES"]

MARGIN = 0.02  # of the deviation of normalized outputs, which starts at 1
HARDLY_DIFFERENT = phrase(
    "At this scale the responses hardly differ: normalization starts them all at one, and its scale"
    " needs many steps to move away from there."
)


def response(runs: Runs, group: str) -> Sample:
    """Returns the mean response of a group's layers, one per training."""
    label = phrase("mean response of {group}", group=group)
    return measured_sample(runs, group, "responses", "mean", label)


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims of the paper's figure 7."""
    plain, residual = by_depth(runs, "plain"), by_depth(runs, "resnet")
    return [
        judge_higher(
            phrase(
                "The layers of the residual network ({residual}) respond less strongly than those"
                " of its plain counterpart ({plain}).",
                residual=residual[-1],
                plain=plain[-1],
            ),
            response(runs, plain[-1]),
            response(runs, residual[-1]),
            margin=MARGIN,
            confirmed=phrase(
                "A residual block only adds to what its shortcut carries, so small outputs suffice:"
                " F(x) is closer to zero than the output of a plain layer."
            ),
            not_confirmed=HARDLY_DIFFERENT,
        ),
        judge_higher(
            phrase(
                "The deeper the residual network, the less each layer changes: responses in"
                " {deep} are smaller than in {shallow}.",
                deep=residual[-1],
                shallow=residual[0],
            ),
            response(runs, residual[0]),
            response(runs, residual[-1]),
            margin=MARGIN,
            confirmed=phrase("More layers share the work, so each has less to do."),
            not_confirmed=HARDLY_DIFFERENT,
        ),
    ]


def charts(runs: Runs) -> list[Chart]:
    """Returns figure 7: responses in the order of the layers, and sorted by size."""
    return [
        Chart(
            title=phrase("In the order of the layers"),
            x=phrase("layer, from the input"),
            y=phrase("standard deviation"),
            lines=tuple(measured_line(runs, group, "responses", "deviation") for group in runs),
        ),
        Chart(
            title=phrase("Sorted by size"),
            x=phrase("layer, the strongest first"),
            y=phrase("standard deviation"),
            lines=tuple(sorted_line(runs, group) for group in runs),
        ),
    ]


def sorted_line(runs: Runs, group: str) -> Line:
    """Returns the responses of a group's layers, the strongest first."""
    seeds = [measured(run, "responses")["deviation"] for run in runs[group]]
    return line(group, [sorted(deviations, reverse=True) for deviations in seeds])


FOUR = networks("plain20", "plain56", "resnet20", "resnet56")

RESPONSES = Study(
    name="responses",
    title=phrase("Responses: residual layers respond less strongly"),
    question=phrase(
        "Do the layers of residual networks have smaller responses than those of plain networks?"
    ),
    source="He et al. 2015, figure 7",
    theory_title=phrase("Why should residual responses be small?"),
    theory=(
        phrase(
            "If the best a block can do is close to copying its input, then y = F(x) + x asks F(x)"
            " to be small, while a plain layer has to produce the whole output itself. The response"
            " of a layer is the standard deviation of its output after normalization, before ReLU"
            " and addition."
        ),
    ),
    scales={
        "quick": digits(FOUR, cost="shares the trainings of degradation"),
        "short": cifar10(FOUR, cost="shares the trainings of degradation"),
        "paper": paper({**FOUR, **warmed_up("resnet110")}, cost="days on 2 cores: use a GPU"),
    },
    findings=findings,
    measurements=("responses",),
    charts=charts,
    about_errors=False,
)
