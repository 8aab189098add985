"""Reading named tensors from a file, as data: nothing in a file is ever executed."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from resnetkit.data.images.formats import IMAGE_SIGNATURE
from resnetkit.errors import WeightsError
from resnetkit.storage import sorted_safetensors
from resnetkit.untrusted import (
    BEGINNING_BYTES,
    open_regular,
    parse_json,
    read_bounded,
    recognized_mistake,
)
from resnetkit.weights.torch_files import LONGEST_KEY, Quantized, is_torch_file, read_torch_file

__all__ = [
    "Tensors",
    "check_names",
    "check_plain",
    "check_values",
    "is_safetensors",
    "is_tensors",
    "read_beginning",
    "read_content",
    "read_file",
    "read_metadata",
    "read_tensors",
    "safetensors_bytes",
]

Tensors = dict[str, Tensor]

# What torch, pickle and zipfile raise for a corrupt file.
READ_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    AssertionError,
    OverflowError,
    MemoryError,
    UnicodeDecodeError,
    RecursionError,
    OSError,  # of a truncated archive
    struct.error,
    zipfile.BadZipFile,
)

AN_IMAGE = "it is an image. Commands take the network first, then the images."
NO_FORMAT = "it begins neither as safetensors nor as a file of torch.save. Download it again."

MOST_TENSORS = 100_000  # of a safetensors file; ResNet-1202 has 7,000
LARGEST_FILE = 2**32  # bytes; a checkpoint of the largest network with its optimizer has 1 GB


def read_file(path: Path) -> Any:
    """Returns the content of a file: tensors, numbers and strings in mappings and lists.

    Args:
        path: a safetensors file, or a file of `torch.save` in either format, whatever its suffix.

    Raises:
        WeightsError: if it cannot be read, is corrupt, or holds anything else, such as code.
    """
    beginning = read_beginning(path, BEGINNING_BYTES)
    if mistake := recognized_mistake(beginning):
        raise WeightsError(f"{path} is not a file of weights: {mistake}.")
    if not is_safetensors(beginning) and not is_torch_file(beginning):
        if IMAGE_SIGNATURE.match(beginning):
            raise WeightsError(f"{path} is not a file of weights: {AN_IMAGE}")
        raise WeightsError(f"{path} is corrupt or not a file of weights: {NO_FORMAT}")
    content = read_content(path)
    try:
        if is_safetensors(content):
            check_header(content)
            tensors = safetensors.torch.load(content)
            if any(len(name) > LONGEST_KEY for name in tensors):
                raise ValueError(f"the name of a tensor has more than {LONGEST_KEY:,} characters")
            return tensors
        return read_torch_file(content)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a file of weights, or holds more than tensors, numbers and strings:"
            f" {error}. Nothing in it was executed. Save only the state_dict, or convert it to"
            " safetensors, in the program that wrote it."
        ) from error
    except (*READ_ERRORS, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path} is corrupt or not a file of weights: {first_line(error)} Download it again."
        ) from error


def check_header(content: bytes) -> None:
    """Raises ValueError for a header with too many tensors to be read in seconds."""
    end = 8 + int.from_bytes(content[:8], "little")
    if content.count(b"{", 8, end) > MOST_TENSORS:
        raise ValueError(f"it lists more than {MOST_TENSORS:,} tensors")


def read_content(path: Path, most_bytes: int = LARGEST_FILE) -> bytes:
    """Returns the content of a file.

    Raises:
        WeightsError: if it cannot be read, is not a regular file, or is too large.
    """
    try:
        return read_bounded(path, most_bytes)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_beginning(path: Path, count: int) -> bytes:
    """Returns the first bytes of a file.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read(count)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def is_safetensors(beginning: bytes) -> bool:
    """Returns whether a file begins as safetensors do: with the length of a header and a header."""
    return beginning[8:9] == b"{"


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file; empty for other files.

    The file has been read before, so its header is complete.

    Raises:
        WeightsError: if the header names something twice.
    """
    with open_regular(path) as file:
        beginning = file.read(9)
        if not is_safetensors(beginning):
            return {}
        header = file.read(int.from_bytes(beginning[:8], "little") - 1)
    try:
        return dict(parse_json(b"{" + header).get("__metadata__") or {})
    except ValueError as error:
        raise WeightsError(
            f"{path} is corrupt: in its header, {error}. Download it again."
        ) from error


def safetensors_bytes(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a safetensors file, the same each time.

    transformers requires `format` in its metadata.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(whole, {"format": "pt", **metadata})
    return b"".join(sorted_safetensors(content))


def first_line(error: Exception) -> str:
    """Returns the beginning of an error message, as a sentence."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__} {message[:150]}".rstrip(". ") + "."


def read_tensors(path: Path) -> Tensors:
    """Returns the named tensors of a file that holds nothing else.

    Raises:
        WeightsError: as in `read_file`, or if it holds anything else.
    """
    content = read_file(path)
    if not is_tensors(content):
        raise WeightsError(f"{path} does not hold a mapping of names to tensors.")
    return content


def is_tensors(content: object) -> bool:
    """Returns whether a value is a mapping of names to tensors, and not empty."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COUNTS = (torch.int64, torch.int32)
MOST_SHARED = 2**28  # bytes; ResNet-152 has 240 MB


def check_values(path: Path, tensors: Tensors) -> None:
    """Checks that every tensor holds plain, finite numbers, and no variance is negative.

    Raises:
        WeightsError: with the name of the first tensor that does not.
    """
    check_plain(path, tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all() or not torch.isfinite(tensor.float()).all():
            raise WeightsError(
                f"{path}: '{name}' holds values that are not finite in float32: the training"
                " diverged, or the file is corrupt."
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise WeightsError(f"{path}: '{name}' holds a negative variance: the file is corrupt.")


def check_plain(path: Path, tensors: Tensors) -> None:
    """Checks that every tensor is dense, and that all its numbers are in the file.

    Tensors may share numbers, as tied weights do, but many copies would fill the memory.

    Raises:
        WeightsError: with the name of the first tensor that is not, such as a single number
            expanded to a million; or if all tensors are much larger than what is stored.
    """
    for name, tensor in tensors.items():
        if problem := unsupported_kind(tensor):
            raise WeightsError(f"{path}: '{name}' is not a dense tensor: {problem}.")
        expected = COUNTS if name.endswith("num_batches_tracked") else NUMBERS
        if tensor.dtype not in expected:
            raise WeightsError(
                f"{path}: '{name}' holds {str(tensor.dtype).removeprefix('torch.')}, expected"
                f" {' or '.join(str(dtype).removeprefix('torch.') for dtype in expected)}:"
                " convert it with model.float() before saving."
            )
    storages = [tensor.untyped_storage() for tensor in tensors.values()]
    stored = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if sum(tensor.nbytes for tensor in tensors.values()) > stored + MOST_SHARED:
        raise WeightsError(
            f"{path} holds {stored:,} bytes of numbers, which so many tensors share that copies"
            " would fill the memory. Save each tensor with clone()."
        )


def unsupported_kind(tensor: Tensor) -> str | None:
    """Returns why a tensor is not dense or not complete, and what helps; None if it is."""
    if tensor.is_quantized or isinstance(tensor, Quantized):
        return "it is quantized. Save the network as it was before quantizing it"
    if tensor.layout != torch.strided:
        return "it is sparse. Save it with to_dense()"
    if tensor.is_complex():
        return "its numbers are complex, which no weight of a ResNet is"
    if tensor.is_meta:
        return "it has no values. Save the network after its weights were loaded"
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        return "it repeats fewer numbers, as expand() does. Save it with contiguous()"
    return None


def check_names(path: Path, tensors: Tensors, expected: Tensors) -> None:
    """Checks that a file has exactly the tensors of a network, in their shapes.

    Args:
        path: path of the file.
        tensors: its tensors, by the names of the network.
        expected: state_dict of the network.

    Raises:
        WeightsError: with the first names that are missing, unused or of another shape.
    """
    problems = {
        "lacks": [name for name in expected if name not in tensors],
        "has no use for": [name for name in tensors if name not in expected],
    }
    for problem, names in problems.items():
        if names:
            raise WeightsError(
                f"{path} {problem} {len(names)} tensor(s) of the network it was recognized as:"
                f" {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}."
            )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise WeightsError(
                f"{path}: '{name}' has the shape {tuple(tensor.shape)}, expected"
                f" {tuple(expected[name].shape)}."
            )
