"""resnet train: one recipe, one run folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from resnetkit.cli.options import Changes, Device, Json, parse_changes
from resnetkit.cli.output import Bar, bar, print_json, remark

if TYPE_CHECKING:
    from resnetkit.training.run import Event, Run

__all__ = ["recipes", "train"]

MOST_THREADS = 1024


def train(
    recipe: str = "digits",
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Run folder; by default named after the recipe.")
    ] = None,
    changes: Changes = (),
    device: Device = "auto",
    threads: Annotated[
        int, Parameter(help="CPU threads; by default as many as a step is worth.")
    ] = 0,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Build everything, take one step, and estimate.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a network, or go on with an interrupted training.

    Args:
        recipe: A named recipe ('resnet recipes' lists them, and 'resnet recipes NAME' shows the
            keys that --set replaces) or a YAML file; digits by default.
    """
    from resnetkit.errors import UsageError
    from resnetkit.training.loop import train as train_recipe
    from resnetkit.training.recipe import load_recipe

    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads {threads}: expected a number from 0 to {MOST_THREADS}.")
    chosen = load_recipe(recipe, parse_changes(changes))
    if dry_run:
        show_rehearsal(chosen, device=device, threads=threads, json=json)
        return
    folder = out or Path("runs") / f"{chosen.name}-{chosen.digest[:8]}"
    with bar(chosen.name) as progress:
        narrator = Narrator(progress)
        run = train_recipe(chosen, folder, device=device, threads=threads, observe=narrator)
    if not narrator.total_steps:
        remark(f"{folder} was finished before; nothing was trained.")
    show_result(run, json=json)


class Narrator:
    """Tells a person what a training does: on a bar, or in one line an epoch."""

    def __init__(self, progress: Bar) -> None:
        self.progress = progress
        self.total_steps = 0
        self.interval: Event = {}

    def __call__(self, event: "Event") -> None:
        if event["event"] == "session":
            self.begin(event)
        elif event["event"] == "interval":
            self.interval = event
            self.progress.update(event["step"] / self.total_steps, interval_words(event))
        elif event["event"] == "epoch" and not self.progress.is_shown:
            remark(epoch_words(event, self.interval))

    def begin(self, session: "Event") -> None:
        """Says where the training starts and how precisely it computes."""
        self.total_steps = session["total_steps"]
        start = f"from step {session['from_step']}, " if session["from_step"] else ""
        precision, kernels = session["precision"], session["kernels"]
        hardware = session["hardware"]
        remark(
            f"{start}{session['total_steps']} steps on {hardware['device']},"
            f" {hardware['threads']} thread(s), {precision['name']} ({precision['reason']}),"
            f" kernels: {kernels['name']} ({kernels['reason']})"
        )


def interval_words(event: "Event") -> str:
    """Returns what a bar says of an interval."""
    return (
        f"loss {event['loss']:.3f}  error {event['error']:.1f} %"
        f"  {event['images_per_second']:,.0f} images/s"
    )


def epoch_words(event: "Event", interval: "Event") -> str:
    """Returns one line on an epoch."""
    watched = [
        f"{split} error {event[f'{split}_error']:.2f} %"
        for split in ("validation", "test")
        if f"{split}_error" in event
    ]
    speed = interval.get("images_per_second", 0.0)
    parts = [
        f"epoch {event['epoch']}",
        f"loss {event['train_loss']:.3f}",
        f"training error {event['train_error']:.2f} %",
        *watched,
        f"{speed:,.0f} images/s",
    ]
    return "  ".join(parts)


def show_result(run: "Run", *, json: bool) -> None:
    """Prints the final errors of a finished run."""
    from resnetkit.training.run import finite

    final = run.final
    if final is None or os.environ.get("RANK", "0") != "0":
        return
    splits = [split for split in ("train", "validation", "test") if split in final]
    if json:
        errors: dict[str, Any] = {
            split: {k: v for k, v in final[split].items() if k != "confusion"} for split in splits
        }
        facts = {"folder": str(run.folder), "recipe_sha256": run.recipe.digest, **errors}
        print_json(finite(facts))
        return
    for split in splits:
        print(f"{split} error {final[split]['error']:.2f} % of {final[split]['count']:,} images")
    remark(f"{run.folder} holds the run; 'resnet report {run.folder}' draws it.")


def show_rehearsal(chosen: Any, *, device: str, threads: int, json: bool) -> None:
    """Prints the resolved recipe and what it would cost."""
    from dataclasses import asdict

    from resnetkit.training.rehearsal import rehearse

    estimate = rehearse(chosen, device=device, threads=threads)
    if json:
        print_json({"recipe": chosen.model_dump(mode="json"), "estimate": asdict(estimate)})
        return
    print(chosen.to_yaml(), end="")
    remark(
        f"\n{estimate.parameters:,} parameters, {estimate.total_steps:,} steps of"
        f" {estimate.seconds_per_step:.3f} s: about {duration_words(estimate.seconds)};"
        f" peak memory {estimate.peak_memory_bytes / 2**30:.1f} GiB. Nothing was written."
    )


def duration_words(seconds: float) -> str:
    """Returns a time as a person says it."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def recipes(name: str = "", /, *, json: Json = False) -> None:
    """List the named recipes, or print one.

    Args:
        name: A recipe; without it, all are listed with the first line of what they say.
    """
    from resnetkit.training.recipe import load_recipe, named_recipes, recipe_text

    if name:
        (
            print_json(load_recipe(name).model_dump(mode="json"))
            if json
            else print(recipe_text(name), end="")
        )
        return
    listed = {
        each: path.read_text().splitlines()[0].lstrip("# ")
        for each, path in named_recipes().items()
    }
    if json:
        print_json(listed)
        return
    for each, headline in listed.items():
        print(f"{each:16} {headline}")
