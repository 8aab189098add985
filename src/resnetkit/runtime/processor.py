"""The processor's name, and the instructions that decide how fast and how exactly it computes."""

import platform
from functools import cache
from pathlib import Path

__all__ = ["processor_features", "processor_name"]

CPUINFO = Path("/proc/cpuinfo")
FEATURES = (
    "avx",
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)
"""Names of Linux; VNNI, AMX and asimddp multiply int8, bf16 and AMX multiply bfloat16."""


def processor_name() -> str:
    """Returns the processor's name as the system gives it."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def processor_features() -> tuple[str, ...]:
    """Returns which of `FEATURES` the processor has; none where the system does not say."""
    flags = {*cpuinfo("flags").split(), *cpuinfo("Features").split()}
    return tuple(feature for feature in FEATURES if feature in flags)


@cache
def cpuinfo(key: str) -> str:
    """Returns the first value of a key in Linux's description of the processors; else empty."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((value.strip() for line in lines if (value := value_of(line, key))), "")


def value_of(line: str, key: str) -> str:
    """Returns the value of a line `key : value` with this key; else empty."""
    name, _, value = line.partition(":")
    return value if name.strip() == key else ""
