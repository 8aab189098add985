"""Snapshots: a network at several steps of its training."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from resnetkit.errors import WeightsError
from resnetkit.training.checkpoint import checkpoint_steps, load_checkpoint
from resnetkit.training.run_folder import Run
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

__all__ = ["snapshots"]


def snapshots(run: Run) -> Iterator[tuple[int, TrainedNetwork]]:
    """Yields the steps and networks of the checkpoints of a finished run, in order.

    These are the evenly spaced snapshots of `checkpoint.snapshots` in the recipe, none by default,
    and the newest checkpoints, `checkpoint.keep` of them: by default the last one.

    Raises:
        WeightsError: when the run is not finished, or a checkpoint is corrupt.
    """
    finished = load_network(run.folder)
    for step in checkpoint_steps(run.checkpoints):
        tensors, _ = load_checkpoint(run.checkpoints, step)
        model = finished.architecture.build(torch.Generator())
        try:
            model.load_state_dict(tensors["model"], strict=True)
        except (KeyError, RuntimeError) as error:
            raise WeightsError(
                f"the checkpoint of step {step} in {run.folder} does not fit its network."
            ) from error
        yield step, replace(finished, model=model.eval())
