"""The processor's name, and the instructions that decide how fast and how exactly it computes."""

import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["processor_features", "processor_identity", "processor_name", "unused_instructions"]

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

IDENTITY = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)
"""Names of Linux for x86 and for ARM."""

# Beginnings of the names of instructions that oneDNN leaves unused at a value of ONEDNN_MAX_CPU_ISA
# (its developer guide: CPU Dispatcher Control). It ignores values that it does not know.
UNUSED = {
    "sse41": ("avx", "amx"),
    "avx": ("avx2", "avx5", "avx_", "avx10", "amx"),
    **dict.fromkeys(("avx2", "avx2_vnni", "avx2_vnni_2"), ("avx512", "avx10", "amx")),
    "avx512_core": ("avx512_vnni", "avx512_bf16", "avx512_fp16", "avx10", "amx"),
    "avx512_core_vnni": ("avx512_bf16", "avx512_fp16", "avx10", "amx"),
    "avx512_core_bf16": ("avx512_fp16", "avx10", "amx"),
    "avx512_core_fp16": ("amx",),
    "avx10_1_512": ("amx",),
}


def processor_name() -> str:
    """Returns the processor's name as the system gives it."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def processor_features() -> tuple[str, ...]:
    """Returns which of `FEATURES` the processor has; none where the system does not say."""
    flags = {*cpuinfo("flags").split(), *cpuinfo("Features").split()}
    return tuple(feature for feature in FEATURES if feature in flags)


def processor_identity() -> tuple[str, ...]:
    """Returns all that the system says about the kind of the processor; nothing it measures."""
    return (processor_name(), platform.machine(), *map(cpuinfo, IDENTITY))


def unused_instructions() -> tuple[str, ...]:
    """Returns the beginnings of names of instructions that the environment denies to oneDNN."""
    variables = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    limit = next((os.environ[name] for name in variables if os.environ.get(name)), "all")
    return UNUSED.get(limit.lower(), ())


def cpuinfo(key: str) -> str:
    """Returns the first value of a key in Linux's description of the processors; else empty."""
    return cpuinfo_values().get(key, "")


@cache
def cpuinfo_values() -> dict[str, str]:
    """Returns the first value of each key in that description."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":")[::2] for line in reversed(lines))  # the first value is kept
    return {name.strip(): value.strip() for name, value in pairs if value.strip()}
