"""Reading the JSON files that lie beside weights: whatever is in them, a sentence comes out."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.untrusted import parse_json, read_bounded, recognized_mistake
from resnetkit.weights.conventions import pixels

__all__ = [
    "IMPOSSIBLE",
    "LARGEST_SIDE",
    "SMALLEST_CROP",
    "WEIGHT_FILES",
    "check_mistake",
    "constants",
    "counts",
    "damaged",
    "fraction",
    "image_side",
    "json_bytes",
    "read_configuration",
    "texts",
    "weights_beside",
]

IMPOSSIBLE = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    RuntimeError,
    ZeroDivisionError,
    OverflowError,
)
"""What building a network raises for values that no network has."""

LARGEST_CONFIGURATION = 2**24  # bytes; 20,000 classes with long names have 2 MB
LARGEST_SIDE = 4096  # pixels; four times the largest image that a network was published for
SMALLEST_CROP = 0.1  # of the shorter side
LONGEST_NAME = 2_000
MOST_COUNTS = 64
SMALLEST_DEVIATION, LARGEST_CONSTANT = 1e-6, 1e6  # for pixels of 0 to 1, in whatever unit

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_configuration(path: Path) -> dict[str, Any]:
    """Returns the mapping in a JSON file."""
    try:
        content = read_bounded(path, LARGEST_CONFIGURATION)
        facts = parse_json(content)
        if not isinstance(facts, dict):
            raise ValueError("it is not an object")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        check_mistake(path, content)
        raise damaged(path, error) from error
    return facts


def check_mistake(path: Path, content: bytes) -> None:
    """Raises WeightsError for what people have in place of a file when a download went wrong."""
    if mistake := recognized_mistake(content):
        raise WeightsError(f"{path} is not what its name says: {mistake}.")


def damaged(path: Path, error: Exception) -> WeightsError:
    """Returns the error for a configuration that no network can be built from."""
    return WeightsError(
        f"{path} is damaged, or says what cannot be ({type(error).__name__}: {str(error)[:300]})."
        " Put the file back, or fetch it again."
    )


def weights_beside(configuration: Path) -> Path:
    """Returns the file of weights that a configuration of timm or transformers belongs to.

    Raises:
        WeightsError: when there is none.
    """
    for name in WEIGHT_FILES:
        path = configuration.with_name(name)
        if path.is_file():
            return path
    others = [path for path in configuration.parent.iterdir() if path.suffix in (".pth", ".bin")]
    if len(others) == 1:
        return others[0]
    raise WeightsError(
        f"{configuration.parent} has no weights: expected {' or '.join(WEIGHT_FILES)} beside"
        " config.json. Files in several parts are not read."
    )


def counts(values: Any) -> tuple[int, ...]:
    """Returns whole numbers from 1 to 100,000.

    Raises:
        ValueError: when something else is among them.
    """
    if not isinstance(values, list | tuple) or len(values) > MOST_COUNTS:
        raise ValueError(f"{str(values)[:50]} are not sizes or counts")
    if not all(type(each) is int and 1 <= each <= 10**5 for each in values):
        raise ValueError(f"{str(values)[:50]} are not sizes or counts")
    return tuple(values)


def texts(values: Any) -> tuple[str, ...]:
    """Returns texts.

    Raises:
        ValueError: when something else is among them.
    """
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{str(values)[:50]} are not names")
    if any(len(each) > LONGEST_NAME for each in values):
        raise ValueError(f"a name has more than {LONGEST_NAME:,} letters")
    if any("\ud800" <= letter <= "\udfff" for each in values for letter in each):
        raise ValueError("a name is no Unicode text: it could not be written anywhere")
    return tuple(values)


def constants(mean: Sequence[float], std: Sequence[float], channels: int) -> Normalization:
    """Returns the normalization by a mean and a standard deviation of pixels of 0 to 1.

    Raises:
        ValueError: when they are not one a channel, or not such as pixels can have.
    """
    if not len(mean) == len(std) == channels:
        raise ValueError(f"{mean} and {std} are not constants for {channels} channel(s)")
    are_plain = all(math.isfinite(each) and not isinstance(each, bool) for each in (*mean, *std))
    if not are_plain or max(map(abs, mean)) > LARGEST_CONSTANT:
        raise ValueError(f"{mean} and {std} are not a mean and a deviation")
    if not all(SMALLEST_DEVIATION <= each <= LARGEST_CONSTANT for each in std):
        raise ValueError(f"{mean} and {std} are not a mean and a deviation")
    return Normalization(pixels(tuple(mean)), pixels(tuple(std)))


def json_bytes(facts: dict[str, Any]) -> bytes:
    """Returns a JSON file."""
    return (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode()


def fraction(value: Any) -> float:
    """Returns the part of the shorter side that is shown: from a tenth, up to 1.

    Raises:
        ValueError: when it is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not SMALLEST_CROP <= value <= 1:
        raise ValueError(f"{value!r} is no part of the shorter side from {SMALLEST_CROP} to 1")
    return float(value)


def image_side(values: Any) -> tuple[int, int]:
    """Returns height and width of images in pixels.

    Raises:
        ValueError: when they are no such numbers, or would exhaust the memory.
    """
    height, width = counts(values)
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"images of {height}x{width} pixels, of more than {LARGEST_SIDE}")
    return height, width
