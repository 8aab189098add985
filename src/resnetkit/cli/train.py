"""resnet train: one recipe, one run folder."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Changes, Device, Json, Variant, parse_changes
from resnetkit.cli.output import Bar, bar, print_json, remark, remark_on_data, say

if TYPE_CHECKING:
    from resnetkit.runtime.process_group import World
    from resnetkit.training.auto_recipe import AutoRequest
    from resnetkit.training.events import EpochEvent, Event, IntervalEvent, Session
    from resnetkit.training.lr_find import RateSearch
    from resnetkit.training.recipe import Recipe
    from resnetkit.training.run_folder import Run
    from resnetkit.training.time_budget import Plan

__all__ = ["lr_find", "recipes", "train"]

MOST_THREADS = 1024
MOST_MINUTES = 30 * 24 * 60
SETTLED_SECONDS = 10.0  # after which the speed of a training can be told

Data = Annotated[
    str | None,
    Parameter(
        help="Another data set of 'resnet data list', or your images, as for 'resnet data check'."
    ),
]
Weights = Annotated[
    str | None, Parameter(help="Start from the weights of a run folder or file; the head is new.")
]
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
Threads = Annotated[int, Parameter(help="CPU threads; by default chosen by the cost of a step.")]


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

    threads = checked_threads(threads)
    values = recipe_values(changes, data, weights, variant, micro_batch)
    request = auto_request(recipe, changes, data, weights, variant, micro_batch, minutes)
    folder = out or (Path("runs") / request.folder_name if request else None)
    is_automatic = data is not None and recipe in (None, "finetune")
    with open_world(device) as world:  # the one that chooses is the one that trains
        if folder and is_automatic and (folder / "recipe.yaml").is_file():
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
        remark(f"resuming with the recipe in {folder}; nothing is timed again")
    return load_recipe(str(folder / "recipe.yaml"), values)


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
    from resnetkit.training.lr_find import find_lr

    if out.suffix != ".svg":
        raise UsageError(f"--out {out}: expected a file name that ends in .svg.")
    request = auto_request(recipe, changes, data, weights, variant, 0, None)
    values = recipe_values(changes, data, weights, variant, 0)
    threads = checked_threads(threads)
    with open_world(device) as world:
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

    with storage_errors(out, "Choose another path with --out."):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, rate_sheet(search))
    if json:
        print_json({**asdict(search), "drawing": str(out)})
    else:
        say(f"--set optimizer.lr={search.suggested:.2g}")
    remark(f"chart: {out}; nothing else was written")


def checked_threads(threads: int) -> int:
    """Returns a number of threads that this process can use; it says so where that is less.

    Raises:
        UsageError: for a number that no machine has.
    """
    from resnetkit.errors import UsageError
    from resnetkit.runtime.resources import usable_processors

    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads {threads}: expected a number from 0 to {MOST_THREADS}.")
    usable = usable_processors()
    if threads > usable:  # threads that wait for each other can take minutes for a step
        remark(
            f"--threads {threads}: this process may use {usable} processor(s), so {usable}"
            " thread(s) compute."
        )
    return min(threads, usable)


class TrainingProgress:
    """Reports the progress of a training: on a bar, or in one line for each epoch."""

    def __init__(self, progress: Bar, plan: "Plan | None" = None) -> None:
        self.progress = progress
        self.plan = plan
        self.began = 0.0
        self.total_steps = 0
        self.images_per_second = 0.0

    def __call__(self, event: "Event") -> None:
        from resnetkit.training.events import EpochEvent, IntervalEvent, Session

        match event:
            case Session():
                self.begin(event)
            case IntervalEvent():
                if event.timing is not None:
                    self.images_per_second = event.timing.images_per_second
                text = interval_text(event, self.images_per_second)
                self.progress.update(event.step / self.total_steps, text)
            case EpochEvent():
                if not self.progress.is_shown:
                    remark(epoch_text(event, self.images_per_second))
                self.compare(event)

    def compare(self, event: "EpochEvent") -> None:
        """Reports once how long a training that was planned really takes."""
        seconds = time.perf_counter() - self.began
        if self.plan is not None and seconds >= min(SETTLED_SECONDS, self.plan.seconds / 10):
            remark(actual_time_text(self.plan, event.epoch, seconds, event.step / self.total_steps))
            self.plan = None

    def begin(self, session: "Session") -> None:
        """Reports the classes, the number of steps, the device, the precision and the kernels."""
        self.began, self.total_steps = time.perf_counter(), session.total_steps
        remark(session.data.classes)
        start = f"from step {session.from_step}, " if session.from_step else ""
        precision, kernels, hardware = session.precision, session.kernels, session.hardware
        remark(
            f"{start}{session.total_steps} steps on {hardware['device']},"
            f" {hardware['threads']} thread(s), {precision['name']} ({precision['reason']}),"
            f" kernels: {kernels['name']} ({kernels['reason']})"
        )


def actual_time_text(plan: "Plan", epochs: int, seconds: float, fraction: float) -> str:
    """Returns how long a training will really take, by its first epochs.

    Args:
        plan: what was predicted.
        epochs: number of epochs that were trained.
        seconds: that they took.
        fraction: of the training that they are.
    """
    from resnetkit.training.auto_recipe import duration_words

    around = plan.seconds - plan.epochs * plan.epoch_seconds
    total = around + seconds / fraction
    return (
        f"after {epochs} epoch(s): about {duration_words(total)} in all"
        f" ({duration_words(plan.seconds)} were predicted)"
    )


def interval_text(event: "IntervalEvent", images_per_second: float) -> str:
    """Returns the text of the bar for an interval."""
    return f"loss {event.loss:.3f}  error {event.error:.1f} %  {images_per_second:,.0f} images/s"


def epoch_text(event: "EpochEvent", images_per_second: float) -> str:
    """Returns one line for an epoch."""
    errors = {"validation": event.validation_error, "test": event.test_error}
    fields = [
        f"epoch {event.epoch}",
        f"loss {event.train_loss:.3f}",
        f"training error {event.train_error:.2f} %",
        *(f"{split} error {error:.2f} %" for split, error in errors.items() if error is not None),
        f"{images_per_second:,.0f} images/s",
    ]
    return "  ".join(fields)


def show_result(run: "Run", *, json: bool) -> None:
    """Prints the final errors of a finished run."""
    from dataclasses import asdict

    from resnetkit.training.events import finite

    final = run.final
    if final is None:
        return
    if json:
        facts: dict[str, object] = {
            "folder": str(run.folder),
            "recipe_sha256": run.recipe.digest,
            **{split: asdict(score) for split, score in final.scores.items()},
        }
        if final.test_flipped is not None:
            facts["test_flipped"] = asdict(final.test_flipped)
        print_json(finite(facts))
        return
    for split, score in final.scores.items():
        say(f"{split} error {score.error:.2f} % of {score.count:,} images")
    if final.test_flipped is not None:
        say(f"test error {final.test_flipped.error:.2f} % with horizontal flips averaged")
    remark(f"run folder: {run.folder}; 'resnet report {run.folder}' writes its report.")


def show_estimate(
    chosen: "Recipe", world: "World", *, device: str, threads: int, json: bool
) -> None:
    """Estimates the cost of a recipe, with all processes, and prints both on the main rank."""
    from dataclasses import asdict

    from resnetkit.training.auto_recipe import duration_words
    from resnetkit.training.dry_run import dry_run as estimate_cost

    if world.is_main:
        remark_on_classes(chosen)
    estimate = estimate_cost(chosen, device=device, threads=threads)
    if not world.is_main:
        return
    if json:
        print_json({"recipe": chosen.model_dump(mode="json"), "estimate": asdict(estimate)})
        return
    say(chosen.to_yaml(), end="")
    uncached = " without the cache that data.cache=disk fills first"
    remark(
        f"\n{estimate.parameters:,} parameters, {estimate.total_steps:,} steps of"
        f" {estimate.seconds_per_step:.3f} s: about {duration_words(estimate.seconds)}"
        f"{uncached if chosen.data.cache == 'disk' else ''};"
        f" peak memory {estimate.peak_memory_bytes / 2**30:.1f} GiB. Nothing was written."
    )


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
