"""How a training prints its progress, its result and its estimated cost."""

import time
from typing import TYPE_CHECKING

from resnetkit.cli.output import Bar, print_json, remark, say
from resnetkit.cli.recipe_choice import remark_on_classes

if TYPE_CHECKING:
    from resnetkit.runtime.process_group import World
    from resnetkit.training.events import EpochEvent, Event, IntervalEvent, Session
    from resnetkit.training.recipe import Recipe
    from resnetkit.training.run_folder import Run
    from resnetkit.training.time_budget import Plan

__all__ = ["TrainingProgress", "show_estimate", "show_result"]

SETTLED_SECONDS = 10.0  # after which the speed of a training can be told


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
