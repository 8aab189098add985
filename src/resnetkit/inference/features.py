"""Files of features: the activations of a layer for many images, with their paths."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from resnetkit.errors import DataError, UsageError
from resnetkit.inference.engine import Floats
from resnetkit.inference.transform import EvalTransform
from resnetkit.storage import sorted_safetensors, storage_errors, write_file
from resnetkit.untrusted import open_regular

if TYPE_CHECKING:
    from resnetkit.weights.network import TrainedNetwork

__all__ = [
    "Features",
    "Library",
    "Rows",
    "corrupt_features",
    "encoder_for",
    "features_in",
    "network_sha256",
    "opened_tensors",
    "read_features",
    "read_tensors",
    "saved",
    "tensors_of",
    "write_features",
]

Rows = npt.NDArray[np.int64]
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Features:
    """The activations of a layer for some images.

    Attributes:
        values: float32 (N, D).
        paths: of the N images, as they were given; they may contain surrogates.
        layer: as for `Predictor.features`.
        origin: description of the network.
        network_sha256: see the function `network_sha256`.
    """

    values: Floats
    paths: Sequence[str]
    layer: str
    origin: str
    network_sha256: str

    @property
    def metadata(self) -> dict[str, str]:
        """Returns the metadata: the layer and the network that computed the features."""
        return {
            "layer": self.layer,
            "origin": self.origin,
            "network_sha256": self.network_sha256,
        }

    @property
    def images(self) -> int:
        """Returns N, the number of images."""
        return len(self.paths)

    def blocks(self) -> "Iterator[tuple[Rows, Features]]":
        """Yields all features as one block; see `Library`."""
        yield np.arange(len(self.paths)), self


class Library(Protocol):
    """Features of any number of images, which are read in blocks.

    Attributes:
        layer: as in `Features`.
        origin: likewise.
        network_sha256: likewise.
        images: their number.
    """

    @property
    def layer(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def network_sha256(self) -> str: ...
    @property
    def images(self) -> int: ...

    def blocks(self) -> Iterator[tuple[Rows, Features]]:
        """Yields positions of images in the order of all of them, int64 (N,), with features.

        Raises:
            DataError: when a block cannot be read.
        """
        ...


def network_sha256(network: "TrainedNetwork") -> str:
    """Returns a digest of everything that affects the output of a network.

    It covers the weights, options other than the defaults, the normalization and the transform, but
    not the number of batches seen in training, which has no effect and is missing in some formats.
    """
    transform = EvalTransform.of(network)
    options = {
        field.name: value
        for field in fields(network.architecture)
        if (value := getattr(network.architecture, field.name)) != field.default
        or field.default is MISSING
    }
    facts = [options, transform.size, transform.crop_pct, asdict(transform.resize)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    normalization = network.normalization
    constants = {"mean": normalization.mean, "std": normalization.std}
    state = {**network.model.state_dict(), **constants}
    for name, tensor in sorted(state.items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_features(path: Path, features: Features) -> None:
    """Writes features atomically to a .safetensors or .parquet file.

    A safetensors file contains `features`, float32 (N, D), and `paths`, uint8: the bytes of all
    paths, separated by zero bytes, which no path contains. Its metadata is `Features.metadata`. The
    paths are not part of it, because safetensors limits metadata to 100 MB of valid text.

    A parquet file has the columns path and features, and the same metadata.

    Raises:
        UsageError: when the extension is not one of these, the path is a folder, or pyarrow is not
            installed for a parquet file.
        StorageError: when the file cannot be written.
    """
    content = encoder_for(path)(features)
    with storage_errors(path, "Choose another path with --out."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)


def encoder_for(path: Path) -> Callable[[Features], bytes]:
    """Returns the function that encodes features for the extension of a path.

    Raises:
        UsageError: as for `write_features`.
    """
    if path.suffix not in ENCODERS:
        raise UsageError(f"--out {path}: expected a name that ends in {' or '.join(ENCODERS)}.")
    if path.is_dir():
        raise UsageError(f"--out {path}: it is a folder, expected a file.")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UsageError(
                f"--out {path}: parquet needs pyarrow: pip install 'resnetkit[parquet]', or write"
                " .safetensors."
            ) from error
    return ENCODERS[path.suffix]


def safetensors_content(features: Features) -> bytes:
    """Returns the content of a safetensors file."""
    return b"".join(saved(tensors_of(features), features.metadata))


def saved(tensors: Tensors, metadata: dict[str, str]) -> list[bytes | memoryview]:
    """Returns the content of a safetensors file in pieces; it is the same each time."""
    return sorted_safetensors(safetensors.numpy.save(tensors, metadata))


def tensors_of(features: Features) -> Tensors:
    """Returns the tensors of a safetensors file; see `write_features`."""
    paths = bytearray(b"\0".join(map(os.fsencode, features.paths)))
    return {
        "features": np.ascontiguousarray(features.values),
        "paths": np.array(paths, dtype=np.uint8),
    }


def parquet_content(features: Features) -> bytes:
    """Returns the content of a parquet file; bytes of paths that are not UTF-8 are escaped."""
    import pyarrow
    import pyarrow.parquet

    paths = [os.fsencode(path).decode(errors="backslashreplace") for path in features.paths]
    values = pyarrow.array(features.values.flatten())
    lists = pyarrow.FixedSizeListArray.from_arrays(values, features.values.shape[1])
    table = pyarrow.table({"path": paths, "features": lists})
    content = BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata(features.metadata), content)
    return content.getvalue()


ENCODERS = {".safetensors": safetensors_content, ".parquet": parquet_content}


def read_features(path: Path) -> Features:
    """Reads a safetensors file of features.

    Raises:
        DataError: when it cannot be read, is not a file of features, or is corrupt.
    """
    if path.suffix == ".parquet":
        raise DataError(f"{path}: expected features in a .safetensors file.")
    tensors, facts = read_tensors(path)
    with corrupt_features(path):
        return features_in(tensors, facts)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Reads the tensors and the metadata of a safetensors file.

    Raises:
        DataError: when it cannot be read, or is corrupt.
    """
    with corrupt_features(path), opened_tensors(path) as file:
        facts = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118


@contextmanager
def opened_tensors(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; see `safetensors.safe_open`, which would wait for a pipe.

    Raises:
        OSError: when it cannot be opened, or is not a regular file.
    """
    with open_regular(path):
        pass
    with safetensors.safe_open(path, framework="numpy") as file:
        yield file


@contextmanager
def corrupt_features(
    path: Path, advice: str = "Write it again with 'resnet features'."
) -> Iterator[None]:
    """Turns what is raised for the content of a file in the block into a DataError."""
    try:
        yield
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else error.strerror or "there is no such file"
        raise DataError(f"{path} cannot be read: {reason}.") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a file of features, or it is corrupt ({type(error).__name__}: {error})."
            f" {advice}"
        ) from error


def features_in(tensors: Tensors, facts: dict[str, str]) -> Features:
    """Returns the features in the content of a file.

    Raises:
        KeyError: when a tensor or an entry of the metadata is missing.
        ValueError: when a tensor has the wrong type or shape, or values that are not finite.
    """
    values, joined = tensors["features"], tensors["paths"]
    paths = [os.fsdecode(path) for path in joined.tobytes().split(b"\0")]
    if values.dtype != np.float32 or values.ndim != 2 or not values.size:
        raise ValueError(f"its features are {values.dtype} {values.shape}")
    if len(values) != len(paths):
        raise ValueError(f"it has {len(values):,} features for {len(paths):,} paths")
    if not np.isfinite(values).all():
        raise ValueError("it contains values that are not finite")
    return Features(values, paths, facts["layer"], facts["origin"], facts["network_sha256"])
