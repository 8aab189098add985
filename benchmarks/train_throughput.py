"""Training throughput of resnetkit against the way the peers train, side by side in one run.

Both train the same network on random images of the same size with the same batch. `ours` is the
training step of `resnet train`: resident uint8 images, batched augmentation, channels-last, the
precision and kernels that `auto` chooses for a long training, in the environment that the command
sets. `peer` is what public trainers do: torchvision's network (for the CIFAR networks, which it
lacks, ours), a data set that hands out one PIL image at a time, transforms, a DataLoader with two
workers, eager float32 in NCHW. Each measurement is a fresh process and the two take turns, so that
a machine whose speed drifts treats both alike.

    python benchmarks/train_throughput.py --network resnet20 --rounds 5
    python benchmarks/train_throughput.py --network resnet50 --rounds 3 --steps 8
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

WARM_UP_STEPS = 5


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        size: of the images, in pixels.
        batch_size: images a step.
        samples: images in the data set.
    """

    size: int
    batch_size: int
    samples: int


CASES = {
    "resnet20": Case(size=32, batch_size=128, samples=5_000),
    "resnet56": Case(size=32, batch_size=128, samples=5_000),
    "resnet18": Case(size=224, batch_size=32, samples=500),
    "resnet50": Case(size=224, batch_size=16, samples=500),
}


def measure_ours(network: str, steps: int) -> dict[str, float]:
    """Returns the throughput of our training step, pipeline included."""
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
        batches = setup.batches.between(0, WARM_UP_STEPS + steps)

        def step() -> None:
            nonlocal state
            state, _ = train_step(setup, state, *setup.loader.training(next(batches)))

        return timed(step, steps, case)


def random_dataset(case: Case):
    """Returns random images in ten classes."""
    import torch

    from resnetkit.data.dataset import Dataset
    from resnetkit.data.splits import stratified_split

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (case.samples,), generator=generator)
    shape = (case.samples, 3, case.size, case.size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    split = stratified_split(labels, test_fraction=0.1, validation_fraction=0.1)
    return Dataset("random", images, labels, tuple("0123456789"), split, True, "")


def measure_peer(network: str, steps: int) -> dict[str, float]:
    """Returns the throughput of a training as public trainers write it."""
    import torch
    import torchvision
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from resnetkit.models.zoo import create_model

    case = CASES[network]
    images = random_dataset(case).images.permute(0, 2, 3, 1).numpy()
    labels = random_dataset(case).labels.tolist()
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

    def step() -> None:
        inputs, targets = next(batches)
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return timed(step, steps, case)


def forever(loader) -> Iterator:
    """Yields the batches of epoch after epoch."""
    while True:
        yield from loader


def timed(step: Callable[[], None], steps: int, case: Case) -> dict[str, float]:
    """Returns images a second after a warm-up, its seconds, and the peak memory in GiB."""
    began = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step()
    warm = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - warm
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "images_per_second": steps * case.batch_size / seconds,
        "warm_up_seconds": warm - began,
        "peak_gib": peak / 2**20,
    }


def measure_limit() -> dict[str, float]:
    """Returns the rate of large matrix products in this process, in GFLOP/s."""
    import torch

    rates = {}
    for name in ("float32", "bfloat16"):
        left, right = (torch.randn(2048, 2048, dtype=getattr(torch, name)) for _ in range(2))
        left @ right
        began = time.perf_counter()
        for _ in range(10):
            left @ right
        rates[name] = 10 * 2 * 2048**3 / (time.perf_counter() - began) / 1e9
    return rates


def in_fresh_process(what: str, network: str, steps: int) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, network, "--steps", str(steps)]
    command_sets = {} if what == "peer" else {"GOMP_SPINCOUNT": "1000"}
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **command_sets}
    )
    return json.loads(output.stdout.splitlines()[-1])


def processor() -> str:
    """Returns the name of the processor."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def compare(network: str, rounds: int, steps: int) -> None:
    """Prints the comparison as Markdown."""
    import torch
    import torchvision

    from resnetkit.models.summary import trace
    from resnetkit.models.zoo import find_architecture

    case = CASES[network]
    results: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    limits = []
    for number in range(rounds):
        limits.append(in_fresh_process("limit", network, steps))
        for who in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
            results[who].append(in_fresh_process(who, network, steps))
    speeds = {who: [r["images_per_second"] for r in rows] for who, rows in results.items()}
    ratios = [ours / peer for ours, peer in zip(speeds["ours"], speeds["peer"], strict=True)]
    limit = statistics.median(row["bfloat16"] for row in limits)
    flops = 3 * 2 * trace(find_architecture(network)).multiply_adds
    share = statistics.median(speeds["ours"]) * flops / (limit * 1e9)

    print(f"## {network} at {case.size}x{case.size}, batch {case.batch_size}\n")
    print(
        f"{date.today()}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__},"
        f" torchvision {torchvision.__version__}, Python {platform.python_version()};"
        f" n = {rounds} pairs of fresh processes taking turns, {steps} steps each after"
        f" {WARM_UP_STEPS}.\n"
    )
    print("| | images/s, median | lowest to highest | seconds of warm-up | peak memory |")
    print("|---|---|---|---|---|")
    for who, rows in results.items():
        low, high = min(speeds[who]), max(speeds[who])
        peak = max(row["peak_gib"] for row in rows)
        median = statistics.median(speeds[who])
        warm = statistics.median(row["warm_up_seconds"] for row in rows)
        print(
            f"| {who} | {median:,.1f} | {low:,.1f} to {high:,.1f} | {warm:.1f} | {peak:.2f} GiB |"
        )
    print(
        f"\nRatio ours / peer: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to"
        f" {max(ratios):.2f}. Large bfloat16 matrix products ran at {limit:,.0f} GFLOP/s in the"
        f" same run; our training step reaches {share:.0%} of that."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20", choices=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is None:
        compare(options.network, options.rounds, options.steps)
        return
    what, network = options.measure
    if what == "limit":
        print(json.dumps(measure_limit()))
    else:
        measure = {"ours": measure_ours, "peer": measure_peer}[what]
        print(json.dumps(measure(network, options.steps)))


if __name__ == "__main__":
    main()
