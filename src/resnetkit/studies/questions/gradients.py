"""Where do gradients vanish or explode before training, and is that why plain networks degrade?"""

from resnetkit.studies.chart import Chart
from resnetkit.studies.phrase import phrase
from resnetkit.studies.presets import cifar10, digits, paper
from resnetkit.studies.statistics import (
    CHANCE,
    ERROR_MARGIN,
    Runs,
    error_sample,
    limit,
    line_along,
    measured_line,
    measured_sample,
)
from resnetkit.studies.study import (
    CLOSE_TO_CHANCE,
    Changes,
    Finding,
    Groups,
    Sample,
    Study,
    judge_higher,
    judge_not_higher,
)

__all__ = ["GRADIENTS"]

INITIALIZATIONS = {"normal": phrase("deviation 0.01"), "xavier": "Xavier", "he": "He"}
NORMS = {"none": "without BN", "batch": "with BN"}
SLOPE_MARGIN = 0.05  # of log10 per layer: a factor of 560 over 55 layers
HEALTHY = 0.05
NEARLY_CHANCE = CHANCE - CLOSE_TO_CHANCE  # percent of wrong answers


def group(network: str, norm: str, initialization: str) -> str:
    """Returns the name of a group."""
    return f"{network} {NORMS[norm]}, {INITIALIZATIONS[initialization]}"


def variants(*depths: int, length: str) -> Groups:
    """Returns plain and residual networks, with and without normalization, from all weights.

    Those with normalization and He's weights are trained as in the study of degradation, the others
    only for `length`: whether training starts shows soon.
    """
    groups: Groups = {}
    for name in [f"{family}{depth}" for family in ("plain", "resnet") for depth in depths]:
        for norm in NORMS:
            for initialization in INITIALIZATIONS:
                changes: Changes = {"model.name": name}
                if (norm, initialization) != ("batch", "he"):
                    changes["model.options"] = {"norm": norm, "initialization": initialization}
                    changes["length"] = length
                groups[group(name, norm, initialization)] = changes
    return groups


def slope(runs: Runs, depth: int, norm: str, initialization: str) -> Sample:
    """Returns the slope of the gradients of a plain network: positive where they shrink."""
    name = group(f"plain{depth}", norm, initialization)
    label = phrase("gradient slope of {group}", group=name)
    return measured_sample(runs, name, "gradients", "slope", label)


def findings(runs: Runs) -> list[Finding]:
    """Judges the claims from the gradients before training and from the final errors."""
    shallow, deep = depths(runs)
    return [
        small_weights_vanish(runs, deep),
        xavier_loses_more(runs, deep),
        normalized_does_not_vanish(runs, deep),
        normalized_degrades(runs, shallow, deep),
        vanishing_learns_nothing(runs, deep),
    ]


def small_weights_vanish(runs: Runs, deep: int) -> Finding:
    """Judges: without normalization, small weights lose more of the gradient than He's."""
    return judge_higher(
        phrase(
            "Without normalization, small random weights let the gradient vanish on its way back"
            " through {deep} layers.",
            deep=deep,
        ),
        slope(runs, deep, "none", "normal"),
        slope(runs, deep, "none", "he"),
        margin=SLOPE_MARGIN,
        confirmed=phrase(
            "Each layer multiplies the gradient by less than one, so it shrinks exponentially with"
            " depth. The slope is the power of ten lost in each layer."
        ),
        not_confirmed=phrase("Here the gradient did not shrink faster than with He's weights."),
    )


def xavier_loses_more(runs: Runs, deep: int) -> Finding:
    """Judges: without normalization, Xavier's weights lose more of the gradient than He's."""
    return judge_higher(
        phrase(
            "Without normalization, Xavier's weights lose more of the gradient in {deep} layers"
            " than He's.",
            deep=deep,
        ),
        slope(runs, deep, "none", "xavier"),
        slope(runs, deep, "none", "he"),
        margin=SLOPE_MARGIN,
        confirmed=phrase(
            "Xavier's variance is right for layers without ReLU. ReLU sets half of the values to"
            " zero; He's variance is twice as large and makes up for it."
        ),
        not_confirmed=phrase("Here both initializations kept about as much of the gradient."),
    )


def normalized_does_not_vanish(runs: Runs, deep: int) -> Finding:
    """Judges: with batch normalization, the gradient of the plain network does not vanish."""
    normalized = slope(runs, deep, "batch", "he")
    return judge_not_higher(
        phrase(
            "With batch normalization the gradient of the plain network of {deep} layers does not"
            " vanish.",
            deep=deep,
        ),
        normalized,
        limit(phrase("limit for a healthy gradient"), HEALTHY, normalized),
        margin=0.0,
        confirmed=phrase(
            "Normalization resets the scale in every layer, so the gradient reaches the first"
            " layers; it may even grow on the way. Vanishing gradients are therefore not what ruins"
            " this network."
        ),
        not_confirmed=phrase(
            "Here the gradient shrank by more than the limit, despite normalization."
        ),
    )


def normalized_degrades(runs: Runs, shallow: int, deep: int) -> Finding:
    """Judges: with batch normalization, the deeper plain network has the higher training error."""
    return judge_higher(
        phrase(
            "The plain network of {deep} layers degrades all the same: its training error is higher"
            " than that of {shallow} layers.",
            deep=deep,
            shallow=shallow,
        ),
        error_sample(runs, group(f"plain{deep}", "batch", "he"), "train"),
        error_sample(runs, group(f"plain{shallow}", "batch", "he"), "train"),
        margin=ERROR_MARGIN,
        confirmed=phrase(
            "Its gradients reach the first layers, and yet it learns worse than the shallower"
            " network: degradation is a different problem from vanishing gradients, and it is the"
            " one that shortcuts solve."
        ),
        not_confirmed=phrase("At this scale the deeper network was trained about as well."),
    )


def vanishing_learns_nothing(runs: Runs, deep: int) -> Finding:
    """Judges: without normalization and from small weights, training does not start."""
    untrained = error_sample(runs, group(f"plain{deep}", "none", "normal"), "train")
    return judge_higher(
        phrase(
            "Without normalization and from small weights, training does not start: the plain"
            " network of {deep} layers learns nothing.",
            deep=deep,
        ),
        untrained,
        limit(phrase("limit close to guessing"), NEARLY_CHANCE, untrained),
        margin=0.0,
        confirmed=phrase(
            "Its error stays near that of guessing one of ten classes, 90 %. The gradient that"
            " vanishes is one reason; whether a larger learning rate could make up for it was not"
            " tried."
        ),
        not_confirmed=phrase("Here it learned something nevertheless."),
    )


def depths(runs: Runs) -> tuple[int, int]:
    """Returns the smallest and the largest depth among the plain networks."""
    networks = [name.split()[0] for name in runs if name.startswith("plain")]
    plain = sorted(int(network.removeprefix("plain")) for network in networks)
    return plain[0], plain[-1]


def charts(runs: Runs) -> list[Chart]:
    """Returns the gradient at every layer of the deepest networks, and its slope in training."""
    _, deep = depths(runs)
    before_training = [
        layer_chart(runs, family, deep, norm) for family in ("plain", "resnet") for norm in NORMS
    ]
    return [*before_training, slope_chart(runs)]


def layer_chart(runs: Runs, family: str, depth: int, norm: str) -> Chart:
    """Returns the gradient at every layer of a network before training."""
    name = f"{family}-{depth}"
    titles = {
        "none": phrase("{network} without BN", network=name),
        "batch": phrase("{network} with BN", network=name),
    }
    return Chart(
        title=titles[norm],
        x=phrase("layer, from the input"),
        y=phrase("norm of the gradient"),
        lines=tuple(
            measured_line(
                runs,
                group(f"{family}{depth}", norm, initialization),
                "gradients",
                "input",
                label=label,
            )
            for initialization, label in INITIALIZATIONS.items()
        ),
        logarithmic=True,
    )


def slope_chart(runs: Runs) -> Chart:
    """Returns the slope of the gradient during training, for networks that train well."""
    networks = [f"{family}{depth}" for family in ("plain", "resnet") for depth in depths(runs)]
    return Chart(
        title=phrase("Slope of the gradient, during training"),
        x=phrase("step"),
        y=phrase("powers of ten per layer"),
        lines=tuple(
            line_along(runs, group(name, "batch", "he"), "gradients", "slope along", label=name)
            for name in networks
        ),
    )


GRADIENTS = Study(
    name="gradients",
    title=phrase("Gradients: they vanish without normalization, but degradation is something else"),
    question=phrase(
        "Where do gradients vanish or explode before training, does training start, and is that"
        " why plain networks degrade?"
    ),
    source="He et al. 2015, sec. 1 and 4.1; Glorot and Bengio 2010; He et al. 2015 (ICCV)",
    theory_title=phrase("What happens to a gradient on its way back?"),
    theory=(
        phrase(
            "On its way back the gradient is multiplied by the weights of every layer. When each"
            " product makes it a little smaller, it vanishes exponentially with depth; when each"
            " makes it larger, it explodes. Initial weights can be scaled so that the size is kept"
            " on average (Xavier; with ReLU, He), and batch normalization resets the scale in every"
            " layer."
        ),
        phrase(
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
    measurements=("gradients",),
    charts=charts,
    about_errors=False,
    divergence_counts=True,
)
