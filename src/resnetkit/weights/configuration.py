"""The JSON files next to weights: values are checked when they are read, and errors are readable.

A JSON object is a `JsonObject`: nothing is known of its values until a function of this module has
checked them.
"""

import json
import math
from collections.abc import Mapping
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
    "JsonObject",
    "check_mistake",
    "constants",
    "corrupt",
    "counts",
    "described_files",
    "fraction",
    "image_side",
    "json_bytes",
    "json_object",
    "read_configuration",
    "texts",
    "weights_next_to",
]

JsonObject = Mapping[str, object]
"""A JSON object whose values are not checked yet."""

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
    """Reads a JSON file that holds an object.

    Raises:
        WeightsError: if it cannot be read, or holds something else.
    """
    try:
        content = read_bounded(path, LARGEST_CONFIGURATION)
        configuration = parse_json(content)
        if not isinstance(configuration, dict):
            raise ValueError("it is not an object")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        check_mistake(path, content)
        raise corrupt(path, error) from error
    return configuration


def check_mistake(path: Path, content: bytes) -> None:
    """Raises WeightsError for what a failed download leaves, such as a page of a web server."""
    if mistake := recognized_mistake(content):
        raise WeightsError(f"{path} is not what its name says: {mistake}.")


def corrupt(path: Path, error: Exception) -> WeightsError:
    """Returns the error for a configuration that no network can be built from."""
    return WeightsError(
        f"{path} is corrupt, or holds an impossible value ({type(error).__name__}:"
        f" {str(error)[:300]}). Restore the file, or download it again."
    )


def described_files(configuration: Path) -> list[Path]:
    """Returns the files of weights that a config.json next to them describes, by their names.

    These are the files of the usual names; without them, the only file that ends in .pth or .bin.

    Raises:
        WeightsError: if the folder cannot be listed.
    """
    usual = [path for name in WEIGHT_FILES if (path := configuration.with_name(name)).is_file()]
    if usual:
        return usual
    try:
        files = list(configuration.parent.iterdir())
    except OSError as error:
        raise WeightsError(f"{configuration.parent} cannot be listed: {error.strerror}.") from error
    others = [path for path in files if path.suffix in (".pth", ".bin") and path.is_file()]
    return others if len(others) == 1 else []


def weights_next_to(configuration: Path) -> Path:
    """Returns the file of weights that belongs to a config.json of timm or transformers.

    Raises:
        WeightsError: if there is none.
    """
    if files := described_files(configuration):
        return files[0]
    raise WeightsError(
        f"{configuration.parent} has no weights: expected {' or '.join(WEIGHT_FILES)} next to"
        " config.json. Weights split over several files are not supported."
    )


def json_object(value: object) -> JsonObject:
    """Returns a JSON object.

    Raises:
        ValueError: if the value is something else.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:50]} is not an object")
    return value


def items(value: object) -> list[object]:
    """Returns the elements of a JSON array, or of a tuple.

    Raises:
        ValueError: if the value is something else.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{str(value)[:50]} is not a list")
    return list(value)


def counts(value: object) -> tuple[int, ...]:
    """Returns integers from 1 to 100,000.

    Raises:
        ValueError: if the value is not a short list of such integers.
    """
    numbers = value if isinstance(value, list | tuple) else ()
    whole = tuple(number for number in numbers if type(number) is int and 1 <= number <= 10**5)
    if not isinstance(value, list | tuple) or len(value) > MOST_COUNTS or len(whole) < len(value):
        raise ValueError(f"{str(value)[:50]} are not sizes or counts")
    return whole


def texts(value: object) -> tuple[str, ...]:
    """Returns strings.

    Raises:
        ValueError: if the value is not a list of strings that can be written to a file.
    """
    names = value if isinstance(value, list | tuple) else ()
    strings = tuple(name for name in names if isinstance(name, str))
    if not isinstance(value, list | tuple) or len(strings) < len(value):
        raise ValueError(f"{str(value)[:50]} are not names")
    if any(len(name) > LONGEST_NAME for name in strings):
        raise ValueError(f"a name has more than {LONGEST_NAME:,} characters")
    if any("\ud800" <= character <= "\udfff" for name in strings for character in name):
        raise ValueError("a name is not valid Unicode: it could not be written anywhere")
    return strings


def constants(mean: object, std: object, channels: int) -> Normalization:
    """Returns the normalization with a mean and a standard deviation for pixels of 0 to 1.

    Raises:
        ValueError: if they are not a number for each channel, or out of the range of pixels.
    """
    means, deviations = items(mean), items(std)
    if not len(means) == len(deviations) == channels:
        raise ValueError(f"{mean} and {std} are not constants for {channels} channel(s)")
    plain = [
        float(value)
        for value in (*means, *deviations)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    is_valid = (
        len(plain) == 2 * channels
        and all(map(math.isfinite, plain))
        and max(map(abs, plain[:channels])) <= LARGEST_CONSTANT
        and all(SMALLEST_DEVIATION <= value <= LARGEST_CONSTANT for value in plain[channels:])
    )
    if not is_valid:
        raise ValueError(f"{mean} and {std} are not a mean and a standard deviation")
    return Normalization(pixels(tuple(plain[:channels])), pixels(tuple(plain[channels:])))


def json_bytes(configuration: JsonObject) -> bytes:
    """Returns the content of a JSON file."""
    return (json.dumps(configuration, indent=2, allow_nan=False) + "\n").encode()


def fraction(value: object) -> float:
    """Returns the fraction of the shorter side that the center crop keeps: from a tenth to 1.

    Raises:
        ValueError: if the value is something else.
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not SMALLEST_CROP <= value <= 1
    ):
        raise ValueError(f"{value!r} is not a fraction of the side from {SMALLEST_CROP} to 1")
    return float(value)


def image_side(value: object) -> tuple[int, int]:
    """Returns height and width of images in pixels.

    Raises:
        ValueError: if the value is not two such numbers, or they would exhaust the memory.
    """
    height, width = counts(value)
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"images of {height}x{width} pixels: expected at most {LARGEST_SIDE}")
    return height, width
