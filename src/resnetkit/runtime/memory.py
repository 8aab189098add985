"""A setting of the C library's memory allocator that makes training steps faster."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library


def keep_freed_memory() -> None:
    """Makes the GNU C library keep the memory of activations for the next step.

    It would give large blocks back to the system, which hands them out again page by page, zeroed:
    an eighth of a training step of ResNet-20 (docs/log.md). Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(M_MMAP_THRESHOLD, 2**30):  # older versions refuse it
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2**26)
