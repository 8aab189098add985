"""Everything that changes during a training, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from resnetkit.evaluation.metric_sums import MetricSums
from resnetkit.models.resnet import ResNet
from resnetkit.runtime.process_group import World
from resnetkit.training.optimizers import make_optimizers
from resnetkit.training.recipe import Recipe
from resnetkit.training.schedules import ScheduleState

__all__ = ["TrainingState", "start_state"]


@dataclass(frozen=True)
class TrainingState:
    """The state of a training; a checkpoint holds all of it.

    A step updates the tensors in place, as torch does, and returns a new state for the rest.

    Attributes:
        model: the network, in channels-last memory.
        parallel: the same network, averaging gradients over ranks.
        averaged: the running average of its weights; None if `ema_decay` is 0.
        optimizers: each updates some of the model's parameters; the `lr_scale` of a parameter
            group is its learning rate relative to `recipe.optimizer.lr`.
        best: tensors of the result in the epoch of the lowest validation error, if the recipe
            has a patience.
        epoch: metrics of this rank since the epoch began.
        interval: metrics of this rank since the last interval event.
        step: steps done.
        schedule: what the learning rate depends on besides the step.
        reached: whether training ends here: the validation error has reached the target, or has
            not fallen for as long as the recipe has patience.
        best_epoch: the epoch of the lowest validation error; 0 before the first.
        best_error: that error, in percent.
    """

    model: ResNet
    parallel: nn.Module
    averaged: AveragedModel | None
    optimizers: tuple[torch.optim.Optimizer, ...]
    epoch: MetricSums
    interval: MetricSums
    best: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0
    schedule: ScheduleState = field(default_factory=ScheduleState)
    reached: bool = False
    best_epoch: int = 0
    best_error: float = 100.0

    @property
    def result(self) -> nn.Module:
        """Returns the network that is measured and exported: the averaged one if there is one."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    @property
    def optimizer_states(self) -> dict[str, dict[str, Tensor]]:
        """Returns the optimizer state of each parameter, by name."""
        names = {parameter: name for name, parameter in self.parameters.items()}
        return {
            names[parameter]: optimizer.state[parameter]
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    def with_validation_error(self, epoch: int, error: float, *, patience: int) -> Self:
        """Returns the state after an evaluation, for a recipe with patience.

        Args:
            epoch: that was evaluated, from 1.
            error: on the validation split, in percent.
            patience: epochs without a lower error after which training ends.
        """
        if self.best_epoch == 0 or error < self.best_error:
            best = {name: t.detach().clone() for name, t in self.result.state_dict().items()}
            return replace(self, best=best, best_epoch=epoch, best_error=error)
        return replace(self, reached=self.reached or epoch - self.best_epoch >= patience)


def start_state(model: ResNet, recipe: Recipe, world: World) -> TrainingState:
    """Returns the state before the first step of a network that is on its device."""
    return TrainingState(
        model=model,
        parallel=world.wrap(model),
        averaged=averaged_copy(model, recipe.ema_decay),
        optimizers=make_optimizers(model, recipe),
        epoch=MetricSums(world.device),
        interval=MetricSums(world.device),
    )


def averaged_copy(model: nn.Module, decay: float) -> AveragedModel | None:
    """Returns a copy that follows the weights and running statistics; None for a decay of 0."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
