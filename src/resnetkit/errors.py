"""The exceptions that resnetkit raises for problems that a user can act on.

    ResnetkitError           exit 1   the base class
    |-- UsageError           exit 2   an invalid command, architecture or value
    |   |-- ArchitectureError         an unknown architecture, or incompatible options
    |   `-- RecipeError               an invalid recipe, or one that does not fit its data or run
    |-- DataError            exit 3   data that is missing, corrupt or not what was expected
    |-- WeightsError         exit 3   weights or a checkpoint that are missing, corrupt or unsafe
    |-- TransferError        exit 3   a failed download or upload
    |-- StorageError         exit 1   a folder that is not writable, or a full disk
    |   `-- RunInUse              a run folder that another process is training in
    |-- OutOfMemory          exit 1   not enough memory
    |-- TrainingDiverged     exit 1   a loss or gradient that is no longer finite
    `-- Interrupted          exit 130 or 143, after everything was saved

A message says what happened, what was expected and what to do next. `assert` is for internal
invariants only.
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
    "RunInUse",
    "StorageError",
    "TrainingDiverged",
    "TransferError",
    "UsageError",
    "WeightsError",
    "did_you_mean",
    "headless",
    "is_out_of_memory",
]


class ResnetkitError(Exception):
    """Base class of all errors; the command line prints the message and exits with `exit_code`."""

    exit_code: ClassVar[int] = 1


class UsageError(ResnetkitError):
    """An invalid command, argument or value."""

    exit_code = 2


class ArchitectureError(UsageError):
    """An unknown architecture, or options that cannot be combined."""


class RecipeError(UsageError):
    """A recipe that is invalid, or that does not fit its data or its run folder."""


class DataError(ResnetkitError):
    """Data that is missing, corrupt or not what was expected."""

    exit_code = 3


class WeightsError(ResnetkitError):
    """Weights or a checkpoint that are missing, corrupt, unsafe or made for another network."""

    exit_code = 3


class TransferError(ResnetkitError):
    """A download or upload that failed, or a file received that is not the one expected."""

    exit_code = 3


class StorageError(ResnetkitError):
    """A file or folder that cannot be written, or a full disk."""


class RunInUse(StorageError):
    """Another process is training in the run folder."""


class OutOfMemory(ResnetkitError):
    """The machine, its GPU or a limit of the process does not provide enough memory."""


class TrainingDiverged(ResnetkitError):
    """A loss or gradient that is no longer a finite number."""


class Interrupted(ResnetkitError):
    """A signal stopped the process after everything was saved.

    Args:
        message: what was saved and how to resume.
        signal_number: the signal received; the exit code is 128 plus this number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)  # both, so that it can be pickled
        self.signal_number = signal_number

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # it depends on the signal
        """Returns 130 for SIGINT and 143 for SIGTERM."""
        return 128 + self.signal_number


MEMORY_PHRASES = (
    "can't allocate memory",  # torch on a CPU
    "out of memory",  # torch on a GPU
    "cannot allocate memory",  # the operating system
    "unable to allocate",  # NumPy
    "std::bad_alloc",
    "failed to map segment",  # a shared library that cannot be loaded
    "can't start new thread",  # there is no memory for its stack
)


def headless(origin: str) -> WeightsError:
    """Returns the error of a network without a head.

    Args:
        origin: description of the network.
    """
    return WeightsError(
        f"the network ({origin}) has no head, so that it cannot classify. Train one with 'resnet"
        " train --weights', or take its features with 'resnet features'."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error, of whichever library, means that memory ran out."""
    if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # joblib raises this for a worker that the kernel has killed, as it does when memory runs out
    if type(error).__name__ == "TerminatedWorkerError":
        return True
    message = str(error).lower()
    is_technical = isinstance(error, RuntimeError | ImportError | OSError)
    return is_technical and any(phrase in message for phrase in MEMORY_PHRASES)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Returns a sentence that suggests the closest candidate; empty where none is close."""
    closest = get_close_matches(word, list(candidates), n=1)
    return f" Did you mean '{closest[0]}'?" if closest else ""
