"""Times what a training consists of on this machine: steps of a network, and reading images."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional

from resnetkit.data.datasets import custom_format
from resnetkit.data.draws import Draws
from resnetkit.data.images.decode import read_image
from resnetkit.data.images.photos import Photos, least_side
from resnetkit.data.images.pixel_cache import PixelCache, can_be_written, reduced
from resnetkit.data.prefetch import prefetch
from resnetkit.errors import DataError
from resnetkit.models.resnet import ResNet
from resnetkit.models.summary import count
from resnetkit.models.zoo import Architecture
from resnetkit.runtime.precision import choose_precision
from resnetkit.runtime.process_group import World
from resnetkit.training.recipe import Recipe
from resnetkit.training.setup import threads_for
from resnetkit.training.time_budget import ReadCost, StepCost

__all__ = ["MachineTimings", "Timings"]

FEWEST, MOST = 2, 8  # repetitions of what is timed, after a first one that is not
SECONDS = 0.6  # after which nothing is repeated any more
SAMPLE = 24  # files that are read
BATCH_SECONDS = 0.4  # that a timed step of a CPU should take
FLOPS = 2e10  # assumed until a step was timed: floating-point operations per second
SAVE_SECONDS = 6e-8  # for a parameter: weights, momentum and best weights, hashed and written


class Timings(Protocol):
    """Seconds that parts of a training take."""

    def step(
        self, architecture: Architecture, recipe: Recipe, *, expected: float | None
    ) -> StepCost:
        """Returns the seconds of a step of the recipe with this network.

        Args:
            architecture: of the network.
            recipe: with the image size and batch size.
            expected: seconds for one image, if a similar step was timed before.
        """

    def reading(self, paths: Sequence[Path], recipe: Recipe) -> tuple[ReadCost, bool]:
        """Returns the seconds for reading an image, and whether all of them can be cached.

        Raises:
            DataError: when none of them can be decoded.
            UsageError: when images cannot have the channels of the recipe.
        """


class MachineTimings:
    """Timings of this machine, in a few seconds; those of the slowest rank if there are several.

    Means are taken, not minima: a machine that is busy now is likely to be busy later.
    """

    def __init__(self, world: World, threads: int = 0) -> None:
        self.world = world
        self.threads = threads

    def step(
        self, architecture: Architecture, recipe: Recipe, *, expected: float | None
    ) -> StepCost:
        """Returns the seconds of a step; see `Timings`."""
        device, size = self.world.device, recipe.data.image_size
        totals = count(architecture, size)
        expected = expected or 6 * totals.multiply_adds / FLOPS
        images = max(2, recipe.batch_size // self.world.size)
        before = torch.get_num_threads()
        torch.set_num_threads(
            self.threads or threads_for(totals.multiply_adds * images * self.world.size, self.world)
        )
        if device.type == "cpu":
            images = min(images, max(4, round(BATCH_SECONDS / expected)))
        if recipe.micro_batch:
            images = max(2, min(images, recipe.micro_batch))
        model = architecture.build(torch.Generator().manual_seed(0)).to(device)
        model = model.to(memory_format=torch.channels_last)
        model.freeze(recipe.finetune.freeze or None, norms=recipe.finetune.frozen_norm)
        try:
            per_step = mean_seconds(self.gradient_of(model, recipe, images=images))
            trained = [p for p in model.parameters() if p.grad is not None]
            optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, nesterov=True)
            update = mean_seconds(partial(self.updated, optimizer))
        finally:
            torch.set_num_threads(before)
        per_image, update = self.slowest(per_step / images, update)
        return StepCost(per_image, update, SAVE_SECONDS * totals.parameters)

    def gradient_of(self, model: ResNet, recipe: Recipe, *, images: int) -> Callable[[], None]:
        """Returns a function that runs a batch of noise forward and backward."""
        device, size = self.world.device, recipe.data.image_size
        precision = choose_precision(recipe.precision, device)
        channels, classes = model.conv1.in_channels, model.fc.out_features
        noise = torch.randn(images, channels, size, size, generator=torch.Generator())
        batch = noise.to(device).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(images, device=device) % classes

        def take() -> None:
            model.zero_grad(set_to_none=True)
            with precision.autocast():
                logits = model(batch)
            loss = functional.cross_entropy(logits.float(), labels)
            loss.backward()
            loss.item()  # waits for the device
            self.wait()

        return take

    def updated(self, optimizer: torch.optim.Optimizer) -> None:
        """Updates the parameters with the gradient that they hold."""
        optimizer.step()
        self.wait()

    def wait(self) -> None:
        """Waits until a GPU has finished its work."""
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)

    def reading(self, paths: Sequence[Path], recipe: Recipe) -> tuple[ReadCost, bool]:
        """Returns the seconds for reading an image; see `Timings`."""
        data, channels = recipe.data, recipe.model.options.get("in_channels", 3)
        image_format = custom_format(data.name, data.image_size, data.crop_pct, channels)
        sample = readable_sample(paths)
        photos = Photos.of(tuple(sample), image_format)
        ids = torch.arange(len(sample))
        check = seconds_each(partial(all_decoded, sample), len(sample))
        if data.augment.crop == "padded":  # nothing to cache
            crop = seconds_each(lambda: photos[ids], len(sample))
            check, crop = self.slowest(check, crop)
            return ReadCost(check, crop, crop), False
        side = least_side(data.augment, data.image_size)
        cache = PixelCache.of([reduced(path, channels=channels, side=side) for path in sample])
        cached = Photos(photos.paths, channels, photos.size, photos.crop_pct, cache=cache)
        draws = Draws(ids, seed=0)
        crop, from_cache = (
            seconds_each(
                partial(shown.random_views, draws, data.augment, size=shown.size), len(ids)
            )
            for shown in (photos, cached)
        )
        fits = can_be_written(cache.pixels.nbytes / len(sample) * len(paths))
        check, crop, from_cache, full = self.slowest(check, crop, from_cache, float(not fits))
        return ReadCost(check, crop, from_cache), full == 0

    def slowest(self, *values: float) -> list[float]:
        """Returns the largest of each value over all ranks, so that all choose the same."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.world.device)
        slowest: list[float] = self.world.gather(tensor).amax(0).tolist()
        return slowest


def mean_seconds(action: Callable[[], object]) -> float:
    """Calls a function a few times, and returns the mean of its seconds without the first."""
    action()  # also builds what all others use again
    began, times = time.perf_counter(), 0
    while times < FEWEST or (times < MOST and time.perf_counter() - began < SECONDS):
        action()
        times += 1
    return (time.perf_counter() - began) / times


def seconds_each(action: Callable[[], object], images: int) -> float:
    """Calls a function once, and returns its seconds for each of some images."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) / images


def all_decoded(paths: Sequence[Path]) -> None:
    """Decodes images at their full size on all processors."""
    for _, image in prefetch(read_image, paths, most=len(paths)):
        image.result()


def readable_sample(paths: Sequence[Path]) -> list[Path]:
    """Returns images that can be decoded, out of a few of all parts of a list, or else the first.

    Raises:
        DataError: when none of the list can be decoded; the message names the first one.
    """
    spread = paths[:: max(1, len(paths) // SAMPLE)][:SAMPLE]
    sample = list(filter(can_be_read, spread)) or list(islice(filter(can_be_read, paths), 1))
    if not sample:
        read_image(paths[0])  # raises its reason
    return sample


def can_be_read(path: Path) -> bool:
    """Returns whether an image can be decoded; training reports those that cannot."""
    try:
        read_image(path)
    except DataError:
        return False
    return True
