"""Two machines on one: network namespaces with their own addresses, joined by a wire; as root."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ADDRESSES = ("10.213.7.1", "10.213.7.2")


class NoNamespaces(Exception):
    """This system, or this user, has no network namespaces."""


@dataclass
class Nodes:
    """Two machines, joined by a wire.

    Attributes:
        names: of the network namespaces.
        log: file for the output of all processes.
        started: processes to end afterwards.
    """

    names: tuple[str, str]
    log: Path
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(
        self, node: int, *words: str, before: tuple[str, ...] = ()
    ) -> "subprocess.Popen[bytes]":
        """Starts Python on a node."""
        command = ["ip", "netns", "exec", self.names[node], *before, sys.executable, *words]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=environment()
            )
        self.started.append(process)
        return process

    def start_dask(self, folder: Path, *, blind: Path | None = None) -> str:
        """Starts a scheduler on the first node and a worker on each; returns the address.

        Args:
            folder: for the workers' files.
            blind: a folder in whose place the second node sees another one.
        """
        address = f"tcp://{ADDRESSES[0]}:8786"
        scheduler = ("-m", "distributed.cli.dask_scheduler", "--host", ADDRESSES[0])
        self.start(0, *scheduler, "--no-dashboard")
        mount = f'mount -t tmpfs none {blind} && exec "$0" "$@"'
        for node in (0, 1):
            self.start(
                node,
                *("-m", "distributed.cli.dask_worker", address, "--host", ADDRESSES[node]),
                *("--nthreads", "1", "--no-dashboard"),
                *("--local-directory", str(folder / f"w{node}")),
                before=("unshare", "-m", "sh", "-c", mount) if blind and node == 1 else (),
            )
        return address


def environment() -> dict[str, str]:
    """Returns the environment of every process: one thread each, as a cluster sets it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


@contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """Yields two machines with nothing running; what was started on them is ended afterwards.

    Raises:
        NoNamespaces: where there are none.
    """
    if shutil.which("ip") is None or os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root and the command ip")
    names = (f"resnet-{os.getpid()}-a", f"resnet-{os.getpid()}-b")
    nodes = Nodes(names, folder / "log")
    with wired(names):
        try:
            yield nodes
        finally:
            for process in reversed(nodes.started):
                end(process)


@contextmanager
def wired(names: tuple[str, str]) -> Iterator[None]:
    """Makes network namespaces that are joined by a pair of virtual interfaces."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)

    wires = [f"rk{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        raise NoNamespaces(f"no network namespaces here: {error.stderr.decode().strip()}") from None
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


def results(root: Path) -> dict[str, bytes]:
    """Returns the weights and metrics of every finished run below the folder of a study."""
    return {
        f"{run.name}/{name}": (run / name).read_bytes()
        for run in sorted((root / "runs").iterdir())
        if (run / "model").exists()
        for name in ("model/model.safetensors", "metrics.jsonl")
    }
