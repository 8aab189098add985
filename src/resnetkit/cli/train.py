"""resnet train: one recipe, one run folder; resnet recipes: the named recipes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Changes, Device, Json, Variant
from resnetkit.cli.output import bar, print_json, remark, say
from resnetkit.cli.recipe_choice import (
    Data,
    Threads,
    Weights,
    auto_request,
    checked_threads,
    new_recipe,
    recipe_values,
    remark_on_recipe,
)
from resnetkit.cli.training_output import TrainingProgress, show_estimate, show_result

if TYPE_CHECKING:
    from resnetkit.runtime.process_group import World
    from resnetkit.training.recipe import Recipe

__all__ = ["recipes", "train"]

MicroBatch = Annotated[
    int,
    Parameter(help="Images at a time, to save memory; gradients are accumulated over the batch."),
]
Minutes = Annotated[
    float | None,
    Parameter(
        help="Your images: about how long the training may take on this machine; 10 by default."
    ),
]
DryRun = Annotated[
    bool,
    Parameter(negative=(), help="Build everything, take one step, and estimate time and memory."),
]


def train(
    recipe: str | None = None,
    *,
    data: Data = None,
    weights: Weights = None,
    variant: Variant = None,
    micro_batch: MicroBatch = 0,
    minutes: Minutes = None,
    out: Annotated[
        Path | None, Parameter(help="Run folder; named after the recipe by default.")
    ] = None,
    changes: Changes = (),
    device: Device = "auto",
    threads: Threads = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a network, or resume an interrupted training.

    Args:
        recipe: A named recipe ('resnet recipes' lists them; 'resnet recipes NAME' shows the keys
            that --set replaces) or a YAML file; digits by default. For your images it is
            finetune, adapted to them; the choices are printed.
    """
    from resnetkit.runtime.process_group import open_world
    from resnetkit.training.loop import train as train_recipe

    values = recipe_values(changes, data, weights, variant, micro_batch)
    request = auto_request(recipe, changes, data, weights, variant, micro_batch, minutes)
    folder = out or (Path("runs") / request.folder_name if request else None)
    with open_world(device) as world:  # the one that chooses is the one that trains
        threads = checked_threads(threads, world)
        if folder and request and (folder / "recipe.yaml").is_file():
            chosen, plan = begun_recipe(folder, values, world), None
        else:
            chosen, plan = new_recipe(recipe, values, request, world, threads=threads)
        if world.is_main:  # only the first of torchrun's processes prints
            remark_on_recipe(chosen)
        if dry_run:
            show_estimate(chosen, world, device=device, threads=threads, json=json)
            return
        folder = folder or Path("runs") / f"{chosen.name}-{chosen.digest[:8]}"
        with bar(chosen.name, hidden=not world.is_main) as progress:
            reporter = TrainingProgress(progress, plan)
            run = train_recipe(chosen, folder, device=device, threads=threads, observe=reporter)
    if world.is_main:
        if not reporter.total_steps:
            remark(
                f"the run in {folder} is already finished; nothing was trained. --out trains"
                " another in a folder of your choice."
            )
        show_result(run, json=json)


def begun_recipe(folder: Path, values: dict[str, object], world: "World") -> "Recipe":
    """Returns the recipe that was chosen when the run in a folder began."""
    from resnetkit.training.recipe import load_recipe

    if world.is_main:
        remark(
            f"resuming with the recipe in {folder}; nothing is timed again, and --minutes does not"
            " change it"
        )
    return load_recipe(str(folder / "recipe.yaml"), values)


def recipes(name: str | None = None, /, *, json: Json = False) -> None:
    """List the named recipes, or print one.

    Args:
        name: A recipe; all are listed with their first line without it.
    """
    from resnetkit.training.recipe import load_recipe, named_recipes, recipe_text

    if name:
        (
            print_json(load_recipe(name).model_dump(mode="json"))
            if json
            else say(recipe_text(name), end="")
        )
        return
    listed = {
        recipe: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for recipe, path in named_recipes().items()
    }
    if json:
        print_json(listed)
        return
    width = max(map(len, listed))
    for recipe, headline in listed.items():
        say(f"{recipe:{width}} {headline}")
