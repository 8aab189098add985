"""Snapshots: a network at several moments of its training, for probes to look at."""

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
    """Yields the steps and networks of the checkpoints that a finished run has kept, in order.

    A run keeps as many as its recipe says in `checkpoint.keep`, one by default: the last.

    Raises:
        WeightsError: when the run is not finished, or a checkpoint is damaged.
    """
    finished = load_network(run.folder)
    for step in checkpoint_steps(run.checkpoints):
        tensors, _ = load_checkpoint(run.checkpoints, step)
        model = finished.architecture.build(torch.Generator())
        try:
            model.load_state_dict(tensors["model"], strict=True)
        except (KeyError, RuntimeError) as error:
            raise WeightsError(
                f"the checkpoint of step {step} in {run.folder} is not of its network."
            ) from error
        yield step, replace(finished, model=model.eval())
