"""The immutable setup of a training: everything a recipe describes, built and checked."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resnetkit.data.batches import TrainingBatches
from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import custom_path, open_dataset, open_listed
from resnetkit.data.images.photos import Photos, least_side
from resnetkit.data.images.pixel_cache import open_cache, root_of_caches
from resnetkit.data.loader import DeviceLoader
from resnetkit.data.splits import Split
from resnetkit.evaluation.metric_sums import SplitScore, score
from resnetkit.models.resnet import ResNet
from resnetkit.models.summary import count
from resnetkit.models.zoo import Architecture
from resnetkit.runtime.precision import ChosenPrecision, choose_precision
from resnetkit.runtime.process_group import World
from resnetkit.runtime.resources import usable_processors
from resnetkit.training.checks import (
    check_batch_fit,
    check_custom_images,
    check_data_fit,
    check_network_fit,
    check_same_data,
    check_size_fit,
    explained_bad_images,
)
from resnetkit.training.finetune import copy_backbone, pretrained_network
from resnetkit.training.kernels import ChosenKernels, choose_kernels
from resnetkit.training.preprocessing import (
    find_class_weights,
    find_color_axes,
    find_normalization,
)
from resnetkit.training.recipe import Recipe
from resnetkit.training.schedules import LearningRate
from resnetkit.training.state import TrainingState, start_state
from resnetkit.weights.network import TrainedNetwork

__all__ = ["TrainingSetup", "prepare", "threads_for"]

SMALL_STEP = 10**9  # multiply-adds of a forward pass


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that a training uses and does not change; the rest is its `TrainingState`.

    Attributes:
        recipe: of the training.
        world: the processes that train.
        dataset: on the CPU, with its splits.
        architecture: which network, for this data.
        precision: of the forward pass.
        kernels: of normalization, addition and relu in training.
        loader: the images on the device.
        batches: the order of the training.
        learning_rate: of every step.
        class_weights: float32 (K,) by which the loss of each class is multiplied; None for 1.
    """

    recipe: Recipe
    world: World
    dataset: Dataset
    architecture: Architecture
    precision: ChosenPrecision
    kernels: ChosenKernels
    loader: DeviceLoader
    batches: TrainingBatches
    learning_rate: LearningRate
    class_weights: Tensor | None

    @property
    def total_steps(self) -> int:
        return self.learning_rate.total_steps

    @property
    def snapshot_steps(self) -> frozenset[int]:
        """Returns the steps after which a permanent checkpoint is saved, from 0 to the last."""
        count = self.recipe.checkpoint.snapshots
        return frozenset(
            index * self.total_steps // count for index in range(count + 1 if count else 0)
        )

    def crop_size(self, step: int) -> int:
        """Returns the side of the crops of a step, counted from 0; 0 for whole images."""
        return self.recipe.data.early_size if step < self.early_steps else 0

    @property
    def early_steps(self) -> int:
        """Returns the number of steps with smaller crops."""
        data = self.recipe.data
        return math.ceil(data.early_fraction * self.total_steps) if data.early_size else 0

    def split_ids(self, split: Split) -> Tensor:
        """Returns the samples of a split; the training split is all that is trained on."""
        return self.batches.sample_ids if split == "train" else self.dataset.splits[split]

    def score(self, network: nn.Module, split: Split, *, flip: bool = False) -> SplitScore:
        """Measures a network on a split; see `metric_sums.score`."""
        self.world.broadcast_buffers(network)
        return score(
            network,
            self.evaluation_batches(split),
            len(self.dataset.class_names),
            world=self.world,
            precision=self.precision,
            flip=flip,
        )

    def evaluation_batches(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields this rank's samples of a split, unaugmented."""
        return self.loader.evaluation(
            self.split_ids(split),
            self.recipe.batch_size,
            rank=self.world.rank,
            ranks=self.world.size,
        )

    @property
    def sensible_threads(self) -> int:
        """Returns a sensible number of CPU threads for a step."""
        for_one_image = count(self.architecture, min(self.dataset.image_size)).multiply_adds
        return threads_for(for_one_image * self.recipe.batch_size, self.world)


def threads_for(multiply_adds: int, world: World) -> int:
    """Returns a sensible number of CPU threads for a step.

    Threads that share too little work wait for each other more than they compute: ResNet-20 on 8x8
    pixels takes 14 ms a step with one thread, and up to 2.7 s with two when something else runs on
    one of two cores (torch 2.15, AMD EPYC with 2 cores, November 2026).

    Args:
        multiply_adds: of the forward pass of a batch, of all ranks together.
        world: the processes that train.
    """
    if multiply_adds < SMALL_STEP * world.size:
        return 1
    return min(torch.get_num_threads(), usable_processors())  # torch knows nothing of quotas


def prepare(
    recipe: Recipe, world: World, *, listed: Path | None = None, cache: bool = True
) -> tuple[TrainingSetup, TrainingState]:
    """Builds everything a recipe describes.

    Args:
        recipe: of the training.
        world: the processes that train.
        listed: path of a list of custom images with their splits, written by an earlier session.
        cache: whether decoded photos may be cached on disk, if the recipe does so.

    Returns:
        The setup, and the state before the first step.

    Raises:
        RecipeError: when the recipe does not fit the data or the number of ranks.
        DataError: when the data is missing, corrupt or not what was expected.
    """
    dataset = open_training_data(recipe, listed)
    architecture = recipe.architecture(
        num_classes=len(dataset.class_names), in_channels=dataset.channels
    )
    trained_on = training_ids(recipe, dataset)
    check_data_fit(recipe, dataset)
    check_network_fit(recipe, architecture)
    check_batch_fit(recipe, len(trained_on), world)
    is_new = listed is None or not listed.is_file()
    if dataset.custom is not None and is_new and recipe.data.on_bad_image == "error":
        check_custom_images(dataset.custom)
    check_same_data(dataset, world)
    if recipe.data.cache == "disk" and cache:
        dataset = with_cache(dataset, recipe)

    model, pretrained = build_model(recipe, architecture, dataset)
    model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = TrainingBatches(
        trained_on, recipe.batch_size, recipe.seed, rank=world.rank, ranks=world.size
    )
    setup = TrainingSetup(
        recipe=recipe,
        world=world,
        dataset=dataset,
        architecture=architecture,
        precision=choose_precision(recipe.precision, world.device),
        kernels=kernels_for(recipe, architecture, dataset, batches, world.device),
        loader=training_loader(recipe, dataset, trained_on, pretrained, world.device),
        batches=batches,
        learning_rate=LearningRate(
            peak=recipe.optimizer.lr,
            schedule=recipe.schedule,
            warmup=recipe.warmup,
            total_steps=recipe.length.steps(batches.steps_per_epoch),
            steps_per_epoch=batches.steps_per_epoch,
        ),
        class_weights=find_class_weights(recipe, dataset, trained_on, world.device),
    )
    model.fused = setup.kernels.name == "fused"
    return setup, start_state(model, recipe, world)


def open_training_data(recipe: Recipe, listed: Path | None) -> Dataset:
    """Opens the data of a recipe, from the list of an earlier session if there is one.

    Raises:
        DataError: when the images are missing, corrupt or not what was expected.
    """
    name, channels = recipe.data.name, recipe.model.options.get("in_channels", 3)
    size, crop_pct = recipe.data.image_size, recipe.data.crop_pct
    if listed is not None and listed.is_file() and custom_path(name) is not None:
        return open_listed(name, listed, image_size=size, crop_pct=crop_pct, channels=channels)
    return open_dataset(
        name,
        image_size=size,
        crop_pct=crop_pct,
        channels=channels,
        seed=recipe.seed,
        skip_bad=recipe.data.on_bad_image == "skip",
    )


def training_ids(recipe: Recipe, dataset: Dataset) -> Tensor:
    """Returns the samples that are trained on, int64 (N,), in the order of their numbers."""
    if recipe.data.train_on == "train":
        return dataset.splits["train"]
    return torch.cat([dataset.splits["train"], dataset.splits["validation"]]).sort().values


def with_cache(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Returns custom images whose random crops are taken from cached pixels."""
    photos = dataset.images
    assert isinstance(photos, Photos)  # the recipe was checked
    with explained_bad_images(dataset):
        cache = open_cache(
            root_of_caches(),
            photos.paths,
            channels=photos.channels,
            side=least_side(recipe.data.augment, photos.size),
        )
    return replace(dataset, images=replace(photos, cache=cache))


def build_model(
    recipe: Recipe, architecture: Architecture, dataset: Dataset
) -> tuple[ResNet, TrainedNetwork | None]:
    """Returns the network before the first step, and the one whose weights it starts from."""
    model = architecture.build(torch.Generator().manual_seed(recipe.seed))
    check_size_fit(recipe, dataset, model)
    pretrained = pretrained_network(recipe, architecture)
    if pretrained is not None:
        copy_backbone(model, pretrained)
    model.freeze(recipe.finetune.freeze or None, norms=recipe.finetune.frozen_norm)
    return model, pretrained


def kernels_for(
    recipe: Recipe,
    architecture: Architecture,
    dataset: Dataset,
    batches: TrainingBatches,
    device: torch.device,
) -> ChosenKernels:
    """Returns the kernels of a training of this length."""
    images = batches.size * recipe.length.steps(batches.steps_per_epoch)
    for_one_image = count(architecture, min(dataset.image_size)).multiply_adds
    return choose_kernels(
        recipe.kernels, architecture, device, multiply_adds=images * for_one_image
    )


def training_loader(
    recipe: Recipe,
    dataset: Dataset,
    trained_on: Tensor,
    pretrained: TrainedNetwork | None,
    device: torch.device,
) -> DeviceLoader:
    """Returns the images on the device, normalized and augmented as the recipe asks."""
    with explained_bad_images(dataset):
        return DeviceLoader.of(
            dataset,
            find_normalization(recipe, dataset, trained_on, pretrained),
            device,
            seed=recipe.seed,
            augmentation=recipe.data.augment,
            color_axes=find_color_axes(recipe, dataset, trained_on),
        )
