"""Features of very many images: a safetensors file for each shard, an index, and the bad images.

The folder is one of `shards`, whose parts stay. Each is a file of features (see `features`) with
two more tensors: `rows`, int64, the positions of its images in images.jsonl, and `bad`, the lines
of bad.jsonl for the images of the shard that could not be read.

index.json    layer and network, how many images there are, and how many in each part
bad.jsonl     row, path and error of each image without features
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from resnetkit.data.images.check import BadImage
from resnetkit.errors import DataError
from resnetkit.inference.engine import Engine, Floats
from resnetkit.inference.features import (
    Features,
    Library,
    Rows,
    corrupt_features,
    features_in,
    opened_tensors,
    read_features,
    read_tensors,
    saved,
    tensors_of,
)
from resnetkit.inference.predictor import Activations
from resnetkit.inference.shards import (
    ADVICE,
    FEATURES,
    IMAGES,
    LARGEST_MANIFEST,
    PARTS,
    ShardFolder,
)
from resnetkit.storage import remove_leftovers, storage_errors, write_file
from resnetkit.untrusted import name_as_text, read_record

__all__ = [
    "BAD",
    "FeatureIndex",
    "FeatureShards",
    "index_features",
    "open_library",
    "part_content",
]

BAD = "bad.jsonl"

PART_ADVICE = "Remove it, and the command that wrote it computes it again."


@dataclass(frozen=True)
class FeatureIndex:
    """The content of index.json.

    Attributes:
        layer: as for `Predictor.features`.
        origin: description of the network.
        network_sha256: see the function `features.network_sha256`.
        width: D, the features of an image.
        images: that have features.
        bad: images that have none.
        parts: images of each part, whose files are named in order.
    """

    layer: str
    origin: str
    network_sha256: str
    width: int
    images: int
    bad: int
    parts: tuple[int, ...]


def part_content(
    outputs: Iterable[Activations | BadImage], engine: Engine, layer: str, rows: Iterable[int]
) -> list[bytes | memoryview]:
    """Returns the content of a part, in pieces.

    Args:
        outputs: features of the images of a shard.
        engine: that computes them.
        layer: likewise.
        rows: positions of these images in images.jsonl.
    """
    values: list[Floats] = []
    paths, of_values, bad = [], [], []
    for row, output in zip(rows, outputs, strict=False):
        if isinstance(output, BadImage):
            bad.append(bad_line(row, output))
        else:
            values.append(output.values)
            paths.append(output.name or "")
            of_values.append(row)
    stacked = np.stack(values) if values else np.zeros((0, 0), np.float32)
    values.clear()  # they are copied
    features = Features(stacked, paths, layer, engine.origin, engine.network_sha256)
    tensors = {
        **tensors_of(features),
        "rows": np.array(of_values, dtype=np.int64),
        "bad": np.frombuffer("".join(bad).encode(), dtype=np.uint8),
    }
    return saved(tensors, features.metadata)


def bad_line(row: int, image: BadImage) -> str:
    """Returns a line of bad.jsonl, in ASCII."""
    path = "-" if image.path is None else name_as_text(os.fspath(image.path))
    return json.dumps({"row": row, "path": path, "error": image.reason}) + "\n"


def index_features(folder: ShardFolder) -> FeatureIndex:
    """Writes bad.jsonl and index.json, which say that all parts are there, and returns the index.

    Raises:
        DataError: when a part is corrupt, or no image has features.
        StorageError: when they cannot be written.
    """
    if folder.result.exists():
        return read_index(folder.path)
    counts, bad, facts, width = [], [], {}, 0
    for path in folder.parts:
        with corrupt_features(path, PART_ADVICE), opened_tensors(path) as file:
            count, columns = file.get_slice("features").get_shape()
            counts.append(count)
            facts, width = dict(file.metadata()), max(width, columns)
            bad += file.get_tensor("bad").tobytes().decode().splitlines(keepends=True)
    if not any(counts):
        raise DataError(
            f"there is no image to take features of: {folder.path / IMAGES} lists what was found."
        )
    index = FeatureIndex(
        **facts, width=width, images=sum(counts), bad=len(bad), parts=tuple(counts)
    )
    with storage_errors(folder.path, ADVICE):
        remove_leftovers(folder.path / PARTS)
        bad.sort(key=lambda line: int(json.loads(line)["row"]))
        write_file(folder.path / BAD, "".join(bad))
        write_file(folder.result, json.dumps(asdict(index), indent=1) + "\n")
    return index


def read_index(folder: Path) -> FeatureIndex:
    """Reads the index of a folder of features.

    Raises:
        DataError: when there is none, or it is corrupt.
    """
    path = folder / FEATURES.name
    if not path.exists():
        raise DataError(
            f"{folder} holds no finished features: it has no {FEATURES.name}, which 'resnet"
            " features --shards' writes when all are computed."
        )
    return read_record(
        path,
        FeatureIndex,
        LARGEST_MANIFEST,
        advice="Remove it, and the command that wrote it writes it again.",
    )


@dataclass(frozen=True)
class FeatureShards:
    """The features in a folder, of which one part is read at a time; see `Library`."""

    folder: Path
    index: FeatureIndex

    @property
    def layer(self) -> str:
        return self.index.layer

    @property
    def origin(self) -> str:
        return self.index.origin

    @property
    def network_sha256(self) -> str:
        return self.index.network_sha256

    @property
    def images(self) -> int:
        return self.index.images

    def blocks(self) -> Iterator[tuple[Rows, Features]]:
        """Yields the rows and the features of each part.

        Raises:
            DataError: when a part is missing, corrupt, or not the one of the index.
        """
        for shard, count in enumerate(self.index.parts):
            if count:
                yield self.part(shard)

    def part(self, shard: int) -> tuple[Rows, Features]:
        """Reads the rows and the features of a part.

        Raises:
            DataError: as for `blocks`.
        """
        path = self.folder / PARTS / f"{shard:05d}{FEATURES.suffix}"
        tensors, facts = read_tensors(path)
        with corrupt_features(path, PART_ADVICE):
            features, rows = features_in(tensors, facts), tensors["rows"]
            found = (features.layer, features.network_sha256, features.values.shape[1])
            expected = (self.layer, self.network_sha256, self.index.width)
            count = self.index.parts[shard]
            if found != expected or rows.shape != (count,) or rows.dtype != np.int64:
                raise ValueError("it is not the part that the index describes")
        return rows, features


def open_library(path: Path) -> Library:
    """Opens the features in a file or in a folder of shards.

    Raises:
        DataError: when there are none, or they are corrupt.
    """
    return FeatureShards(path, read_index(path)) if path.is_dir() else read_features(path)
