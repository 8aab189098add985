"""The pipeline from JPEG files to batches: alone, and in a training that must not wait for it.

Alone: random crops by area, 224x224, of JPEGs of 500x375 pixels, with one core; the peer is what
torchvision's transforms deliver from the same files. In a training: ResNet-50 at 224 on small
JPEGs; the peer is the same training with its images in memory. Files are drawn once and used again.

    python benchmarks/folder_pipeline.py --folder jpegs
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from side_by_side import (
    Comparison,
    Measurement,
    Plan,
    measured,
    print_measurement,
    results,
    script,
)

CLASSES = 10
BATCH = 64
SIZES = {"large": (500, 375), "small": (160, 120), "photos": (1600, 1200)}
IN_MEMORY = 512  # images of the training that needs no files


def comparisons(folder: Path) -> list[Comparison]:
    """Returns the comparisons on the files of a folder; nothing is imported or measured yet."""
    command = (script("folder_pipeline.py"), "--folder", str(folder), "--measure")
    return [
        Comparison(
            "JPEG 500x375 to crop 224x224, one core (peer: torchvision's transforms)",
            (*command, "crops"),
            (*command, "torchvision-crops"),
        ),
        Comparison(
            "training resnet50 at 224x224, batch 16, JPEGs of 160x120 (peer: images in memory)",
            (*command, "train-from-files"),
            (*command, "train-from-memory"),
        ),
    ]


def draw(folder: Path, *, small: int, large: int = 200, photos: int = 0) -> None:
    """Writes JPEGs of smooth colors with the grain of photos, unless they are there."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, count in (("large", large), ("small", small), ("photos", photos)):
        width, height = SIZES[name]
        for number in range(count):
            path = folder / name / str(number % CLASSES) / f"{number:05}.jpg"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
            grain = rng.integers(-12, 13, (height, width, 1))
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)


def on_one_core() -> None:
    """Leaves this process one core; before torch is imported, which counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure_crops(folder: Path, seconds: float) -> Measurement:
    """Measures our random crops by area, batch by batch."""
    on_one_core()
    import torch

    from resnetkit.data.augment.crop_and_flip import Augmentation
    from resnetkit.data.datasets import open_dataset
    from resnetkit.data.draws import Draws

    photos = open_dataset(str(folder / "large"), image_size=224).images
    crop = Augmentation(crop="area")

    def decode(epoch: int) -> None:
        photos.random_views(Draws(torch.arange(BATCH), 0, epoch), crop, size=224)

    epochs = iter(range(10**9))
    return measured(lambda: next(epochs), decode, BATCH, seconds=seconds, warm_up=1)


def measure_torchvision_crops(folder: Path, seconds: float) -> Measurement:
    """Measures torchvision's transforms, up to uint8 as ours."""
    on_one_core()
    from PIL import Image
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.PILToTensor()])
    paths = sorted((folder / "large").rglob("*.jpg"))[:BATCH]

    def decode(_: None) -> None:
        for path in paths:
            with path.open("rb") as file:
                transform(Image.open(file).convert("RGB"))

    return measured(lambda: None, decode, BATCH, seconds=seconds, warm_up=1)


def measure_training(folder: Path, seconds: float, *, in_memory: bool) -> Measurement:
    """Measures steps of ResNet-50 on the folder, or on some of its images in memory."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command sets it
    import torch

    from resnetkit.runtime.process_group import open_world
    from resnetkit.training.recipe import load_recipe
    from resnetkit.training.setup import prepare
    from resnetkit.training.step import train_step

    changes = {"model.name": "resnet50", "data.name": str(folder / "small")}
    changes |= {"data.image_size": 224, "data.augment.flip": "random", "precision": "auto"}
    changes |= {"data.augment.crop_padding": 0, "batch_size": 16, "length": "10000 steps"}
    changes |= {} if in_memory else {"data.augment.crop": "area"}
    with open_world("cpu") as world:
        setup, state = prepare(load_recipe("digits", changes), world)
        loader, batches = setup.loader, setup.batches
        if in_memory:
            ids = torch.arange(IN_MEMORY)
            loader = replace(loader, images=setup.dataset.images[ids], labels=loader.labels[ids])
            batches = replace(batches, sample_ids=ids)
        stream = loader.stream(batches.between(0, 10_000), setup.crop_size)

        def step(images_and_labels) -> None:
            nonlocal state
            state, _ = train_step(setup, state, *images_and_labels)

        return measured(lambda: next(stream)[1](), step, 16, seconds=seconds, warm_up=2)


def main() -> None:
    measures = {
        "crops": measure_crops,
        "torchvision-crops": measure_torchvision_crops,
        "train-from-files": lambda *given: measure_training(*given, in_memory=False),
        "train-from-memory": lambda *given: measure_training(*given, in_memory=True),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="of the JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement")
    parser.add_argument("--images", type=int, default=20_000, help="small JPEGs to train on")
    parser.add_argument("--measure", choices=measures, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is None:
        draw(options.folder, small=options.images)
        print(results(comparisons(options.folder), Plan(options.rounds, options.seconds)), end="")
    else:
        print_measurement(measures[options.measure](options.folder, options.seconds))


if __name__ == "__main__":
    main()
