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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ADDRESSES = ("10.213.7.1", "10.213.7.2")
WORDS = (
    *("study", "lesion", "--device", "cpu"),
    *("--set", "length=60 steps", "--set", "checkpoint.every=10 steps"),
)
CLAIMS = {0, 4}  # exit codes of a study that ended: its claims hold, or not, after so few steps
LIMIT = 280  # seconds of a study


@dataclass
class Nodes:
    """Two machines, joined by a wire.

    Attributes:
        names: of the network namespaces.
        started: processes to end after the test.
    """

    names: tuple[str, str]
    log: Path
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(
        self, node: int, *words: str, before: tuple[str, ...] = ()
    ) -> "subprocess.Popen[bytes]":
        """Starts a process on a node."""
        command = ["ip", "netns", "exec", self.names[node], *before, sys.executable, *words]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=environment()
            )
        self.started.append(process)
        return process

    def study(self, out: Path, *words: str) -> "subprocess.Popen[bytes]":
        """Starts a study on the first node."""
        return self.start(0, "-m", "resnetkit", *WORDS, "--out", str(out), *words)


def environment() -> dict[str, str]:
    """Returns the environment of every process: one thread each, as a cluster sets it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Yields two machines with nothing running."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command ip")
    names = tuple(f"resnet-{os.getpid()}-{side}" for side in "ab")
    made = Nodes((names[0], names[1]), tmp_path / "log")
    try:
        with wired(names):
            yield made
            for process in reversed(made.started):
                end(process)
    finally:
        for process in made.started:
            end(process)


@contextmanager
def wired(names: tuple[str, ...]) -> Iterator[None]:
    """Makes network namespaces that are joined by a pair of virtual interfaces."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)

    wires = [f"rk{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", wires[0], "type", "veth", "peer", "name", wires[1])
        for name, wire, address in zip(names, wires, ADDRESSES, strict=True):
            ip("link", "set", wire, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", wire)
            ip("-n", name, "link", "set", wire, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            ip("netns", "delete", name)


def start_dask(nodes: Nodes, tmp_path: Path, *, blind: bool = False) -> str:
    """Starts a scheduler on the first node and a worker on each; returns the address.

    Args:
        nodes: the machines.
        tmp_path: for the workers' files.
        blind: whether the second node sees another folder at the path of the study.
    """
    address = f"tcp://{ADDRESSES[0]}:8786"
    nodes.start(0, "-m", "distributed.cli.dask_scheduler", "--host", ADDRESSES[0], "--no-dashboard")
    for node in (0, 1):
        hidden = tmp_path / "shared"
        hidden.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs none {hidden} && exec "$0" "$@"'
        nodes.start(
            node,
            *("-m", "distributed.cli.dask_worker", address, "--host", ADDRESSES[node]),
            *("--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path / f"w{node}")),
            before=("unshare", "-m", "sh", "-c", mount) if blind and node == 1 else (),
        )
    return address


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def results(root: Path) -> dict[str, bytes]:
    """Returns the weights and metrics of every finished run below the folder of a study."""
    return {
        f"{run.name}/{name}": (run / name).read_bytes()
        for run in sorted((root / "runs").iterdir())
        if (run / "model").exists()
        for name in ("model/model.safetensors", "metrics.jsonl")
    }


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
    address, out = start_dask(nodes, tmp_path), tmp_path / "shared"
    study = nodes.study(out, "--backend", "dask", "--scheduler", address)
    wait_for(lambda: hosts_at_work(out) >= 2, 150, "a training on each node")
    time.sleep(1)
    end(nodes.started[2])  # the worker of the second node, with its nanny
    assert study.wait(LIMIT) in CLAIMS, nodes.log.read_text()
    assert results(out) == expected


def test_a_folder_that_is_not_shared_is_refused_within_ten_seconds(
    nodes: Nodes, tmp_path: Path
) -> None:
    address, out = start_dask(nodes, tmp_path, blind=True), tmp_path / "shared"
    time.sleep(6)  # for both workers to register
    began = time.monotonic()
    study = nodes.study(out, "--backend", "dask", "--scheduler", address)
    assert study.wait(60) == 2, nodes.log.read_text()
    assert time.monotonic() - began < 10 + 15  # of which some are for the start of Python
    assert "is not shared" in nodes.log.read_text()
    assert not (out / "runs").exists()


def test_trainings_stop_when_the_driver_is_killed_and_the_command_resumes_them(
    nodes: Nodes, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    address, out = start_dask(nodes, tmp_path), tmp_path / "shared"
    words = ("--backend", "dask", "--scheduler", address)
    slow = ("--set", "length=100000 steps")
    study = nodes.study(out, *words, *slow)
    wait_for(lambda: hosts_at_work(out) >= 2, 150, "a training on each node")
    end(study)
    wait_for(lambda: not growing(out), 150, "the end of the trainings")
    again = nodes.study(out, *words)
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
        study = nodes.study(out, "--backend", "ray", "--address", address)
        assert study.wait(LIMIT) in CLAIMS, nodes.log.read_text()
        assert results(out) == expected
    finally:
        for process in reversed(nodes.started):
            end(process)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
