"""Answers for very many images, in parts that are written whole: killed anywhere, none is lost.

manifest.json    what is asked, of which network, and how many images and shards there are
images.jsonl     the images in order, a line for each; shard i has every n-th, from the i-th
parts/00007.jsonl    the answers of a shard, present when it is complete
answers.jsonl    all answers in the order of the images, in place of the parts
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

from pydantic import TypeAdapter

from resnetkit.data.images.check import BadImage
from resnetkit.errors import DataError, UsageError
from resnetkit.storage import remove_leftovers, storage_errors, temporary_for, write_file
from resnetkit.untrusted import parse_json, read_bounded

__all__ = [
    "ANSWERS",
    "Manifest",
    "Question",
    "images_of_shard",
    "merge",
    "missing_shards",
    "open_manifest",
    "write_part",
]

MANIFEST, IMAGES, PARTS, ANSWERS = "manifest.json", "images.jsonl", "parts", "answers.jsonl"
LARGEST_MANIFEST = 2**20  # bytes
MOST_SHARDS = 4096  # files that are open at the same time when they are merged
ADVICE = "Choose another folder with --out."


@dataclass(frozen=True)
class Question:
    """What is asked about each image: equal questions have equal answers, to the byte.

    Attributes:
        network_sha256: digest of the network; see `Engine`.
        origin: description of the network, for messages.
        precision: of the computation.
        batch_size: images that are computed together, which can change the last digits.
        top: classes in an answer.
        shards: number of parts.
    """

    network_sha256: str
    origin: str
    precision: str
    batch_size: int
    top: int
    shards: int


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    Attributes:
        question: what is asked about each image.
        images: how many there are.
        sha256: digest of images.jsonl.
    """

    question: Question
    images: int
    sha256: str


def open_manifest(
    folder: Path, question: Question, images: Iterable[str | bytes | BadImage]
) -> Manifest:
    """Returns the manifest of a folder; the images are listed if it has none.

    Args:
        folder: of the answers; it may exist.
        question: what is asked.
        images: in the order of the answers; they are listed once, and read one by one.

    Raises:
        UsageError: when the folder holds something else, or answers to another question.
        DataError: when the manifest or the list is corrupt.
        StorageError: when the folder cannot be written.
    """
    if not 1 <= question.shards <= MOST_SHARDS:
        raise UsageError(f"--shards {question.shards}: expected from 1 to {MOST_SHARDS:,}.")
    path = folder / MANIFEST
    if not path.exists():
        with storage_errors(folder, ADVICE):
            folder.mkdir(parents=True, exist_ok=True)
            names = [entry.name for entry in folder.iterdir()]
        if any(not name.startswith((".", "images.jsonl")) for name in names):
            raise UsageError(f"{folder} is not empty and holds no answers. {ADVICE}")
        return new_manifest(folder, question, images)
    manifest = read_manifest(path)
    if manifest.question != question:
        raise UsageError(
            f"{folder} holds answers to another question:"
            f" {difference(manifest.question, question)}. {ADVICE}"
        )
    with storage_errors(folder, ADVICE):
        remove_leftovers(folder)
    return manifest


def new_manifest(
    folder: Path, question: Question, images: Iterable[str | bytes | BadImage]
) -> Manifest:
    """Lists the images and writes the manifest after them."""
    digest, count = hashlib.sha256(), 0
    with storage_errors(folder, ADVICE):
        remove_leftovers(folder)
        temporary = temporary_for(folder / IMAGES)
        with temporary.open("wb") as file:
            for image in images:
                line = line_of(image)
                digest.update(line)
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / IMAGES)
        manifest = Manifest(question, count, digest.hexdigest())
        write_file(folder / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")
    return manifest


def line_of(image: str | bytes | BadImage) -> bytes:
    """Returns an image as a line of images.jsonl.

    Raises:
        UsageError: for the content of an image, which has no path.
    """
    if isinstance(image, bytes):
        raise UsageError("standard input is an image: --out expects paths of images.")
    if isinstance(image, BadImage):
        value: object = {"path": None if image.path is None else str(image.path)}
        value = {**value, "reason": image.reason}  # type: ignore[dict-item]
    else:
        value = os.path.abspath(image)
    return json.dumps(value).encode() + b"\n"  # ASCII: what is not UTF-8 in a path is escaped


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        DataError: when it is corrupt.
    """
    try:
        content = parse_json(read_bounded(path, LARGEST_MANIFEST))
        return TypeAdapter(Manifest).validate_python(content)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is corrupt ({type(error).__name__}). Remove the folder, or choose another one"
            " with --out."
        ) from error


def difference(before: Question, now: Question) -> str:
    """Returns the first value in which two questions differ."""
    for name, value in asdict(before).items():
        if value != asdict(now)[name]:
            return f"{name} was {value}, and is {asdict(now)[name]} now"
    return "they are equal"


def part_path(folder: Path, shard: int) -> Path:
    """Returns the path of the answers of a shard."""
    return folder / PARTS / f"{shard:05d}.jsonl"


def missing_shards(folder: Path, manifest: Manifest) -> list[int]:
    """Returns the shards that have no answers yet."""
    if (folder / ANSWERS).exists():
        return []
    shards = range(manifest.question.shards)
    return [shard for shard in shards if not part_path(folder, shard).exists()]


def images_of_shard(folder: Path, manifest: Manifest, shard: int) -> Iterator[str | BadImage]:
    """Yields the images of a shard, which are read from the list one by one.

    Raises:
        DataError: when the list is not the one of the manifest.
    """
    digest = hashlib.sha256()
    with (folder / IMAGES).open("rb") as file:
        for index, line in enumerate(file):
            digest.update(line)
            if index % manifest.question.shards == shard:
                yield image_in(line)
    if digest.hexdigest() != manifest.sha256:
        raise DataError(
            f"{folder / IMAGES} has changed since the images were listed. Remove the folder, or"
            " choose another one with --out."
        )


def image_in(line: bytes) -> str | BadImage:
    """Returns the image in a line of images.jsonl."""
    value = json.loads(line)
    if isinstance(value, str):
        return value
    return BadImage(None if value["path"] is None else Path(value["path"]), value["reason"])


def write_part(folder: Path, shard: int, lines: Iterable[str]) -> None:
    """Writes the answers of a shard as they come; the file appears when they are complete.

    Raises:
        StorageError: when it cannot be written.
    """
    path = part_path(folder, shard)
    temporary = temporary_for(path)
    try:
        with storage_errors(path, ADVICE):
            path.parent.mkdir(exist_ok=True)
        with storage_errors(path, ADVICE), temporary.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def merge(folder: Path, manifest: Manifest) -> Path:
    """Writes the answers of all shards in the order of the images, and removes the parts.

    Raises:
        DataError: when a part has too few answers.
        StorageError: when they cannot be written.
    """
    path, count = folder / ANSWERS, 0
    if path.exists():
        return path
    temporary = temporary_for(path)
    with storage_errors(path, ADVICE), ExitStack() as opened:
        shards = range(manifest.question.shards)
        (folder / PARTS).mkdir(exist_ok=True)  # no images, no parts
        parts = [opened.enter_context(part_path(folder, shard).open("rb")) for shard in shards]
        with temporary.open("wb") as file:
            for part in islice(cycle(parts), manifest.images):
                line = part.readline()
                count += bool(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
    if count != manifest.images:
        temporary.unlink()
        raise DataError(
            f"the parts in {folder / PARTS} have {count:,} answers for {manifest.images:,} images:"
            " they were changed. Remove them, and the same command answers again."
        )
    temporary.rename(path)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    return path
