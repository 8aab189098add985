"""A study on two machines: network namespaces with their own addresses, and clusters on both.

Each test starts what it needs and ends it, within a bounded time.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.nodes import ADDRESSES, Nodes, NoNamespaces, end, environment, results, two_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

WORDS = (
    *("study", "lesion", "--device", "cpu"),
    *("--set", "length=60 steps", "--set", "checkpoint.every=10 steps"),
)
CLAIMS = {0, 4}  # exit codes of a study that ended: its claims hold, or not, after so few steps
LIMIT = 280  # seconds of a study


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Yields two machines with nothing running."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(two_nodes(tmp_path))
        except NoNamespaces as error:
            pytest.skip(str(error))


def start_study(nodes: Nodes, out: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Starts a study on the first node."""
    return nodes.start(0, "-m", "resnetkit", *WORDS, "--out", str(out), *words)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def hosts_at_work(root: Path) -> int:
    """Returns how many trainings have begun and are not finished."""
    runs = (root / "runs").glob("*") if (root / "runs").exists() else []
    return sum((run / "metrics.jsonl").exists() and not (run / "model").exists() for run in runs)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Returns the results of the study on this machine alone."""
    root = tmp_path_factory.mktemp("here")
    words = [sys.executable, "-m", "resnetkit", *WORDS, "--out", str(root), "--jobs", "2"]
    done = subprocess.run(words, env=environment(), capture_output=True, timeout=LIMIT, check=False)
    assert done.returncode in CLAIMS, done.stderr.decode()
    return results(root)


def test_dask_trains_the_same_bytes_on_two_nodes_one_of_which_dies(
    nodes: Nodes, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    address, out = nodes.start_dask(tmp_path), tmp_path / "shared"
    study = start_study(nodes, out, "--backend", "dask", "--scheduler", address)
    wait_for(lambda: hosts_at_work(out) >= 2, 150, "a training on each node")
    time.sleep(1)
    end(nodes.started[2])  # the worker of the second node, with its nanny
    assert study.wait(LIMIT) in CLAIMS, nodes.log.read_text()
    assert results(out) == expected


def test_a_folder_that_is_not_shared_is_refused_within_ten_seconds(
    nodes: Nodes, tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    out.mkdir()
    address = nodes.start_dask(tmp_path, blind=out)
    time.sleep(6)  # for both workers to register
    began = time.monotonic()
    study = start_study(nodes, out, "--backend", "dask", "--scheduler", address)
    assert study.wait(60) == 2, nodes.log.read_text()
    assert time.monotonic() - began < 10 + 15  # of which some are for the start of Python
    assert "is not shared" in nodes.log.read_text()
    assert not (out / "runs").exists()


def test_trainings_stop_when_the_driver_is_killed_and_the_command_resumes_them(
    nodes: Nodes, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    address, out = nodes.start_dask(tmp_path), tmp_path / "shared"
    words = ("--backend", "dask", "--scheduler", address)
    slow = ("--set", "length=100000 steps")
    study = start_study(nodes, out, *words, *slow)
    wait_for(lambda: hosts_at_work(out) >= 2, 150, "a training on each node")
    end(study)
    wait_for(lambda: not growing(out), 150, "the end of the trainings")
    again = start_study(nodes, out, *words)
    assert again.wait(LIMIT) in CLAIMS, nodes.log.read_text()
    assert results(out) == expected


def growing(root: Path) -> bool:
    """Returns whether any metrics are still being written."""

    def sizes() -> list[int]:
        return [path.stat().st_size for path in sorted(root.glob("runs/*/metrics.jsonl"))]

    before = sizes()
    time.sleep(3)
    return sizes() != before


def test_a_killed_study_of_this_machine_leaves_no_trainings(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "resnetkit", *WORDS, "--set", "length=100000 steps"]
    study = subprocess.Popen(
        [*words, "--out", str(tmp_path), "--jobs", "2"], env=environment(), start_new_session=True
    )
    try:
        wait_for(lambda: hosts_at_work(tmp_path) >= 2, 150, "two trainings")
        os.kill(study.pid, signal.SIGKILL)
        study.wait(10)
        wait_for(lambda: not growing(tmp_path), 150, "the end of the trainings")
    finally:
        end(study)


def test_ray_trains_the_same_bytes_on_two_nodes(
    nodes: Nodes, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    pytest.importorskip("ray", reason="pip install 'resnetkit[ray]'")
    out, port = tmp_path / "shared", "6379"
    common = ("--num-cpus=1", "--disable-usage-stats", "--block", "--object-store-memory=100000000")
    folders = [f"/tmp/rk{os.getpid()}{side}" for side in "ab"]  # sockets need short paths
    ray = ("-m", "ray.scripts.scripts", "start")
    try:
        nodes.start(
            0,
            *(*ray, "--head", f"--node-ip-address={ADDRESSES[0]}", f"--port={port}"),
            *("--include-dashboard=false", f"--temp-dir={folders[0]}", *common),
        )
        time.sleep(8)
        address = f"{ADDRESSES[0]}:{port}"
        nodes.start(1, *ray, f"--address={address}", f"--node-ip-address={ADDRESSES[1]}", *common)
        time.sleep(8)
        study = start_study(nodes, out, "--backend", "ray", "--address", address)
        assert study.wait(LIMIT) in CLAIMS, nodes.log.read_text()
        assert results(out) == expected
    finally:
        for process in reversed(nodes.started):
            end(process)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
