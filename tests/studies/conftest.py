"""Studies of a few steps, and runs that were never trained."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from resnetkit.models.zoo import ARCHITECTURES, cifar
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.study import Finding, Sample, Scale, Study, judge_higher, networks
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.run_folder import MODEL_FILES, Run

FOUR_STEPS = """\
optimizer: {lr: 0.02}
schedule: {kind: linear}
length: 4 steps
batch_size: 32
precision: float32
log_every: 1
evaluation: {split: test}
checkpoint: {every: 1 steps}
"""
FEW = "data: {name: few}\n"


def plain_is_worse(runs: dict[str, list[Run]]) -> Sequence[Finding]:
    """Judges one claim: the training error of the plain network is the higher one."""
    plain, residual = (
        Sample(group, tuple(run.final.train.error for run in runs[group] if run.final))
        for group in sorted(runs, key=lambda group: "resnet" in group)[:2]
    )
    return [judge_higher("worse", plain, residual, margin=1, confirmed="yes", not_confirmed="no")]


YAML: dict[str, str] = {}  # by digest; hundreds of runs of a few recipes are written


def yaml_of(recipe: Recipe) -> str:
    """Returns a recipe as YAML, which takes longer to write than all else of a run."""
    if recipe.digest not in YAML:
        YAML[recipe.digest] = recipe.to_yaml()
    return YAML[recipe.digest]


def write_run(folder: Path, recipe: Recipe, *, train: float, test: float) -> Run:
    """Writes a finished run with these final errors."""
    (folder / "model").mkdir(parents=True)
    for name in MODEL_FILES:
        (folder / "model" / name).write_text("{}")
    (folder / "recipe.yaml").write_text(yaml_of(recipe))
    errors = {"train": train, "validation": test, "test": test}
    final: dict[str, Any] = {
        split: {"loss": 1.0, "error": error, "top5_error": 0.0, "count": 100}
        for split, error in errors.items()
    }
    final["test"]["confusion"] = [[10] * 10] * 10
    event = {"event": "final", "step": 4, "reached": False, **final}
    (folder / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    return Run(folder, recipe)


@pytest.fixture(scope="session")
def four_steps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the path of a recipe that takes 0.2 seconds, for this process alone."""
    path = tmp_path_factory.mktemp("recipes") / "four-steps.yaml"
    path.write_text(FOUR_STEPS + FEW)
    return str(path)


@pytest.fixture(scope="session")
def four_steps_on_digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the path of a recipe that other processes can train as well."""
    path = tmp_path_factory.mktemp("recipes") / "four-steps.yaml"
    path.write_text(FOUR_STEPS)
    return str(path)


@pytest.fixture(autouse=True, scope="module")
def _plain8() -> Iterator[None]:
    """Lets this process know the plain counterpart of its network of 8 layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "plain8", cifar(8, shortcut="none"))
        yield


@pytest.fixture(scope="session")
def new_study(four_steps: str) -> Callable[..., Study]:
    """Makes a study of networks with 8 layers at the scale 'tiny'; options replace its own."""

    def build(
        name: str = "tiny",
        *,
        groups: tuple[str, ...] = ("plain8", "resnet8"),
        seeds: int = 3,
        recipe: str = four_steps,
        findings: Callable[[dict[str, list[Run]]], Sequence[Finding]] = plain_is_worse,
    ) -> Study:
        return Study(
            name=name,
            title="Tiny",
            question="Is it worse?",
            source="none",
            theory_title="Why?",
            theory=("Because.",),
            scales={
                "tiny": Scale(recipe, networks(*groups), seeds, "seconds", ""),
                "none": Scale(recipe, {}, 0, "", ""),
            },
            findings=findings,
            paper_figures=(),
            paper_data="none",
        )

    return build


@pytest.fixture(scope="session")
def written_run() -> Callable[..., Run]:
    """Returns `write_run`."""
    return write_run


@pytest.fixture
def degradation_runs(tmp_path: Path) -> Callable[..., dict[str, list[Run]]]:
    """Makes finished runs of networks from their errors in percent: {group: (train, test)}.

    Each seed adds its own 0.1 to both, so that there is a spread.
    """

    def build(errors: dict[str, tuple[float, float]], *, seeds: int = 3) -> dict[str, list[Run]]:
        return {
            group: [
                write_run(
                    tmp_path / f"{group}-{seed}",
                    load_recipe(
                        DEGRADATION.scales["quick"].recipe, {"model.name": group, "seed": seed}
                    ),
                    train=train + seed / 10,
                    test=test + seed / 10,
                )
                for seed in range(seeds)
            ]
            for group, (train, test) in errors.items()
        }

    return build
