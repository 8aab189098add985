"""The workbench of a training: everything a recipe asks for, built and placed on the device."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from resnetkit.data.augment.crop_and_flip import measure_color_axes
from resnetkit.data.batches import TrainingBatches, epoch_order
from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import open_dataset
from resnetkit.data.draws import Draws
from resnetkit.data.images.photos import Photos, least_side
from resnetkit.data.images.pixel_cache import open_cache
from resnetkit.data.loader import NO_AXES, DeviceLoader, Normalization, measure_normalization
from resnetkit.data.published.table import cache_folder
from resnetkit.data.splits import Split
from resnetkit.errors import RecipeError
from resnetkit.evaluation.metric_sums import MetricSums, Score, score
from resnetkit.models.fused import build_error
from resnetkit.models.resnet import ResNet
from resnetkit.models.summary import trace
from resnetkit.models.zoo import Architecture
from resnetkit.runtime.precision import ChosenPrecision, choose_precision
from resnetkit.runtime.process_group import World
from resnetkit.training.checks import (
    check_batch_fit,
    check_custom_images,
    check_data_fit,
    check_network_fit,
    check_same_data,
    check_size_fit,
)
from resnetkit.training.finetune import learned_network, take_over
from resnetkit.training.optimizers import make_optimizers
from resnetkit.training.recipe import Recipe
from resnetkit.training.recipe_schema import PlateauSchedule
from resnetkit.weights.network import TrainedNetwork

__all__ = ["ChosenKernels", "TrainingSetup", "choose_kernels", "prepare"]

NORMALIZED_ON = 1_000  # custom images: decoding all of them would take long
SMALL_STEP = 10**9  # multiply-adds of a forward pass
SMALL_TRAINING = 10**13  # multiply-adds of all forward passes: about five epochs of ResNet-20


@dataclass(frozen=True)
class ChosenKernels:
    """Who computes normalization, addition and relu in training.

    Attributes:
        name: modules or fused.
        reason: why, in words.
    """

    name: Literal["modules", "fused"]
    reason: str


@dataclass(frozen=True)
class TrainingSetup:
    """What a training works with.

    Attributes:
        recipe: what was asked for.
        world: who trains.
        dataset: on the CPU, with its splits.
        architecture: which network, for this data.
        model: the network itself, in channels-last memory.
        parallel: the same, averaging gradients over ranks.
        averaged: the running average of its weights, when the recipe asks for one.
        optimizers: each of some of the model's parameters; a group's `lr_scale` is its rate
            relative to `recipe.optimizer.lr`.
        precision: of the forward pass.
        kernels: of normalization, addition and relu in training.
        loader: the images on the device.
        batches: the order of the training.
        class_weights: float32 (K,) by which the loss of each class is multiplied; none for 1.
        best: tensors of the result in the epoch of the lowest validation error, where the recipe
            asks for patience.
        epoch: what this rank has counted since the epoch began.
        interval: what this rank has counted since the last interval event.
    """

    recipe: Recipe
    world: World
    dataset: Dataset
    architecture: Architecture
    model: ResNet
    parallel: nn.Module
    averaged: AveragedModel | None
    optimizers: tuple[torch.optim.Optimizer, ...]
    precision: ChosenPrecision
    kernels: ChosenKernels
    loader: DeviceLoader
    batches: TrainingBatches
    class_weights: Tensor | None
    best: dict[str, Tensor]
    epoch: MetricSums
    interval: MetricSums

    @property
    def total_steps(self) -> int:
        return self.recipe.length.steps(self.batches.steps_per_epoch)

    @property
    def result(self) -> nn.Module:
        """Returns the network that is measured and exported: the averaged one if there is one."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def memories(self) -> dict[str, dict[str, Any]]:
        """Returns what the optimizers remember of each parameter, by its name."""
        names = {parameter: name for name, parameter in self.parameters.items()}
        return {
            names[parameter]: optimizer.state[parameter]
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def lr_at(self, step: int, *, below: bool, drops: int = 0) -> float:
        """Returns the learning rate of a step.

        Args:
            step: from 0.
            below: whether the training error has been below the threshold of the warm-up.
            drops: how often the watched error has stopped falling, for a plateau schedule.
        """
        recipe, epoch = self.recipe, self.batches.steps_per_epoch
        scheduled = recipe.optimizer.lr * recipe.schedule.factor_at(step, self.total_steps, epoch)
        if isinstance(recipe.schedule, PlateauSchedule):
            scheduled *= recipe.schedule.factor**drops
        return recipe.warmup.lr_at(step, scheduled, epoch, below=below)

    @property
    def snapshot_steps(self) -> frozenset[int]:
        """Returns the steps done when a state is saved that stays: from 0 to all."""
        count = self.recipe.checkpoint.snapshots
        return frozenset(
            place * self.total_steps // count for place in range(count + 1 if count else 0)
        )

    def crop_size(self, step: int) -> int:
        """Returns the side of the crops that a step, from 0, is shown; 0 for whole images."""
        data = self.recipe.data
        return data.early_size if step < data.early_fraction * self.total_steps else 0

    def split_ids(self, split: Split) -> Tensor:
        """Returns the samples of a part; what is trained on counts as the training part."""
        return self.batches.sample_ids if split == "train" else self.dataset.splits[split]

    def score(self, split: Split) -> tuple[Score, Tensor]:
        """Measures the result on a part of the data: averages, and the confusion matrix (K, K)."""
        self.world.share_buffers(self.result)
        return score(
            self.result,
            self.evaluation_batches(split),
            len(self.dataset.class_names),
            world=self.world,
            precision=self.precision,
        )

    @property
    def sensible_threads(self) -> int:
        """Returns how many CPU threads one step is worth.

        Threads that share too little work wait for each other more than they compute: ResNet-20 on
        8x8 pixels takes 14 ms a step with one thread, and up to 2.7 s with two when something else
        runs on one of two cores (torch 2.15, AMD EPYC with 2 cores, November 2026).
        """
        for_one_image = trace(self.architecture, min(self.dataset.image_size)).multiply_adds
        is_small = for_one_image * self.recipe.batch_size < SMALL_STEP * self.world.size
        return 1 if is_small else torch.get_num_threads()

    def evaluation_batches(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields this rank's share of a part, unaugmented."""
        return self.loader.evaluation(
            self.split_ids(split),
            self.recipe.batch_size,
            rank=self.world.rank,
            ranks=self.world.size,
        )


def prepare(
    recipe: Recipe, world: World, *, listed: Path | None = None, cache: bool = True
) -> TrainingSetup:
    """Builds everything a recipe asks for.

    Args:
        recipe: what is asked for.
        world: who trains.
        listed: a list of custom images with their parts, which an earlier start has written.
        cache: whether photos may be decoded and kept on the disk, where the recipe asks for it.

    Raises:
        RecipeError: when the recipe does not fit the data or the number of ranks.
        DataError: when the data is not what it should be.
    """
    dataset = open_dataset(
        recipe.data.name,
        image_size=recipe.data.image_size,
        crop_pct=recipe.data.crop_pct,
        channels=recipe.model.options.get("in_channels", 3),
        seed=recipe.seed,
        skip_bad=recipe.data.on_bad_image == "skip",
        listed=listed,
    )
    architecture = recipe.architecture(
        num_classes=len(dataset.class_names), in_channels=dataset.channels
    )
    trained_on = dataset.splits["train"]
    if recipe.data.train_on == "train+validation":
        trained_on = torch.cat([trained_on, dataset.splits["validation"]]).sort().values
    check_data_fit(recipe, dataset)
    check_network_fit(recipe, architecture)
    check_batch_fit(recipe, len(trained_on), world)
    is_new = listed is None or not listed.is_file()
    if dataset.custom is not None and is_new and recipe.data.on_bad_image == "error":
        check_custom_images(dataset.custom)
    check_same_data(dataset, world)
    if recipe.data.cache == "disk" and cache:
        dataset = with_cache(dataset, recipe)

    generator = torch.Generator().manual_seed(recipe.seed)
    model = architecture.build(generator)
    check_size_fit(recipe, dataset, model)
    learned = learned_network(recipe, architecture)
    if learned is not None:
        take_over(model, learned)
    model.freeze(recipe.finetune.freeze, norms=recipe.finetune.frozen_norm)
    model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = TrainingBatches(
        trained_on, recipe.batch_size, recipe.seed, rank=world.rank, ranks=world.size
    )
    images = batches.size * recipe.length.steps(batches.steps_per_epoch)
    kernels = choose_kernels(
        recipe.kernels,
        architecture,
        world.device,
        multiply_adds=images * trace(architecture, min(dataset.image_size)).multiply_adds,
    )
    model.fused = kernels.name == "fused"
    return TrainingSetup(
        recipe=recipe,
        world=world,
        dataset=dataset,
        architecture=architecture,
        model=model,
        parallel=world.wrap(model),
        averaged=averaged_copy(model, recipe.ema_decay),
        optimizers=make_optimizers(model, recipe),
        precision=choose_precision(recipe.precision, world.device),
        kernels=kernels,
        loader=DeviceLoader.of(
            dataset,
            find_normalization(recipe, dataset, trained_on, learned),
            world.device,
            seed=recipe.seed,
            augmentation=recipe.data.augmentation,
            color_axes=find_color_axes(recipe, dataset, trained_on),
        ),
        batches=batches,
        class_weights=find_class_weights(recipe, dataset, trained_on, world.device),
        best={},
        epoch=MetricSums(world.device),
        interval=MetricSums(world.device),
    )


def with_cache(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Returns custom images whose random views come from pixels that were decoded before."""
    photos = dataset.images
    assert isinstance(photos, Photos)  # the recipe was checked
    cache = open_cache(
        cache_folder() / "photos",
        photos.paths,
        channels=photos.channels,
        side=least_side(recipe.data.augmentation, photos.size),
    )
    return replace(dataset, images=replace(photos, cache=cache))


def looked_at(dataset: Dataset, trained_on: Tensor) -> Tensor:
    """Returns the samples that the normalization is measured on: all, or some of custom images."""
    if dataset.custom is None:
        return trained_on
    return epoch_order(Draws(trained_on, seed=0))[:NORMALIZED_ON]


def find_normalization(
    recipe: Recipe, dataset: Dataset, trained_on: Tensor, learned: TrainedNetwork | None
) -> Normalization:
    """Returns the normalization of the weights that training starts from, or measures one."""
    if recipe.data.normalize != "weights":
        some = dataset.images[looked_at(dataset, trained_on)]
        return measure_normalization(some, recipe.data.normalize)
    assert learned is not None  # the recipe was checked
    if learned.mean.shape[1:] not in ((1, 1), dataset.image_size):
        raise RecipeError(
            "data.normalize is 'weights', but theirs is a mean of each pixel of"
            f" {'x'.join(map(str, learned.mean.shape[1:]))}: set data.normalize=channel."
        )
    if recipe.data.early_size and learned.mean.shape[1:] != (1, 1):
        raise RecipeError(
            "data.normalize is 'weights', but theirs is a mean of each pixel, which does not fit"
            " smaller crops: set data.early_size=0."
        )
    return Normalization(learned.mean, learned.std)


def find_color_axes(recipe: Recipe, dataset: Dataset, trained_on: Tensor) -> Tensor:
    """Returns along which axes the colors vary, where the recipe shifts them; else zeros."""
    if recipe.data.color == "none":
        return NO_AXES
    if dataset.channels != 3:
        raise RecipeError(
            f"data.color is 'pca', but the images of '{dataset.name}' have {dataset.channels}"
            " channel(s). Set data.color=none."
        )
    return measure_color_axes(dataset.images[looked_at(dataset, trained_on)])


def find_class_weights(
    recipe: Recipe, dataset: Dataset, trained_on: Tensor, device: torch.device
) -> Tensor | None:
    """Returns N / (K n) for a class of n of N images, so that every class counts as much."""
    if recipe.class_weights == "none":
        return None
    counts = torch.bincount(dataset.labels[trained_on], minlength=len(dataset.class_names))
    return (len(trained_on) / (len(counts) * counts.clamp_min(1))).float().to(device)


def choose_kernels(
    requested: str, architecture: Architecture, device: torch.device, *, multiply_adds: int
) -> ChosenKernels:
    """Returns the kernels asked for; for `auto`, the faster ones (figures in docs/log.md).

    Args:
        requested: auto, modules or fused.
        architecture: of the network.
        device: where it trains.
        multiply_adds: of all forward passes of the training.

    Raises:
        RecipeError: when fused kernels are asked for and cannot be had.
    """
    if requested == "modules":
        return ChosenKernels("modules", "the recipe asks for them")
    if architecture.preactivation or architecture.norm == "none":
        obstacle = "they need blocks that end with batch normalization, addition and relu"
    elif requested == "fused" or worth_fusing(architecture, device, multiply_adds):
        obstacle = build_error()
    else:
        return ChosenKernels("modules", "fused ones would gain nothing here")
    if obstacle and requested == "fused":
        raise RecipeError(
            f"kernels is 'fused', but {obstacle}. Set kernels=auto, which then takes the modules."
        )
    if obstacle:
        return ChosenKernels("modules", obstacle)
    return ChosenKernels("fused", "compiled for this processor")


def worth_fusing(architecture: Architecture, device: torch.device, multiply_adds: int) -> bool:
    """Returns whether fused kernels save more time than compiling them takes."""
    small_blocks = architecture.block == "basic"  # bottlenecks are too wide to gain
    return device.type == "cpu" and small_blocks and multiply_adds > SMALL_TRAINING


def averaged_copy(model: nn.Module, decay: float) -> AveragedModel | None:
    """Returns a copy that follows the weights and running statistics; none for a decay of 0."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
