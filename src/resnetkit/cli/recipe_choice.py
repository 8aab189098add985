"""The recipe that the options of a command choose."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import parse_changes
from resnetkit.cli.output import remark, remark_on_data

if TYPE_CHECKING:
    from resnetkit.runtime.process_group import World
    from resnetkit.training.auto_recipe import AutoRequest
    from resnetkit.training.recipe import Recipe
    from resnetkit.training.time_budget import Plan

__all__ = [
    "Data",
    "Threads",
    "Weights",
    "auto_request",
    "checked_threads",
    "new_recipe",
    "recipe_values",
    "remark_on_classes",
    "remark_on_recipe",
]

MOST_THREADS = 1024
MOST_MINUTES = 30 * 24 * 60

Data = Annotated[
    str | None,
    Parameter(
        help="Another data set of 'resnet data list', or your images, as for 'resnet data check'."
    ),
]
Weights = Annotated[
    str | None, Parameter(help="Start from the weights of a run folder or file; the head is new.")
]
Threads = Annotated[int, Parameter(help="CPU threads; by default chosen by the cost of a step.")]


def recipe_values(
    changes: tuple[str, ...],
    data: str | None,
    weights: str | None,
    variant: str | None,
    micro_batch: int,
) -> dict[str, object]:
    """Returns the values of a recipe that a command gives by options, by dotted key."""
    options = {
        "data.name": data,
        "model.weights": weights,
        "model.variant": variant,
        "micro_batch": micro_batch,
    }
    named = {key: value for key, value in options.items() if value}
    return {**named, **parse_changes(changes)}


def auto_request(
    recipe: str | None,
    changes: tuple[str, ...],
    data: str | None,
    weights: str | None,
    variant: str | None,
    micro_batch: int,
    minutes: float | None,
) -> "AutoRequest | None":
    """Returns what is to be chosen for custom images; None for a recipe of another kind.

    Raises:
        UsageError: when minutes are given that cannot be, or where nothing is chosen.
    """
    from resnetkit.data.datasets import custom_path
    from resnetkit.errors import UsageError
    from resnetkit.training.auto_recipe import DEFAULT_MINUTES, AutoRequest

    if minutes is not None and not 0 < minutes <= MOST_MINUTES:
        raise UsageError(
            f"--minutes {minutes:g}: expected a number above 0, up to {MOST_MINUTES:,}, such as"
            " --minutes 10."
        )
    custom_images = custom_path(data)
    if recipe in (None, "finetune") and custom_images is not None:
        return AutoRequest(
            data=custom_images,
            minutes=DEFAULT_MINUTES if minutes is None else minutes,
            weights=weights,
            variant=variant,
            micro_batch=micro_batch,
            changes=parse_changes(changes),
        )
    if minutes is not None:
        raise UsageError(
            "--minutes chooses a recipe for your images: give their folder with --data, and no"
            " other recipe. In a recipe, --set length=N epochs sets the length, and --dry-run"
            " estimates the time."
        )
    return None


def new_recipe(
    recipe: str | None,
    values: dict[str, object],
    request: "AutoRequest | None",
    world: "World",
    *,
    threads: int,
) -> "tuple[Recipe, Plan | None]":
    """Returns the recipe of a command, and the plan if it was chosen for custom images."""
    from resnetkit.training.recipe import load_recipe

    if request is None:
        return load_recipe(recipe or "digits", values), None
    return timed_recipe(request, world, threads=threads)


def timed_recipe(request: "AutoRequest", world: "World", *, threads: int) -> "tuple[Recipe, Plan]":
    """Returns the recipe chosen for custom images, and reports the choice."""
    from resnetkit.training.auto_recipe import auto_recipe
    from resnetkit.training.timings import MachineTimings

    choice = auto_recipe(
        request,
        MachineTimings(world, threads),
        ranks=world.size,
        overlaps=world.device.type == "cuda",
    )
    if world.is_main:
        remark(choice.in_words())
    return choice.recipe, choice.plan


def remark_on_recipe(chosen: "Recipe") -> None:
    """Reports what a user of a recipe should know."""
    remark_on_data(chosen.data.name)
    if chosen.micro_batch:
        remark(
            f"micro-batches of {chosen.micro_batch}: gradients are accumulated over a batch, but"
            " batch normalization sees one micro-batch; from 16 images or so this does little harm"
        )


def remark_on_classes(recipe: "Recipe") -> None:
    """Reports the classes of a recipe on custom images, as a training does when it starts."""
    from resnetkit.data.datasets import custom_path
    from resnetkit.data.images.folder import read_images
    from resnetkit.data.images.listing import describe_classes

    path = custom_path(recipe.data.name)
    if path is not None:
        remark(describe_classes(read_images(path).class_names))


def checked_threads(threads: int, world: "World") -> int:
    """Returns a number of threads that this process can use; the main rank says if that is less.

    Raises:
        UsageError: for a number that no machine has.
    """
    from resnetkit.errors import UsageError
    from resnetkit.runtime.resources import usable_processors

    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads {threads}: expected a number from 0 to {MOST_THREADS}.")
    usable = usable_processors()
    if threads > usable and world.is_main:
        remark(
            f"--threads {threads}: this process may use {usable} processor(s), so {usable}"
            " thread(s) compute."
        )
    return min(threads, usable)  # threads that wait for each other can take minutes for a step
