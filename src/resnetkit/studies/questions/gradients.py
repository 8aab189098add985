"""Where do gradients vanish or explode before training, and is that why plain networks degrade?"""

from typing import Any

from resnetkit.studies.chart import Chart
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import (
    Runs,
    error_sample,
    limit,
    line_along,
    measured_line,
    measured_sample,
)
from resnetkit.studies.study import Finding, Sample, Study, judge_higher, judge_not_higher

__all__ = ["GRADIENTS"]

INITIALIZATIONS = {"normal": "deviation 0.01", "xavier": "Xavier", "he": "He"}
NORMS = {"none": "without BN", "batch": "with BN"}
SLOPE_MARGIN = 0.05  # of log10 a layer: a factor of 560 over 55 layers
HEALTHY = 0.05
NEARLY_CHANCE = 85.0  # percent of wrong answers


def group(network: str, norm: str, initialization: str) -> str:
    """Returns the name of a group."""
    return f"{network} {NORMS[norm]}, {INITIALIZATIONS[initialization]}"


def variants(*depths: int, length: str) -> dict[str, dict[str, Any]]:
    """Returns plain and residual networks with and without normalization, from all weights.

    Those with normalization and He's weights are trained as in the study of degradation, the others
    only for `length`: whether training starts shows soon.
    """
    found = {}
    for family in ("plain", "resnet"):
        for depth in depths:
            name = f"{family}{depth}"
            for norm in NORMS:
                for initialization in INITIALIZATIONS:
                    options = {"norm": norm, "initialization": initialization}
                    usual = options == {"norm": "batch", "initialization": "he"}
                    short = {"model.options": options, "length": length}
                    key = group(name, norm, initialization)
                    found[key] = {"model.name": name, **({} if usual else short)}
    return found


def slope(runs: Runs, norm: str, initialization: str, *, network: str) -> Sample:
    """Returns how fast gradients shrink on their way back to the input."""
    name = group(network, norm, initialization)
    return measured_sample(runs, name, "gradients", "slope", "slope of {group}")


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims from the gradients before training and from what training made of them."""
    shallow, deep = depths(runs)
    small, xavier, he = (
        slope(runs, "none", each, network=f"plain{deep}") for each in INITIALIZATIONS
    )
    normalized = slope(runs, "batch", "he", network=f"plain{deep}")
    untrained = error_sample(runs, group(f"plain{deep}", "none", "normal"), "train")
    return [
        judge_higher(
            phrase(
                "Without normalization, small random weights let the gradient vanish on its way"
                " back through {deep} layers.",
                deep=deep,
            ),
            small,
            he,
            margin=SLOPE_MARGIN,
            confirmed=(
                "Each layer multiplies the gradient by less than one, so it shrinks exponentially"
                " with depth. The slope is the power of ten lost in each layer."
            ),
            not_confirmed="Here the gradient did not shrink faster than from He's weights.",
        ),
        judge_higher(
            phrase(
                "Without normalization, Xavier's weights lose more of the gradient in {deep} layers"
                " than He's.",
                deep=deep,
            ),
            xavier,
            he,
            margin=SLOPE_MARGIN,
            confirmed=(
                "Xavier's variance is right for layers without relu. Relu sets half of the values"
                " to zero; He's variance is twice as large and makes up for it."
            ),
            not_confirmed="Here the two initializations kept about as much of the gradient.",
        ),
        judge_not_higher(
            phrase(
                "With batch normalization the gradient of the plain network of {deep} layers does"
                " not vanish.",
                deep=deep,
            ),
            normalized,
            limit("slope of a healthy gradient", HEALTHY, normalized),
            margin=0.0,
            confirmed=(
                "Normalization sets the scale anew in every layer, and the gradient arrives; it may"
                " even grow on its way back. So vanishing gradients are not what ruins this"
                " network."
            ),
            not_confirmed="Here the gradient shrank by more than the limit in spite of it.",
        ),
        judge_higher(
            phrase(
                "The plain network of {deep} layers degrades all the same: its training error is"
                " higher than that of {shallow} layers.",
                deep=deep,
                shallow=shallow,
            ),
            error_sample(runs, group(f"plain{deep}", "batch", "he"), "train"),
            error_sample(runs, group(f"plain{shallow}", "batch", "he"), "train"),
            margin=1.0,
            confirmed=(
                "Its gradients arrive, and still it learns worse than the shallower one:"
                " degradation is another problem than vanishing gradients, and shortcuts are made"
                " for it."
            ),
            not_confirmed="At this scale the deeper network could be trained about as well.",
        ),
        judge_higher(
            phrase(
                "Where the gradient vanishes, training does not start: without normalization and"
                " from small weights the plain network of {deep} layers learns nothing.",
                deep=deep,
            ),
            untrained,
            limit("nearly as wrong as guessing", NEARLY_CHANCE, untrained),
            margin=0.0,
            confirmed="Its error stays near that of guessing one of ten classes, 90 %.",
            not_confirmed="Here it learned something all the same.",
        ),
    ]


def depths(runs: Runs) -> tuple[int, int]:
    """Returns the smallest and the largest depth among the plain networks."""
    found = sorted(
        int(name.split()[0].removeprefix("plain")) for name in runs if name.startswith("plain")
    )
    return found[0], found[-1]


def charts(runs: Runs) -> list[Chart]:
    """Returns the gradient at every layer of the deepest networks, before training."""
    _, deep = depths(runs)
    return [
        Chart(
            title=phrase(f"{family}-{{deep}} {NORMS[norm]}", deep=deep),
            x="layer, from the input",
            y="norm of the gradient",
            lines=tuple(
                measured_line(
                    runs, group(f"{family}{deep}", norm, each), "gradients", "input", label=words
                )
                for each, words in INITIALIZATIONS.items()
            ),
            logarithmic=True,
        )
        for family in ("plain", "resnet")
        for norm in NORMS
    ] + [slopes_along(runs)]


def slopes_along(runs: Runs) -> Chart:
    """Returns how steeply the gradient falls or grows along training, where training goes well."""
    shallow, deep = depths(runs)
    networks = [f"{family}{depth}" for family in ("plain", "resnet") for depth in (shallow, deep)]
    return Chart(
        title="Slope of the gradient, along training",
        x="step",
        y="powers of ten a layer",
        lines=tuple(
            line_along(runs, group(name, "batch", "he"), "gradients", "slope along", label=name)
            for name in networks
        ),
    )


GRADIENTS = Study(
    name="gradients",
    title="Gradients: they vanish without normalization, and degradation is something else",
    question=(
        "Where do gradients vanish or explode before training, does training start, and is that"
        " why plain networks degrade?"
    ),
    source="He et al. 2015, sec. 1 and 4.1; Glorot and Bengio 2010; He et al. 2015 (ICCV)",
    theory_title="What happens to a gradient on its way back?",
    theory=(
        (
            "On its way back the gradient is multiplied by the weights of every layer. When each"
            " product makes it a little smaller it vanishes exponentially with depth, and when each"
            " makes it larger it explodes. Initial weights can be scaled so that sizes are kept on"
            " average (Xavier; with relu, He), and batch normalization sets the scale anew in every"
            " layer."
        ),
        (
            "A shortcut adds a second way: the gradient of y = F(x) + x reaches x unchanged, plus"
            " what comes through F(x)."
        ),
    ),
    scales={
        "quick": digits(
            variants(20, 56, length="3 epochs"),
            cost="roughly 100 seconds more than degradation (estimate)",
        ),
        "short": cifar10(
            variants(20, 56, length="1 epochs"), cost="about 5 hours on 2 cores (estimate)"
        ),
        "paper": paper(
            variants(20, 56, 110, length="64000 steps"), cost="weeks on 2 cores: use a GPU"
        ),
    },
    findings=findings,
    paper_figures=(),
    paper_data="",
    measurements=("gradients",),
    charts=charts,
    about_errors=False,
    divergence_counts=True,
)
