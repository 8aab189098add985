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

from resnetkit.errors import WeightsError
from resnetkit.untrusted import (
    BEGINNING_BYTES,
    open_regular,
    parse_json,
    read_bounded,
    recognized_mistake,
)
from resnetkit.weights.torch_files import Quantized, is_torch_file, read_torch_file

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

# What torch, pickle and zip raise for a file that is not what its name says.
DAMAGED = (
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

NO_FORMAT = (
    "it begins neither as safetensors nor as a file of torch.save. Fetch it again, or name another."
)

MOST_TENSORS = 100_000  # of a safetensors file; ResNet-1202 has 7,000
LARGEST_FILE = 2**32  # bytes; a checkpoint of the largest network with its optimizer has 1 GB


def read_file(path: Path) -> Any:
    """Returns what a file holds: tensors, numbers and texts in mappings and lists.

    Args:
        path: of a safetensors file, or of one written by `torch.save` in either of its formats,
            whatever its name ends in.

    Raises:
        WeightsError: when it cannot be read, is damaged, or holds anything else, such as code.
    """
    beginning = read_beginning(path, BEGINNING_BYTES)
    if mistake := recognized_mistake(beginning):
        raise WeightsError(f"{path} is no file of weights: {mistake}.")
    if not is_safetensors(beginning) and not is_torch_file(beginning):
        raise WeightsError(f"{path} is damaged or not a file of weights: {NO_FORMAT}")
    content = read_content(path)
    try:
        if is_safetensors(content):
            check_header(content)
            return safetensors.torch.load(content)
        return read_torch_file(content)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a file of weights, or holds more than tensors, numbers and texts:"
            f" {error}. Nothing in it was executed. Save only the state_dict, or convert it to"
            " safetensors where it comes from."
        ) from error
    except (*DAMAGED, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path} is damaged or not a file of weights: {first_line(error)} Fetch it again."
        ) from error


def check_header(content: bytes) -> None:
    """Raises ValueError for a header of more tensors than are read in seconds."""
    end = 8 + int.from_bytes(content[:8], "little")
    if content.count(b"{", 8, end) > MOST_TENSORS:
        raise ValueError(f"it lists more than {MOST_TENSORS:,} tensors")


def read_content(path: Path, most_bytes: int = LARGEST_FILE) -> bytes:
    """Returns the content of a file.

    Raises:
        WeightsError: when it cannot be read, is no regular file or larger than such files are.
    """
    try:
        return read_bounded(path, most_bytes)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_beginning(path: Path, count: int) -> bytes:
    """Returns the first bytes of a file.

    Raises:
        WeightsError: when it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read(count)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def is_safetensors(beginning: bytes) -> bool:
    """Returns whether a file begins as safetensors do: with the length of a header, and it."""
    return beginning[8:9] == b"{"


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the texts that a safetensors file holds beside its tensors; none of other files.

    The file was read before, so that its header is known to be whole.

    Raises:
        WeightsError: when the header names something twice.
    """
    with open_regular(path) as file:
        beginning = file.read(9)
        if not is_safetensors(beginning):
            return {}
        header = file.read(int.from_bytes(beginning[:8], "little") - 1)
    try:
        return dict(parse_json(b"{" + header).get("__metadata__") or {})
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: in its header, {error}. Fetch it again.") from error


def safetensors_bytes(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a safetensors file; transformers wants to read `format` in it."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, {"format": "pt", **metadata})


def first_line(error: Exception) -> str:
    """Returns the beginning of an error's words, as a sentence."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__} {words[:150]}".rstrip(". ") + "."


def read_tensors(path: Path) -> Tensors:
    """Returns the named tensors of a file that holds nothing else.

    Raises:
        WeightsError: as `read_file`, or when there is something else.
    """
    content = read_file(path)
    if not is_tensors(content):
        raise WeightsError(f"{path} holds no table of named tensors, which weights are.")
    return content


def is_tensors(content: object) -> bool:
    """Returns whether something is a mapping of names to tensors, and not empty."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COUNTS = (torch.int64, torch.int32)


def check_values(path: Path, tensors: Tensors) -> None:
    """Checks that every tensor holds plain, finite numbers, and no variance is negative.

    Raises:
        WeightsError: with the name of the first that does not.
    """
    check_plain(path, tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all() or not torch.isfinite(tensor.float()).all():
            raise WeightsError(
                f"{path}: '{name}' holds values that are no finite numbers in float32: the"
                " training it comes from diverged, or the file is damaged."
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise WeightsError(f"{path}: '{name}' holds a negative variance: the file is damaged.")


def check_plain(path: Path, tensors: Tensors) -> None:
    """Checks that every tensor is a table of numbers, all of which lie in the file.

    Raises:
        WeightsError: with the name of the first that is not, such as one of a single number that
            claims to be a million.
    """
    for name, tensor in tensors.items():
        if strange := oddity(tensor):
            raise WeightsError(f"{path}: '{name}' is not a plain table of numbers: {strange}.")
        expected = COUNTS if name.endswith("num_batches_tracked") else NUMBERS
        if tensor.dtype not in expected:
            raise WeightsError(
                f"{path}: '{name}' holds {str(tensor.dtype).removeprefix('torch.')}, expected"
                f" {' or '.join(str(dtype).removeprefix('torch.') for dtype in expected)}:"
                " convert it where it comes from, with model.float() before saving."
            )


def oddity(tensor: Tensor) -> str:
    """Returns why a tensor is no table of numbers, all of which lie in the file, and what helps."""
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
    return ""


def check_names(path: Path, found: Tensors, expected: Tensors) -> None:
    """Checks that every tensor a network has is there in its shape, and that none is left over.

    Args:
        path: of the file.
        found: what it holds, under the network's names.
        expected: the network's own state.

    Raises:
        WeightsError: with the first names that are missing, unknown or of another shape.
    """
    problems = {
        "lacks": [name for name in expected if name not in found],
        "has no use for": [name for name in found if name not in expected],
    }
    for words, names in problems.items():
        if names:
            raise WeightsError(
                f"{path} {words} {len(names)} tensor(s) of the network it was recognized as:"
                f" {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}."
            )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise WeightsError(
                f"{path}: '{name}' has the shape {tuple(tensor.shape)}, expected"
                f" {tuple(expected[name].shape)}."
            )
