"""Work on very many images, in parts that are written whole: killed anywhere, none is lost.

manifest.json    what is wanted, of which network, and how many images and shards there are
images.jsonl     the images in order, a line for each; shard i has every n-th, from the i-th
parts/00007.*    what was computed of a shard, present when it is complete
a result         present when everything is: the answers in one file, or an index of the parts
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

from resnetkit.data.images.check import BadImage
from resnetkit.errors import DataError, UsageError
from resnetkit.storage import (
    exclusive,
    remove_leftovers,
    storage_errors,
    temporary_for,
    write_file,
)
from resnetkit.untrusted import printable, read_record

__all__ = [
    "ANSWERS",
    "FEATURES",
    "IMAGES",
    "LARGEST_MANIFEST",
    "PARTS",
    "Manifest",
    "Question",
    "Result",
    "ShardFolder",
    "in_words",
    "merge_answers",
    "open_shards",
    "write_part",
]

MANIFEST, IMAGES, PARTS, LOCK = "manifest.json", "images.jsonl", "parts", ".lock"
LARGEST_MANIFEST = 2**20  # bytes
MOST_SHARDS = 512  # files that are open at the same time when they are merged; often 1,024 may be
ADVICE = "Choose another folder with --out."


@dataclass(frozen=True)
class Question:
    """What is wanted of each image: equal questions have equal results, to the byte.

    Attributes:
        network_sha256: digest of the network; see `Engine`.
        origin: description of the network, for messages.
        precision: of the computation.
        batch_size: images that are computed together, which can change the last digits.
        wanted: such as `top 5` or `layer pool`.
        shards: number of parts.
        images: the paths that were given, as `in_words`; empty in folders of earlier versions.
    """

    network_sha256: str
    origin: str
    precision: str
    batch_size: int
    wanted: str
    shards: int
    images: str = ""


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    Attributes:
        question: what is wanted of each image.
        images: how many there are.
        sha256: digest of images.jsonl.
    """

    question: Question
    images: int
    sha256: str


@dataclass(frozen=True)
class Result:
    """Names of the files that hold what is computed.

    Attributes:
        name: of the file that is present when everything is.
        suffix: of the parts.
    """

    name: str
    suffix: str


ANSWERS = Result("answers.jsonl", ".jsonl")
FEATURES = Result("index.json", ".safetensors")


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards whose images are listed.

    Attributes:
        path: of the folder.
        manifest: the content of its manifest.json.
        files: names of the result and of the parts.
    """

    path: Path
    manifest: Manifest
    files: Result

    @property
    def result(self) -> Path:
        """Returns the path of the result, which is present when every shard is complete."""
        return self.path / self.files.name

    @property
    def parts(self) -> list[Path]:
        """Returns the paths of all parts, in order."""
        return [self.part(shard) for shard in range(self.manifest.question.shards)]

    @property
    def missing(self) -> list[int]:
        """Returns the shards that are not complete."""
        if self.result.exists():
            return []
        return [shard for shard, part in enumerate(self.parts) if not part.exists()]

    def part(self, shard: int) -> Path:
        """Returns the path of what is computed of a shard."""
        return self.path / PARTS / f"{shard:05d}{self.files.suffix}"

    def images(self, shard: int) -> Iterator[str | BadImage]:
        """Yields the images of a shard, which are read from the list one by one.

        Raises:
            DataError: when the list is not the one of the manifest.
        """
        path, digest = self.path / IMAGES, hashlib.sha256()
        changed = DataError(
            f"{path} has changed since the images were listed. Remove the folder, or choose another"
            " one with --out."
        )
        try:
            file = path.open("rb")
        except OSError as error:
            raise changed from error
        with file:
            for index, line in enumerate(file):
                digest.update(line)
                if index % self.manifest.question.shards == shard:
                    try:
                        image = image_in(line)
                    except (ValueError, KeyError, TypeError) as error:
                        raise changed from error
                    yield image
        if digest.hexdigest() != self.manifest.sha256:
            raise changed


@contextmanager
def open_shards(
    folder: Path, question: Question, files: Result, images: Iterable[str | bytes | BadImage]
) -> Iterator[ShardFolder]:
    """Opens a folder of shards for one process at a time; the images are listed if it is new.

    Args:
        folder: it may exist.
        question: what is wanted.
        files: names of the result and of the parts.
        images: in the order of the results; they are listed once, and read one by one.

    Raises:
        UsageError: when the folder holds something else, or results of another question.
        DataError: when the manifest is corrupt.
        StorageError: when the folder cannot be written.
    """
    if not 1 <= question.shards <= MOST_SHARDS:
        raise UsageError(f"--shards {question.shards}: expected from 1 to {MOST_SHARDS:,}.")
    with storage_errors(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in folder.iterdir()]
    if MANIFEST not in names and any(not name.startswith((".", IMAGES)) for name in names):
        raise UsageError(f"{folder} is not empty and holds no shards. {ADVICE}")
    waiting = f"another command writes into {folder}: waiting for it."
    with exclusive(folder / LOCK, waiting=waiting, advice=ADVICE) as held:
        if held:
            with storage_errors(folder, ADVICE):
                remove_leftovers(folder)
        if (folder / MANIFEST).exists():
            manifest = read_manifest(folder / MANIFEST)
            refuse_other_question(folder, manifest.question, question)
        else:
            manifest = new_manifest(folder, question, images)
        yield ShardFolder(folder, manifest, files)


def new_manifest(
    folder: Path, question: Question, images: Iterable[str | bytes | BadImage]
) -> Manifest:
    """Lists the images and writes the manifest after them."""
    digest, count = hashlib.sha256(), 0
    with storage_errors(folder, ADVICE):
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
    return read_record(
        path,
        Manifest,
        LARGEST_MANIFEST,
        advice="Remove the folder, or choose another one with --out.",
    )


def in_words(paths: Sequence[str]) -> str:
    """Returns the paths of images as they are told apart: the first, their number, and a digest.

    Args:
        paths: of images, folders or lists; `-` is standard input.
    """
    absolute = [path if path == "-" else os.path.abspath(path) for path in paths]
    digest = hashlib.sha256("\0".join(absolute).encode(errors="surrogatepass")).hexdigest()
    more = f" and {len(absolute) - 1:,} more ({digest[:8]})" if len(absolute) > 1 else ""
    return f"{printable(absolute[0])}{more}"


def refuse_other_question(folder: Path, before: Question, now: Question) -> None:
    """Raises UsageError, naming the first difference, unless two questions are equal."""
    for name, value in asdict(before).items():
        is_unknown = name == "images" and not value
        if not is_unknown and value != asdict(now)[name]:
            raise UsageError(
                f"{folder} holds the results of another question: {name} was {value}, and is"
                f" {asdict(now)[name]} now. {ADVICE}"
            )


def image_in(line: bytes) -> str | BadImage:
    """Returns the image in a line of images.jsonl."""
    value = json.loads(line)
    if isinstance(value, str):
        return value
    return BadImage(None if value["path"] is None else Path(value["path"]), value["reason"])


def write_part(path: Path, content: Iterable[bytes | memoryview]) -> None:
    """Writes a part as its content comes; the file appears when it is complete.

    Raises:
        StorageError: when it cannot be written.
    """
    temporary = temporary_for(path)
    try:
        with storage_errors(path, ADVICE):
            path.parent.mkdir(exist_ok=True)
            file = temporary.open("wb")
        with file:
            for piece in content:  # whose own errors are not those of writing
                with storage_errors(path, ADVICE):
                    file.write(piece)
            with storage_errors(path, ADVICE):
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def merge_answers(folder: ShardFolder) -> None:
    """Writes the answers of all shards in the order of the images, and removes the parts.

    Raises:
        DataError: when a part has too few answers.
        StorageError: when they cannot be written.
    """
    path, images, count = folder.result, folder.manifest.images, 0
    if path.exists():
        return
    temporary = temporary_for(path)
    with storage_errors(path, ADVICE), ExitStack() as opened:
        (folder.path / PARTS).mkdir(exist_ok=True)  # no images, no parts
        parts = [opened.enter_context(part.open("rb")) for part in folder.parts]
        with temporary.open("wb") as file:
            for part in islice(cycle(parts), images):
                line = part.readline()
                count += bool(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
    if count != images:
        temporary.unlink()
        raise DataError(
            f"the parts in {folder.path / PARTS} have {count:,} answers for {images:,} images:"
            " they were changed. Remove them, and the same command answers again."
        )
    temporary.rename(path)
    shutil.rmtree(folder.path / PARTS, ignore_errors=True)
