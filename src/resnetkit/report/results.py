"""What the runs of a study add up to: the table of results, their recipe, and what to do next."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from resnetkit.models.summary import trace
from resnetkit.models.zoo import Architecture
from resnetkit.report.page import link, model_facts
from resnetkit.report.series import final_values
from resnetkit.studies.phrase import Phrase, phrase, plural_phrase
from resnetkit.studies.study import Outcome, PaperFigure, Study
from resnetkit.training.run_folder import Run, flat

__all__ = [
    "Row",
    "differing_keys",
    "next_steps",
    "published",
    "rows",
    "run_links",
    "seeds_in_words",
    "trained_network",
]


@dataclass(frozen=True)
class Row:
    """One network in the table of results.

    Attributes:
        group: name of the network.
        parameters: learned values; None when no training of it is finished.
        multiply_adds: for one image; likewise.
        train: final training errors in percent, one a seed.
        test: final test errors in percent, one a seed.
        seconds: of one training, the mean over seeds.
    """

    group: str
    parameters: int | None
    multiply_adds: int | None
    train: tuple[float, ...]
    test: tuple[float, ...]
    seconds: float

    @property
    def count(self) -> int:
        """Returns the number of finished trainings."""
        return max(len(self.train), len(self.test))


def rows(outcome: Outcome) -> list[Row]:
    """Returns the table of results."""
    return [row(group, runs) for group, runs in outcome.runs.items()]


def row(group: str, runs: Sequence[Run]) -> Row:
    """Returns one line of the table of results."""
    cost = next((trace(*trained_network(run)) for run in runs if model_facts(run)), None)
    return Row(
        group,
        cost.parameters if cost else None,
        cost.multiply_adds if cost else None,
        final_values(runs, "train"),
        final_values(runs, "test"),
        math.fsum(run.seconds for run in runs) / len(runs) if runs else math.nan,
    )


def trained_network(run: Run) -> tuple[Architecture, int]:
    """Returns the network of a finished run, and the side of its images in pixels."""
    facts = model_facts(run)
    architecture = run.recipe.architecture(
        num_classes=len(facts["class_names"]), in_channels=int(facts["layers"]["in_channels"])
    )
    return architecture, min(facts["image_size"])


def published(study: Study) -> dict[str, list[PaperFigure]]:
    """Returns the published numbers of a study by their source."""
    sources = dict.fromkeys(figure.source for figure in study.paper_figures)
    return {
        source: [figure for figure in study.paper_figures if figure.source == source]
        for source in sources
    }


def seeds_in_words(outcome: Outcome) -> Phrase:
    """Returns how often each network was trained, such as 3 seeds each."""
    counts = sorted({len(runs) for runs in outcome.runs.values()}) or [0]
    spelled = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return plural_phrase("{number} seed each", "{number} seeds each", counts[-1], number=spelled)


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Returns the keys in which the recipes of the runs differ."""
    recipes = [flat(run.recipe.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(chain.from_iterable(recipes))
    return [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]


def run_links(outcome: Outcome) -> dict[str, list[tuple[int, str]]]:
    """Returns seed and address of the metrics of each run, by group."""
    return {
        group: [(run.recipe.seed, link(run.metrics_path, outcome.folder)) for run in runs]
        for group, runs in outcome.runs.items()
    }


def next_steps(outcome: Outcome) -> list[tuple[str, str]]:
    """Returns what a reader could try, and the command for it."""
    name, scale = outcome.study.name, outcome.study.scales[outcome.scale]
    others = [other for other in outcome.study.scales if other != outcome.scale]
    steps: list[tuple[str, str]] = [
        (
            phrase("Ask the same question at the scale '{scale}'.", scale=other),
            f"resnet study {name} --scale {other}",
        )
        for other in others
    ]
    longer_makes_sense = "length" not in outcome.study.varied(outcome.scale)
    for run in list(chain.from_iterable(outcome.runs.values()))[-1:]:
        length, network = run.recipe.length, run.recipe.model.name
        lr = run.recipe.optimizer.lr / 2
        longer = f"'length={2 * length.count} {length.unit}'"
        if longer_makes_sense:
            steps.append(
                (
                    "Train twice as long: does the outcome stay the same?",
                    f"resnet study {name} --scale {outcome.scale} --set {longer}",
                )
            )
        options = "".join(
            f" --set model.options.{key}={value}" for key, value in run.recipe.model.options.items()
        )
        steps += [
            (
                phrase(
                    "Train one network alone, here {network}, with half the learning rate.",
                    network=network,
                ),
                f"resnet train {scale.recipe} --set model.name={network}{options}"
                f" --set optimizer.lr={lr:g}",
            ),
            ("See the layers of that network, and what each costs.", f"resnet inspect {network}"),
        ]
    return steps
