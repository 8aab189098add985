"""The exceptions that resnetkit raises for a reason a person can act on.

    ResnetkitError           exit 1   something failed that the user should know about
    |-- UsageError           exit 2   a command, an architecture or a number that cannot be
    |   |-- ArchitectureError         no such network, or options that do not fit together
    |   `-- RecipeError               a malformed recipe, or one that does not fit data or run
    |-- DataError            exit 3   data that is missing, damaged or not what it claims to be
    |-- WeightsError         exit 3   weights or a checkpoint that cannot be trusted
    |-- TransferError        exit 3   files that do not come from elsewhere, or not go there
    |-- StorageError         exit 1   a folder that cannot be written, a disk that is full
    |-- OutOfMemory          exit 1   more memory was needed than this machine gives
    |-- TrainingDiverged     exit 1   a loss or gradient that is no longer a number
    `-- Interrupted          exit 130 or 143, after everything was saved

Each message says what happened, what was expected and how to go on. `assert` is for our own
invariants.
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

__all__ = [
    "ArchitectureError",
    "DataError",
    "Interrupted",
    "OutOfMemory",
    "RecipeError",
    "ResnetkitError",
    "StorageError",
    "TrainingDiverged",
    "TransferError",
    "UsageError",
    "WeightsError",
    "did_you_mean",
    "is_out_of_memory",
]


class ResnetkitError(Exception):
    """The root of the tree; the command line prints its message and exits with its code."""

    exit_code: ClassVar[int] = 1


class UsageError(ResnetkitError):
    """A request that cannot be carried out as it was written."""

    exit_code = 2


class ArchitectureError(UsageError):
    """An architecture that does not exist or options that do not fit together."""


class RecipeError(UsageError):
    """A recipe that is malformed, or that does not fit its data or its run folder."""


class DataError(ResnetkitError):
    """Data that is missing, damaged or not what it claims to be."""

    exit_code = 3


class WeightsError(ResnetkitError):
    """Weights or a checkpoint that are missing, damaged or made for another network."""

    exit_code = 3


class TransferError(ResnetkitError):
    """Files that cannot be brought from elsewhere or there, or that come as others."""

    exit_code = 3


class StorageError(ResnetkitError):
    """A folder that cannot be written or a disk that is full."""


class OutOfMemory(ResnetkitError):
    """More memory was needed than this machine, its GPU or a limit of the process gives."""


class TrainingDiverged(ResnetkitError):
    """A loss or gradient that is no longer a finite number."""


class Interrupted(ResnetkitError):
    """A signal ended the work after everything was saved.

    Args:
        message: what was saved and how to go on.
        signal_number: the signal received; the exit code is 128 plus this number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)  # both, so that it travels between processes
        self.signal_number = signal_number

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the one code that depends on the cause
        """Returns 130 for SIGINT and 143 for SIGTERM."""
        return 128 + self.signal_number


MEMORY_WORDS = (
    "can't allocate memory",  # torch on a CPU
    "out of memory",  # torch on a GPU
    "cannot allocate memory",  # the system
    "unable to allocate",  # NumPy
    "std::bad_alloc",
    "failed to map segment",  # a library that could not be loaded
    "can't start new thread",  # whose stack takes memory
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says, in the words of any library, that memory is short."""
    if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # joblib's word for a worker that the kernel has ended, as it does when memory is short
    if type(error).__name__ == "TerminatedWorkerError":
        return True
    words = str(error).lower()
    is_technical = isinstance(error, RuntimeError | ImportError | OSError)
    return is_technical and any(known in words for known in MEMORY_WORDS)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a closing sentence that names the nearest known word, or an empty string."""
    nearest = get_close_matches(word, list(known), n=1)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
