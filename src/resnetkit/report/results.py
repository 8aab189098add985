"""What the runs of a study add up to: the table of results, their recipe, and what to do next."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from resnetkit.models.complexity import trace
from resnetkit.report.page import link, model_facts
from resnetkit.report.series import final_values
from resnetkit.studies.study import Outcome
from resnetkit.training.run import Run, flat

__all__ = ["Row", "differing_keys", "next_steps", "rows", "run_links", "seeds_in_words"]


@dataclass(frozen=True)
class Row:
    """One network in the table of results.

    Attributes:
        group: name of the network.
        parameters: learned values; None when no training of it is finished.
        train: final training errors in percent, one a seed.
        test: final test errors in percent, one a seed.
        seconds: of one training, the mean over seeds.
    """

    group: str
    parameters: int | None
    train: tuple[float, ...]
    test: tuple[float, ...]
    seconds: float

    @property
    def count(self) -> int:
        """Returns the number of finished trainings."""
        return max(len(self.train), len(self.test))


def rows(outcome: Outcome) -> list[Row]:
    """Returns the table of results."""
    return [
        Row(
            group,
            next((parameters(run) for run in runs if model_facts(run)), None),
            final_values(runs, "train"),
            final_values(runs, "test"),
            math.fsum(run.seconds for run in runs) / len(runs) if runs else math.nan,
        )
        for group, runs in outcome.runs.items()
    ]


def parameters(run: Run) -> int:
    """Returns the number of learned values of a finished network."""
    facts = model_facts(run)
    size = int(facts["image_size"][0])
    architecture = run.recipe.architecture(
        num_classes=len(facts["class_names"]),
        in_channels=int(facts["layers"]["in_channels"]),
        input_size=size,
    )
    return trace(architecture, size).parameters


def seeds_in_words(outcome: Outcome) -> str:
    """Returns how often each network was trained, such as 3 seeds."""
    counts = sorted({len(runs) for runs in outcome.runs.values()}) or [0]
    spelled = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{spelled} seed" + ("" if counts[-1] == 1 else "s")


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
    name = outcome.study.name
    scales = [scale for scale in outcome.study.scales if scale != outcome.scale]
    larger = [
        (f"Ask the same question at the scale '{scale}'.", f"resnet study {name} --scale {scale}")
        for scale in scales
    ]
    deepest = list(outcome.runs)[-1:]
    alone = [
        (f"Train one of the networks yourself, here {group}.", f"resnet train digits --set model.name={group}")
        for group in deepest
    ]
    return [
        *larger,
        (
            "Train longer: does the plain network catch up?",
            f"resnet study {name} --scale {outcome.scale} --set length='24 epochs'",
        ),
        *alone,
    ]
