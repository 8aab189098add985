"""The results of a study: their table, how the recipes differ, and what to try next."""

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from resnetkit.models.summary import count
from resnetkit.models.zoo import Architecture
from resnetkit.report.page import NetworkFacts, link, network_facts
from resnetkit.report.play.selection import SCALE
from resnetkit.report.series import final_values
from resnetkit.studies.phrase import Phrase, phrase, plural_phrase
from resnetkit.studies.study import Outcome, PaperFigure, Study
from resnetkit.training.run_folder import Run, flat

__all__ = [
    "NextStep",
    "Row",
    "RunLink",
    "architecture_of",
    "describe_seeds",
    "differing_keys",
    "next_steps",
    "published",
    "rows",
    "run_links",
]


@dataclass(frozen=True)
class Row:
    """One network in the table of results.

    Attributes:
        group: name of the network.
        parameters: learned values; None when no training of it is finished.
        multiply_adds: for one image; likewise.
        train: final training errors in percent, one per seed.
        test: final test errors in percent, one per seed.
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


@dataclass(frozen=True)
class NextStep:
    """What a reader could try.

    Attributes:
        reason: why, as a sentence.
        command: to type.
        address: of the page that the command has written already; None where it has not.
    """

    reason: Phrase
    command: str
    address: str | None = None


@dataclass(frozen=True)
class RunLink:
    """The measurements of a run.

    Attributes:
        seed: of the run.
        address: of its metrics, relative to the page.
    """

    seed: int
    address: str


def rows(outcome: Outcome) -> list[Row]:
    """Returns the table of results."""
    return [row(group, runs) for group, runs in outcome.runs.items()]


def row(group: str, runs: Sequence[Run]) -> Row:
    """Returns one row of the table of results."""
    networks = (architecture_of(run, facts) for run in runs if (facts := network_facts(run)))
    cost = next((count(*network) for network in networks), None)
    return Row(
        group,
        cost.parameters if cost else None,
        cost.multiply_adds if cost else None,
        final_values(runs, "train"),
        final_values(runs, "test"),
        math.fsum(run.seconds for run in runs) / len(runs) if runs else math.nan,
    )


def architecture_of(run: Run, facts: NetworkFacts) -> tuple[Architecture, int]:
    """Returns the network of a finished run, and the side of its images in pixels."""
    architecture = run.recipe.architecture(
        num_classes=len(facts.class_names), in_channels=facts.in_channels
    )
    return architecture, facts.image_side


def published(study: Study) -> dict[str, list[PaperFigure]]:
    """Returns the published numbers of a study by their source."""
    sources = dict.fromkeys(figure.source for figure in study.paper_figures)
    return {
        source: [figure for figure in study.paper_figures if figure.source == source]
        for source in sources
    }


def describe_seeds(outcome: Outcome) -> Phrase:
    """Returns how often each network was trained, such as 3 seeds each."""
    counts = sorted({len(runs) for runs in outcome.runs.values()}) or [0]
    fewest, most = counts[0], counts[-1]
    if fewest == most:
        return plural_phrase("{number} seed each", "{number} seeds each", most)
    return phrase("{fewest} to {most} seeds each", fewest=fewest, most=most)


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Returns the keys in which the recipes of the runs differ."""
    recipes = [flat(run.recipe.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(chain.from_iterable(recipes))
    return [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]


def run_links(outcome: Outcome) -> dict[str, list[RunLink]]:
    """Returns the links to the metrics of every run, by group."""
    return {
        group: [RunLink(run.recipe.seed, link(run.metrics_path, outcome.folder)) for run in runs]
        for group, runs in outcome.runs.items()
    }


def next_steps(outcome: Outcome) -> list[NextStep]:
    """Returns what a reader could try, and the command for it."""
    name, root = outcome.study.name, shlex.quote(str(outcome.folder.parent))
    other_scales = [
        NextStep(
            phrase("Ask the same question at the scale '{scale}'.", scale=scale),
            f"resnet study {name} --scale {scale} --out {root}",
        )
        for scale in outcome.study.scales
        if scale != outcome.scale
    ]
    runs = list(chain.from_iterable(outcome.runs.values()))
    by_hand = [play_step(outcome)] if outcome.scale == SCALE else []
    return [*by_hand, *other_scales, *(next_trainings(outcome, runs[-1]) if runs else ())]


def play_step(outcome: Outcome) -> NextStep:
    """Returns how to try the networks by hand, with a link where the page lies near the report."""
    root = outcome.folder.parent
    pages = (folder / "play.html" for folder in (outcome.folder, root))
    page = next((page for page in pages if page.is_file()), None)
    return NextStep(
        phrase("Try the networks by hand: switch blocks off, and train one in the browser."),
        f"resnet play --runs {shlex.quote(str(root))} --out {shlex.quote(str(root / 'play.html'))}",
        link(page, outcome.folder) if page else None,
    )


def next_trainings(outcome: Outcome, run: Run) -> Iterator[NextStep]:
    """Yields what a reader could try with the trainings of a study, such as a run."""
    study, recipe = outcome.study, run.recipe
    if "length" not in study.varied(outcome.scale):
        length = f"'length={2 * recipe.length.count} {recipe.length.unit}'"
        root = shlex.quote(f"{outcome.folder.parent}-longer")  # this report stays as it is
        yield NextStep(
            phrase("Train twice as long: does the outcome stay the same?"),
            f"resnet study {study.name} --scale {outcome.scale} --set {length} --out {root}",
        )
    options = recipe.model.options
    in_recipe = "".join(f" --set model.options.{key}={value}" for key, value in options.items())
    in_network = "".join(f" --set {key}={value}" for key, value in options.items())
    yield NextStep(
        phrase(
            "Train one network alone, here {network}, with half the learning rate.",
            network=recipe.model.name,
        ),
        f"resnet train {study.scales[outcome.scale].recipe} --set model.name={recipe.model.name}"
        f"{in_recipe} --set optimizer.lr={recipe.optimizer.lr / 2:g}",
    )
    yield NextStep(
        phrase("See the layers of that network, and what each costs."),
        f"resnet inspect {recipe.model.name}{in_network}",
    )
