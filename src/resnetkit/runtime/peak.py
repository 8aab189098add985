"""The largest memory that this process has used."""

import re
import sys
from pathlib import Path

__all__ = ["peak_memory"]

STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Returns the peak of this process's memory in bytes; 0 where the system does not say.

    Linux says it in a file; its `getrusage` counts the process that started this one too.
    """
    if STATUS.exists():
        match = re.search(r"VmHWM:\s+(\d+)", STATUS.read_text(encoding="ascii", errors="replace"))
        return 1024 * int(match[1]) if match else 0
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
