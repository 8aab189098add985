"""Writes a data set as image files: split/class/NNNN.png, as custom images are read."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import get_args

from resnetkit.data.contact_sheet import picture
from resnetkit.data.dataset import Dataset
from resnetkit.data.splits import Split
from resnetkit.errors import StorageError, UsageError
from resnetkit.storage import new_folder, storage_errors

__all__ = ["export_images"]

FOLDER_OF_SPLIT: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}
BLOCK_BYTES = 4096  # of which every file occupies at least one
ADVICE = "Free some space, or choose another folder with --out."


def export_images(
    dataset: Dataset,
    folder: Path,
    *,
    splits: Sequence[Split] = get_args(Split),
    observe: Callable[[float], None] = lambda fraction: None,
) -> dict[Split, int]:
    """Writes the images of a data set as PNG files, all of them or none.

    Args:
        dataset: in memory or memory-mapped; custom images are files already.
        folder: becomes train|val|test/class/NNNN.png; it must not exist.
        splits: those that are written.
        observe: called with the fraction done.

    Returns:
        The number of images of each split.

    Raises:
        UsageError: when the images are files already, or no split is given.
        StorageError: when the folder exists, or there is no room for the images.
    """
    if dataset.custom is not None:
        raise UsageError(f"{dataset.name} consists of image files already: copy them.")
    if not splits:
        raise UsageError("no split is exported: expected train, validation or test.")
    splits = tuple(dict.fromkeys(splits))
    samples = [(split, sample) for split in splits for sample in dataset.splits[split]]
    refuse_existing(folder)
    with storage_errors(folder, ADVICE):
        refuse_without_room(folder, num_images=len(samples), bytes_each=bytes_of_image(dataset))
        with new_folder(folder) as temporary:
            names = folders_of_classes(dataset.class_names)
            for split in splits:
                for name in names:
                    (temporary / FOLDER_OF_SPLIT[split] / name).mkdir(parents=True)
            counts = Counter[tuple[Split, int]]()
            for index, (split, sample) in enumerate(samples):
                label = int(dataset.labels[sample])
                counts[split, label] += 1
                file = f"{counts[split, label]:04d}.png"
                path = temporary / FOLDER_OF_SPLIT[split] / names[label] / file
                path.write_bytes(png(dataset, int(sample)))
                observe((index + 1) / len(samples))
    return {split: len(dataset.splits[split]) for split in splits}


def refuse_existing(folder: Path) -> None:
    """Raises StorageError when a folder, or anything else of its name, exists."""
    if os.path.lexists(folder):
        raise StorageError(f"{folder} already exists: choose another folder with --out.")


def refuse_without_room(folder: Path, *, num_images: int, bytes_each: int) -> None:
    """Raises StorageError when the disk of a folder has no room for uncompressed images."""
    needed = num_images * -(-bytes_each // BLOCK_BYTES) * BLOCK_BYTES
    existing = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StorageError(
            f"{folder} may need {needed / 2**20:,.0f} MiB, but {free / 2**20:,.0f} MiB are free."
            f" {ADVICE}"
        )


def bytes_of_image(dataset: Dataset) -> int:
    height, width = dataset.image_size
    return dataset.channels * height * width


def folders_of_classes(class_names: Sequence[str]) -> list[str]:
    """Returns names of folders: those of the classes, with - for what separates folders."""
    names = [name.replace("/", "-").replace("\\", "-") for name in class_names]
    assert len(set(names)) == len(names), "two classes would share a folder"
    return names


def png(dataset: Dataset, sample: int) -> bytes:
    """Returns one sample as a PNG file, which holds its pixels exactly."""
    buffer = BytesIO()
    picture(dataset, sample).save(buffer, format="PNG")
    return buffer.getvalue()
