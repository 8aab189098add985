"""Training throughput of resnetkit against the way the peers train, side by side in one run.

Both train the same network on random images of the same size with the same batch. `ours` is the
training step of `resnet train`: resident uint8 images, batched augmentation, channels-last, the
precision and kernels that `auto` chooses for a long training, in the environment that the command
sets. `peer` is what public trainers do: torchvision's network (for the CIFAR networks, which it
lacks, ours), a data set that hands out one PIL image at a time, transforms, a DataLoader with two
workers, eager float32 in NCHW.

    python benchmarks/train_throughput.py --network resnet20
    python benchmarks/train_throughput.py --network resnet50 --rounds 3 --seconds 10
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass

from side_by_side import (
    Comparison,
    Measurement,
    Plan,
    measured,
    print_measurement,
    results,
    script,
)


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        size: of the images, in pixels.
        batch_size: images a step.
        samples: images in the data set.
        warm_up: steps before those that are timed.
    """

    size: int
    batch_size: int
    samples: int
    warm_up: int


CASES = {
    "resnet20": Case(size=32, batch_size=128, samples=5_000, warm_up=5),
    "resnet56": Case(size=32, batch_size=128, samples=5_000, warm_up=5),
    "resnet18": Case(size=224, batch_size=32, samples=500, warm_up=2),
    "resnet50": Case(size=224, batch_size=16, samples=500, warm_up=2),
}


def comparison(network: str) -> Comparison:
    """Returns the comparison of a network; nothing is imported or measured yet."""
    case = CASES[network]
    command = (script("train_throughput.py"), "--network", network, "--measure")
    title = f"training {network} at {case.size}x{case.size}, batch {case.batch_size}"
    return Comparison(
        f"{title} (peer: as public trainers do it)", (*command, "ours"), (*command, "peer")
    )


def measure_ours(network: str, seconds: float) -> Measurement:
    """Measures our training step, pipeline included."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command sets it
    from resnetkit.data.datasets import DATASETS
    from resnetkit.runtime.process_group import open_world
    from resnetkit.training.recipe import load_recipe
    from resnetkit.training.setup import prepare
    from resnetkit.training.step import train_step

    case = CASES[network]
    DATASETS["random"] = lambda: random_dataset(case)
    changes = {"model.name": network, "data.name": "random", "data.augment.crop_padding": 4}
    changes |= {"data.augment.flip": "random", "batch_size": case.batch_size, "precision": "auto"}
    changes |= {"length": "64000 steps"}
    with open_world("cpu") as world:
        setup, state = prepare(load_recipe("digits", changes), world)
        stream = setup.loader.stream(setup.batches.between(0, 64_000), setup.crop_size)

        def step(images_and_labels) -> None:
            nonlocal state
            state, _ = train_step(setup, state, *images_and_labels)

        return measured(
            lambda: next(stream)[1](),
            step,
            case.batch_size,
            seconds=seconds,
            warm_up=case.warm_up,
            gflop_per_image=gflop_per_image(network),
        )


def gflop_per_image(network: str) -> float:
    """Returns what a training step computes for an image: forward, and twice that backward."""
    from resnetkit.models.summary import trace
    from resnetkit.models.zoo import find_architecture

    return 3 * 2 * trace(find_architecture(network)).multiply_adds / 1e9


def random_dataset(case: Case):
    """Returns random images in ten classes."""
    import torch

    from resnetkit.data.dataset import Dataset
    from resnetkit.data.stratified import stratified_split

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (case.samples,), generator=generator)
    shape = (case.samples, 3, case.size, case.size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    split = stratified_split(labels, test_fraction=0.1, validation_fraction=0.1)
    return Dataset("random", images, labels, tuple("0123456789"), split, True, "")


def measure_peer(network: str, seconds: float) -> Measurement:
    """Measures a training as public trainers write it."""
    import torch
    import torchvision
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from resnetkit.models.zoo import create_model

    case = CASES[network]
    dataset = random_dataset(case)
    images = dataset.images.permute(0, 2, 3, 1).numpy()
    labels = dataset.labels.tolist()
    transform = transforms.Compose(
        [
            transforms.RandomCrop(case.size, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ]
    )

    class Pictures(Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int):
            return transform(Image.fromarray(images[index])), labels[index]

    loader = DataLoader(Pictures(), case.batch_size, shuffle=True, num_workers=2, drop_last=True)
    theirs = getattr(torchvision.models, network, None)
    model = theirs(num_classes=10) if theirs else create_model(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss()
    batches = forever(loader)

    def step(batch) -> None:
        inputs, targets = batch
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return measured(
        lambda: next(batches), step, case.batch_size, seconds=seconds, warm_up=case.warm_up
    )


def forever(loader) -> Iterator:
    """Yields the batches of epoch after epoch."""
    while True:
        yield from loader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20", choices=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement")
    parser.add_argument("--measure", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is None:
        plan = Plan(options.rounds, options.seconds)
        print(results([comparison(options.network)], plan), end="")
    else:
        measure = {"ours": measure_ours, "peer": measure_peer}[options.measure]
        print_measurement(measure(options.network, options.seconds))


if __name__ == "__main__":
    main()
