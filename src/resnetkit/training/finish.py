"""The end of a training: the network is measured and exported."""

from collections.abc import Callable
from typing import get_args

import torch
from torch import nn

from resnetkit.data.splits import Split
from resnetkit.training.events import FinalEvent
from resnetkit.training.export import export_model
from resnetkit.training.journal import Journal
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run
from resnetkit.training.setup import TrainingSetup
from resnetkit.training.state import TrainingState

__all__ = ["finish"]


def finish(
    setup: TrainingSetup,
    run: Run,
    state: TrainingState,
    journal: Journal,
    pause: Callable[[], None],
) -> None:
    """Measures the finished network, exports it and writes the last event.

    Args:
        setup: of the training.
        run: that is finished.
        state: after the last step, which is saved.
        journal: of the run.
        pause: called before each part; it may raise, and all of them are done again another time.
    """
    pause()
    if state.best:
        state.result.load_state_dict(state.best)
    if setup.recipe.precise_bn:
        average_statistics(setup, state.result, setup.recipe.precise_bn)
    with_flips: Split | None = "test" if setup.recipe.evaluation.final_flip else None
    results = {}
    for split in measured_splits(setup.recipe):
        pause()
        results[split] = setup.score(state.result, split, flip=split == with_flips)
    pause()
    scores = {split: result.single for split, result in results.items()}
    if setup.world.is_main:
        with run.writing():
            export_model(setup, state.result, run.model, scores)
    event = FinalEvent(
        step=state.step,
        reached=state.reached,
        best_epoch=state.best_epoch or None,
        train=scores.get("train"),
        validation=scores.get("validation"),
        test=scores["test"],
        test_flipped=results["test"].flipped,
        confusion=results["test"].confusion.tolist(),
    )
    journal.write(event)
    journal.sync()


def measured_splits(recipe: Recipe) -> list[Split]:
    """Returns the splits on which the finished network is measured."""
    unmeasured: set[Split] = set()
    if recipe.data.train_on == "train+validation":
        unmeasured.add("validation")
    if not recipe.evaluation.final_train:
        unmeasured.add("train")
    return [split for split in get_args(Split) if split not in unmeasured]


@torch.no_grad()
def average_statistics(setup: TrainingSetup, network: nn.Module, images: int) -> None:
    """Replaces the running statistics of batch normalization by averages over training images.

    Source: README of KaimingHe/deep-residual-networks; frozen layers keep theirs.

    Args:
        setup: of the training.
        network: whose statistics are replaced, in place.
        images: number of training images to average over, of all ranks together.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    network.train()
    averaged = {norm: norm.momentum for norm in norms if norm.training}
    for norm in averaged:
        norm.reset_running_stats()
        norm.momentum = None  # torch then weights all batches equally
    steps = max(1, min(images // setup.batches.size, setup.batches.steps_per_epoch))
    for _, images_and_labels in setup.loader.stream(
        setup.batches.between(0, steps), lambda step: 0
    ):
        with setup.precision.autocast():
            network(images_and_labels()[0])
    for norm, momentum in averaged.items():
        norm.momentum = momentum
        for name in ("running_mean", "running_var"):
            statistic = norm.get_buffer(name)
            statistic.copy_(setup.world.sum(statistic) / setup.world.size)
