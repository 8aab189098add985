"""The processors and the memory that this process may really use.

A container or a scheduler grants less than the machine has: by the processors that a process may
run on, and by the limits of control groups (cgroups of Linux, versions 1 and 2).
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["limited_processors", "usable_memory", "usable_processors"]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
chosen_limit = ContextVar("chosen_limit", default=math.inf)


@contextmanager
def limited_processors(most: int) -> Iterator[None]:
    """Lets the block count at most so many processors as usable, for its share of a machine."""
    token = chosen_limit.set(most)
    try:
        yield
    finally:
        chosen_limit.reset(token)


def usable_processors() -> int:
    """Returns how many processors this process may use: at least 1.

    A quota of one and a half processors counts as two: one thread could not use it up.
    """
    if hasattr(os, "sched_getaffinity"):
        granted = len(os.sched_getaffinity(0))
    else:
        granted = os.cpu_count() or 1
    return max(1, math.ceil(min(granted, processor_quota(), chosen_limit.get())))


def processor_quota() -> float:
    """Returns how many processors' time the control groups grant; infinity without a limit."""
    quotas = [math.inf]
    for limit in limits("cpu.max"):
        quota, _, period = limit.partition(" ")
        quotas.append(ratio(quota, period))
    for quota, period in zip(limits("cpu.cfs_quota_us"), limits("cpu.cfs_period_us"), strict=False):
        quotas.append(ratio(quota, period))
    return min(quotas)


def ratio(quota: str, period: str) -> float:
    """Returns the quota in processors; infinity for values that set no limit, such as max or -1."""
    if quota.isdecimal() and period.isdecimal() and int(period):
        return int(quota) / int(period)
    return math.inf


def usable_memory() -> int:
    """Returns the bytes of main memory this process may use; 0 where the system does not say."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
    granted = [*limits("memory.max"), *limits("memory.limit_in_bytes")]
    return min([memory, *(int(limit) for limit in granted if limit.isdecimal())])


def limits(name: str) -> Iterator[str]:
    """Yields the content of a limit's file in each control group that contains this process."""
    try:
        groups = MEMBERSHIP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for group in groups:  # 0::/path in version 2, 4:cpu,cpuacct:/path in version 1
        _, _, controllers_and_path = group.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        root = CGROUPS / controllers
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder != root and root not in folder.parents:
                break
            try:
                yield (folder / name).read_text(encoding="utf-8").strip()
            except (OSError, ValueError):
                continue
