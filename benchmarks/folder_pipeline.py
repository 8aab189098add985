"""The pipeline from JPEG files to batches: alone, and beside a training that must not wait for it.

Alone: random crops by area, 224x224, of JPEGs of 500x375 pixels, with one core; beside it what
torchvision's loader and transforms deliver on the same files, in turns. Beside a training:
ResNet-50 at 224 on a folder of 20,000 small JPEGs, with the time that steps wait for their batch;
and the same training with its images in memory. Files are drawn once and used again.

    python benchmarks/folder_pipeline.py --folder /tmp/jpegs
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from resnetkit.data.augment.crop_and_flip import Augmentation
from resnetkit.data.datasets import open_dataset
from resnetkit.data.images.photos import Photos
from resnetkit.runtime.process_group import World, open_world
from resnetkit.runtime.resources import usable_processors
from resnetkit.training.recipe import load_recipe
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.state import TrainingState
from resnetkit.training.step import train_step

CLASSES = 10
BATCH = 64


def draw(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Writes JPEGs of smooth colors with the grain of photos, unless they are there."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % CLASSES) / f"{number:05}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
            grain = rng.integers(-12, 13, (size[1], size[0], 1))
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def ours_alone(photos: Photos, rounds: int) -> Iterator[float]:
    """Yields images a second of our decoding, batch by batch."""
    shown = Augmentation(crop="area")
    for epoch in range(rounds):
        began = time.perf_counter()
        photos.random_views(torch.arange(BATCH), shown, seed=0, epoch=epoch, size=224)
        yield BATCH / (time.perf_counter() - began)


def theirs_alone(photos: Photos, rounds: int) -> Iterator[float]:
    """Yields images a second of torchvision's loader and transforms, up to uint8 as ours."""
    transform = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.PILToTensor()])
    for _ in range(rounds):
        began = time.perf_counter()
        for path in photos.paths[:BATCH]:
            with path.open("rb") as file:
                transform(Image.open(file).convert("RGB"))
        yield BATCH / (time.perf_counter() - began)


def prepared(folder: Path, world: World, *, in_memory: bool) -> tuple[TrainingSetup, TrainingState]:
    """Returns a training of ResNet-50 on the folder, or on some of its images in memory."""
    changes = {"model.name": "resnet50", "data.name": str(folder), "data.image_size": 224}
    changes |= {"batch_size": 16, "data.augment.flip": "random", "length": "1000 steps"}
    changes |= {"precision": "auto", "data.augment.crop_padding": 0}
    if not in_memory:
        changes |= {"data.augment.crop": "area"}
    setup, state = prepare(load_recipe("digits", changes), world)
    if in_memory:
        ids = torch.arange(512)
        loader = replace(
            setup.loader, images=setup.dataset.images[ids], labels=setup.loader.labels[ids]
        )
        batches = replace(setup.batches, sample_ids=ids)
        setup = replace(setup, loader=loader, batches=batches)
    return setup, state


def train(
    setup: TrainingSetup, state: TrainingState, steps: int, warm_up: int = 4
) -> tuple[float, float]:
    """Returns seconds a step, and seconds a step that it waited for its batch."""
    took, waited = [], []
    batches = setup.batches.between(0, steps + warm_up)
    for batch, images_and_labels in setup.loader.stream(batches, setup.crop_size):
        began = time.perf_counter()
        shown = images_and_labels()
        ready = time.perf_counter()
        state, _ = train_step(setup, state, *shown)
        if batch.step >= warm_up:
            took.append(time.perf_counter() - began)
            waited.append(ready - began)
    return statistics.mean(took), statistics.mean(waited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    chosen = parser.parse_args()
    large = draw(chosen.folder / "large", 200, (500, 375))
    small = draw(chosen.folder / "small", 20_000, (160, 120))

    photos = open_dataset(str(large), image_size=224).images
    assert isinstance(photos, Photos)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    runs = (ours_alone(photos, chosen.rounds), theirs_alone(photos, chosen.rounds))
    pairs = list(zip(*runs, strict=True))
    os.sched_setaffinity(0, cores)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{date.today()}, {platform.machine()}, {usable_processors()} cores,")
    print(f"{versions}, Python {platform.python_version()}; n = {len(pairs)}\n")
    for name, rates in zip(("ours", "torchvision"), zip(*pairs, strict=True), strict=True):
        low, high = min(rates), max(rates)
        print(f"{name}: {statistics.median(rates):.0f} images/s ({low:.0f} to {high:.0f}) a core")
    with open_world("cpu") as world:
        from_files, waited = train(*prepared(small, world, in_memory=False), chosen.steps)
        from_memory, _ = train(*prepared(small, world, in_memory=True), chosen.steps)
    files, memory, share = 1e3 * from_files, 1e3 * from_memory, 100 * (from_files / from_memory - 1)
    print(f"\nResNet-50 at 224, batch 16, n = {chosen.steps} steps: {files:.0f} ms a step from")
    print(f"20,000 files, of which {1e3 * waited:.1f} ms waiting; {memory:.0f} ms from memory;")
    print(f"the pipeline takes {share:.1f} % of a step")


if __name__ == "__main__":
    main()
