"""Measures what an exported network promises: its answers, its memory, its start.

Usage: python benchmarks/exported.py FOLDER MODEL [--data NAME] [--images N] [--calls N]

FOLDER is an exported network and MODEL the network that it was exported from. Logits and top-1
classes are compared with those of torch in float32, in batches of 1, 2, 7 and 32 images; memory is
watched over calls of random batch sizes from 1 to 32; and the command `resnet predict` is timed to
its first answer, in fresh processes. Prints JSON.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

BATCHES = (1, 2, 7, 32)
LARGEST = 32
STARTS = 7
WARM_UP = 1000  # calls before memory is watched
PARTS = 10  # of the calls, after each of which it is
DRAWN_SIZE = (640, 480)
TIE = 1e-4  # of the largest logit: torch itself does not tell such classes apart

Array = npt.NDArray[Any]


def answers(engine: Any, pixels: Array, batch: int) -> Array:
    """Returns the logits of all images, computed in batches."""
    starts = range(0, len(pixels), batch)
    return np.concatenate(
        [engine.features(pixels[start : start + batch], "fc") for start in starts]
    )


def compared(expected: Array, logits: Array) -> dict[str, Any]:
    """Returns how logits differ from those of torch."""
    largest = float(np.abs(expected).max())
    other = (logits.argmax(1) != expected.argmax(1)).nonzero()[0]
    gaps = expected.max(1)[other] - expected[other, logits.argmax(1)[other]]
    return {
        "images": len(expected),
        "logits_error_of_largest": float(np.abs(logits - expected).max()) / largest,
        "other_top1": len(other),
        "ties": [
            {"image": int(image), "gap_of_largest": float(gap) / largest}
            for image, gap in zip(other, gaps, strict=True)
            if gap <= TIE * largest
        ],
    }


def accuracy(exported: Any, network: Any, pixels: Array) -> dict[str, Any]:
    """Compares an exported network with torch in batches of several sizes."""
    from resnetkit.inference.engines.torch import TorchEngine

    expected = answers(TorchEngine(network, device="cpu"), pixels, LARGEST)
    return {
        f"batches of {batch}": compared(expected, answers(exported.engine, pixels, batch))
        for batch in BATCHES
    }


def resident_bytes() -> int:
    """Returns the memory of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def memory(exported: Any, calls: int) -> dict[str, Any]:
    """Watches the memory over calls of random batch sizes, after a warm-up of the same kind.

    The warm-up gives the buffers of the engine and the heap of the process their final size; a leak
    grows afterwards too, and evenly.
    """
    sizes = random.Random(0)
    shape = exported.engine.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (LARGEST, *shape), dtype=np.uint8)
    for size in [
        *range(1, LARGEST + 1),
        *(sizes.randint(1, LARGEST) for _ in range(min(WARM_UP, calls))),
    ]:
        exported.engine.probabilities(pixels[:size])
    began, resident = time.perf_counter(), [resident_bytes()]
    for _ in range(PARTS):
        for _ in range(calls // PARTS):
            exported.engine.probabilities(pixels[: sizes.randint(1, LARGEST)])
        resident.append(resident_bytes())
    return {
        "calls": calls // PARTS * PARTS,
        "seconds": round(time.perf_counter() - began, 1),
        "MiB_by_part": [round(count / 2**20, 2) for count in resident],
        "growth_percent": round(100 * (max(resident) / resident[0] - 1), 2),
    }


def starts(folder: str, photo: str) -> dict[str, Any]:
    """Times fresh processes from their start to the answer for one photo."""
    command = [sys.executable, "-m", "resnetkit", "predict", folder, photo]
    alone = [sys.executable, str(Path(folder) / "predict.py"), photo]
    return {"resnet predict": timed(command), "predict.py": timed(alone)}


def timed(command: list[str]) -> dict[str, Any]:
    """Runs a command several times after once to warm up the disk."""
    seconds = []
    for _ in range(STARTS + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return {
        "n": STARTS,
        "median_seconds": round(statistics.median(seconds[1:]), 3),
        "least": round(min(seconds[1:]), 3),
        "most": round(max(seconds[1:]), 3),
    }


def images_for(exported: Any, data: str | None, count: int) -> Array:
    """Returns pixels of a data set's test split, or drawn ones, uint8 (N, C, H, W)."""
    if data is None:
        generator = np.random.default_rng(0)
        return np.stack([drawn(exported, generator) for _ in range(count)])
    from resnetkit.evaluation.network_data import data_of

    dataset = data_of(exported, data)
    return np.asarray(dataset.images[dataset.splits["test"][:count]].numpy())


def drawn(exported: Any, generator: np.random.Generator) -> Array:
    """Returns the pixels of a photo of smooth random colors with noise."""
    coarse = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(DRAWN_SIZE, Image.Resampling.BICUBIC))
    noise = generator.integers(-20, 21, smooth.shape)
    noisy = (smooth.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    pixels: Array = exported.transform.pixels(Image.fromarray(noisy))
    return pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("model")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=100_000)
    options = parser.parse_args()

    from resnetkit.inference.parity import load_exported
    from resnetkit.runtime.processor import processor_features, processor_name
    from resnetkit.runtime.resources import usable_processors
    from resnetkit.weights.load import load_network

    exported = load_exported(Path(options.folder))
    pixels = images_for(exported, options.data, options.images)
    with tempfile.TemporaryDirectory() as temporary:
        photo = Path(temporary) / "photo.jpg"
        Image.effect_noise(DRAWN_SIZE, 50).convert("RGB").save(photo)
        results = {
            "date": date.today().isoformat(),
            "processor": f"{processor_name()}, {usable_processors()} cores",
            "features": " ".join(processor_features()),
            "python": platform.python_version(),
            "versions": exported.config.versions,
            "network": exported.origin,
            "data": options.data or "drawn photos",
            "start": starts(options.folder, str(photo)),
            "memory": memory(exported, options.calls),
            "accuracy": accuracy(exported, load_network(options.model), pixels),
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
