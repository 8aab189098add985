"""A newcomer's walk: images of ten classes in folders, checked, learned, measured and used.

Writes some images of CIFAR-10 as JPEGs, one folder a class, and then runs the commands that a
person would type, with what they print. Nothing but these commands is used.

    python benchmarks/custom_images_walk.py --folder /tmp/walk
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from resnetkit.data.datasets import open_dataset


def write_folder(folder: Path, images_a_class: int) -> None:
    """Writes the first training images of each class as JPEGs, unless they are there."""
    dataset = open_dataset("cifar10")
    train = dataset.splits["train"]
    for label, name in enumerate(dataset.class_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        members = train[dataset.labels[train] == label][:images_a_class]
        for sample_id in members.tolist():
            path = folder / name / f"{sample_id:05}.jpg"
            if not path.exists():
                pixels = dataset.images[sample_id].permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(path, quality=95)


def run(command: str, folder: Path, lines: int = 30) -> None:
    """Runs a command as a person would type it and prints its output."""
    print(f"\n$ {command}", flush=True)
    began = time.perf_counter()
    words = [sys.executable, "-m", "resnetkit", *shlex.split(command)[1:]]
    done = subprocess.run(
        words, cwd=folder, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output_lines = done.stdout.splitlines()
    if len(output_lines) > lines:
        output_lines[lines // 2 : -lines // 2] = ["..."]
    print("\n".join(output_lines))
    print(f"({time.perf_counter() - began:.0f} s, exit code {done.returncode})", flush=True)
    if done.returncode:
        sys.exit(f"the walk ends here: {command}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images-a-class", type=int, default=300)
    chosen = parser.parse_args()
    write_folder(chosen.folder / "photos", chosen.images_a_class)
    os.environ.pop("OMP_NUM_THREADS", None)
    first = sorted((chosen.folder / "photos" / "ship").iterdir())[0].relative_to(chosen.folder)
    for command in (
        "resnet data check photos",
        "resnet train --data photos --out run",
        "resnet evaluate run --out result",
        "resnet evaluate run --protocol ten-crop",
        f"resnet predict run photos/cat photos/dog/* {first} --top 2",
        "resnet features run photos --out features.safetensors",
        f"resnet nearest features.safetensors {first} --model run --top 5",
    ):
        run(command, chosen.folder, lines=24)


if __name__ == "__main__":
    main()
