"""resnet lr-find: a learning rate for a recipe."""

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
    remark_on_classes,
    remark_on_recipe,
)

if TYPE_CHECKING:
    from resnetkit.training.lr_find import RateSearch

__all__ = ["lr_find"]

ADVICE = "Choose another path with --out."


def lr_find(
    recipe: str | None = None,
    *,
    data: Data = None,
    weights: Weights = None,
    variant: Variant = None,
    steps: Annotated[
        int, Parameter(help="Number of steps from the lowest rate to the highest; 100 by default.")
    ] = 100,
    out: Annotated[Path, Parameter(help="File of the chart; lr-find.svg by default.")] = Path(
        "lr-find.svg"
    ),
    changes: Changes = (),
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Find a learning rate: increase it at each step until the loss increases.

    Args:
        recipe: As for 'resnet train'.
    """
    from resnetkit.errors import UsageError
    from resnetkit.runtime.process_group import open_world
    from resnetkit.storage import check_file
    from resnetkit.training.lr_find import check_alone, find_lr

    if out.suffix != ".svg":
        raise UsageError(f"--out {out}: expected a file name that ends in .svg.")
    request = auto_request(recipe, changes, data, weights, variant, 0, None)
    values = recipe_values(changes, data, weights, variant, 0)
    with open_world(device) as world:
        check_alone(world)
        check_file(out, ADVICE)  # before the search, whose result it will hold
        threads = checked_threads(threads, world)
        chosen, _ = new_recipe(recipe, values, request, world, threads=threads)
    remark_on_recipe(chosen)
    remark_on_classes(chosen)
    with bar("lr-find") as progress:
        search = find_lr(
            chosen,
            steps=steps,
            device=device,
            threads=threads,
            observe=progress.update,
        )
    show_rates(search, out, json=json)


def show_rates(search: "RateSearch", out: Path, *, json: bool) -> None:
    """Prints the learning rate that was found, and draws the losses."""
    from dataclasses import asdict

    from resnetkit.report.rate_sheet import rate_sheet
    from resnetkit.storage import storage_errors, write_file

    with storage_errors(out, ADVICE):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, rate_sheet(search))
    if json:
        print_json({**asdict(search), "drawing": str(out)})
    else:
        say(f"--set optimizer.lr={search.suggested:.2g}")
    remark(f"chart: {out}; nothing else was written")
