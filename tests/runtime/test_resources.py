"""What a container or a scheduler grants, not what the machine has."""

import os
from pathlib import Path

import pytest

from resnetkit.runtime import resources
from resnetkit.runtime.resources import limited_processors, usable_memory, usable_processors


@pytest.fixture
def cgroups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of control groups in which this process is in /user/job."""
    (tmp_path / "membership").write_text("0::/user/job\n")
    monkeypatch.setattr(resources, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cgroup/user/job").mkdir(parents=True)
    return tmp_path / "cgroup"


def test_without_a_limit_the_affinity_counts(cgroups: Path) -> None:
    (cgroups / "user/job/cpu.max").write_text("max 100000\n")
    assert usable_processors() == 8


@pytest.mark.parametrize(
    ("quota", "processors"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)]
)
def test_a_quota_limits_the_processors(cgroups: Path, quota: str, processors: int) -> None:
    (cgroups / "user/job/cpu.max").write_text(f"{quota}\n")
    assert usable_processors() == processors


def test_the_tightest_of_the_groups_around_a_process_counts(cgroups: Path) -> None:
    (cgroups / "user/job/cpu.max").write_text("600000 100000\n")
    (cgroups / "user/cpu.max").write_text("300000 100000\n")
    assert usable_processors() == 3


def test_the_first_version_of_control_groups_counts_too(cgroups: Path) -> None:
    resources.MEMBERSHIP.write_text("4:cpu,cpuacct:/job\n3:memory:/job\n")
    for controllers in ("cpu,cpuacct", "memory"):
        (cgroups / controllers / "job").mkdir(parents=True)
    (cgroups / "cpu,cpuacct/job/cpu.cfs_quota_us").write_text("400000\n")
    (cgroups / "cpu,cpuacct/job/cpu.cfs_period_us").write_text("100000\n")
    (cgroups / "memory/job/memory.limit_in_bytes").write_text(f"{2**20}\n")
    assert usable_processors() == 4
    assert usable_memory() == 2**20


def test_a_limit_of_memory_counts(cgroups: Path) -> None:
    unlimited = usable_memory()
    assert unlimited == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (cgroups / "user/job/memory.max").write_text("1048576\n")
    assert usable_memory() == 2**20


@pytest.mark.parametrize("content", ["", "nonsense", "-1 100000", "0 0"])
def test_what_is_no_limit_limits_nothing(cgroups: Path, content: str) -> None:
    (cgroups / "user/job/cpu.max").write_text(content)
    (cgroups / "user/job/memory.max").write_text(content)
    assert usable_processors() == 8
    assert usable_memory() > 2**20


def test_without_control_groups_the_affinity_counts(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "MEMBERSHIP", cgroups / "missing")
    assert usable_processors() == 8


def test_a_block_may_use_fewer(cgroups: Path) -> None:
    with limited_processors(1):
        assert usable_processors() == 1
        with limited_processors(100):
            assert usable_processors() == 8
    assert usable_processors() == 8
