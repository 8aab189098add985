"""Where much work is done: on this machine, or on a cluster of Dask or Ray."""

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import joblib

from resnetkit.errors import ResnetkitError, UsageError
from resnetkit.runtime.background import in_background
from resnetkit.runtime.resources import usable_processors
from resnetkit.storage import storage_errors

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["CLUSTERS", "Workers"]

CLUSTERS = ("dask", "ray")
ANSWER_SECONDS = 10  # for a scheduler, and for every machine to see the shared folder
DEATHS = 3  # workers that a piece of work may lose before it is given up

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Workers:
    """Who does many pieces of work, such as the trainings of a study or the shards of predictions.

    Attributes:
        jobs: pieces at a time, one thread each; None for one per core. A cluster fills all of
            its workers.
        backend: dask or ray; or one of joblib: loky, threading, sequential, or one registered.
        device: see `train`.
        address: of the cluster: tcp://HOST:8786 for Dask; HOST:6379, ray://HOST:10001 or auto for
            Ray.
    """

    jobs: int | None = None
    backend: str = "loky"
    device: str = "auto"
    address: str | None = None

    @property
    def is_cluster(self) -> bool:
        """Returns whether other machines may work."""
        return self.backend in CLUSTERS

    @property
    def threads(self) -> int:
        """Returns the threads of each; 0 lets it choose."""
        return 0 if self.at_a_time == 1 and not self.is_cluster else 1

    @property
    def at_a_time(self) -> int:
        """Returns how many work at a time on this machine."""
        return usable_processors() if self.jobs is None else self.jobs

    def run(self, function: Callable[[Item], None], items: Sequence[Item], folder: Path) -> None:
        """Calls a function once for each item, the first items first.

        Args:
            function: of an importable module; it is called in other processes, and again for an
                item whose process was lost. For an item that is done it does nothing.
            items: such as trainings; they can be pickled.
            folder: in which the function writes; a cluster must share it.

        Raises:
            UsageError: when the backend or the cluster cannot be used.
            ResnetkitError: whatever the function raises.
        """
        if self.is_cluster and self.jobs is not None:
            raise UsageError(
                f"--jobs {self.jobs}: with --backend {self.backend} the cluster's workers decide"
                " how many processes work at a time. Leave --jobs out."
            )
        if self.backend == "dask":
            run_on_dask(self.address, function, items, folder)
        elif self.backend == "ray":
            run_on_ray(self.address, function, items, folder)
        else:
            self.run_here(function, items)

    def run_here(self, function: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Calls a function for each item on this machine; see `run`.

        When a worker process is killed, joblib ends the others, and all items are started again.
        """
        for attempt in range(DEATHS + 1):
            try:
                for _ in self.pool(len(items))(map(joblib.delayed(function), items)):
                    pass
                return
            except BrokenProcessPool:
                if attempt == DEATHS:
                    raise
                logger.warning(
                    "a worker process was killed, perhaps because memory ran out; what it did is"
                    " started again (%d of %d).",
                    attempt + 1,
                    DEATHS,
                )

    def pool(self, items: int) -> joblib.Parallel:
        """Returns a pool of this machine, which yields results as they finish.

        Raises:
            UsageError: for an unknown backend.
        """
        count = max(1, min(self.at_a_time, items))
        # loky starts a worker anew when it has grown by 300 MB, as trainings of larger networks let
        # it, and then warns of a memory leak.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        try:
            return joblib.Parallel(
                n_jobs=count, backend=self.backend, return_as="generator_unordered"
            )
        except ValueError as error:
            raise UsageError(
                f"unknown backend '{self.backend}': expected loky, threading, sequential, dask,"
                " ray, or a backend that is registered with joblib and can return results as they"
                " finish."
            ) from error


@dataclass(frozen=True)
class Witness:
    """What a machine of a cluster sees.

    Attributes:
        host: its name.
        content: of the file that the driver wrote; empty where it does not see it.
        resnetkit: the version that is installed there.
    """

    host: str
    content: str
    resnetkit: str


def witness(path: Path) -> Witness:
    """Returns what this machine sees of a file."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError:
        content = ""
    return Witness(socket.gethostname(), content, version("resnetkit"))


def check_shared(folder: Path, ask: Callable[[Path], Sequence[Witness]]) -> None:
    """Checks that every machine of a cluster sees the files of this one.

    Args:
        folder: that the cluster must share.
        ask: lets every machine look at a file.

    Raises:
        UsageError: when one does not, or has another version of resnetkit.
    """
    nonce = uuid4().hex
    path = folder / f".shared-{nonce}"
    with storage_errors(path, "Choose another folder with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(nonce, encoding="utf-8")
    try:
        witnesses = ask(path)
    finally:
        path.unlink(missing_ok=True)
    blind = sorted({seen.host for seen in witnesses if seen.content != nonce})
    if blind:
        raise UsageError(
            f"{folder} is not shared: {', '.join(blind)} cannot see what is written there."
            " Choose with --out a folder that every machine of the cluster has mounted at the same"
            " path."
        )
    ours = version("resnetkit")
    others = {f"{seen.host} has {seen.resnetkit}" for seen in witnesses if seen.resnetkit != ours}
    if others:
        raise UsageError(
            f"this machine has resnetkit {ours}, but {', '.join(sorted(others))}: install the same"
            " version on every machine."
        )


def run_on_dask(
    address: str | None, function: Callable[[Item], None], items: Sequence[Item], folder: Path
) -> None:
    """Calls a function for each item on the workers of a Dask cluster; see `Workers.run`.

    A task whose worker dies is started again on another one.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise UsageError(missing_extra("dask")) from error
    if address is None:
        raise UsageError("--backend dask: name its scheduler with --scheduler tcp://HOST:8786.")
    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise UsageError(no_cluster("--scheduler", address, "Dask scheduler", error)) from error
    with client:
        check_workers(address, client.scheduler_info(n_workers=-1)["workers"])
        check_shared(folder, lambda path: dask_witnesses(client, path))
        futures = [
            client.submit(function, item, pure=False, priority=-index)  # higher ones come first
            for index, item in enumerate(items)
        ]
        try:
            for future in as_completed(futures, loop=client.loop):
                future.result()
        except KilledWorker as error:
            raise ResnetkitError(too_many_deaths(error)) from error
        except CancelledError as error:
            raise ResnetkitError(
                f"the Dask scheduler {address} was lost. The trainings stop with everything saved;"
                " start it again, and the same command resumes them."
            ) from error
        finally:
            client.cancel(futures)


def check_workers(address: str, workers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises UsageError for a Dask cluster without workers, or whose workers have threads.

    Trainings set torch's number of threads and its determinism, which belong to a process.
    """
    if not workers:
        raise UsageError(
            f"--scheduler {address}: it has no workers. Start some on each machine:"
            f" dask worker {address} --nworkers auto --nthreads 1."
        )
    several = sorted({str(facts["host"]) for facts in workers.values() if facts["nthreads"] > 1})
    if several:
        raise UsageError(
            f"the Dask workers on {', '.join(several)} have several threads, but need one each."
            f" Start them again: dask worker {address} --nworkers auto --nthreads 1."
        )


def dask_witnesses(client: "Client", path: Path) -> list[Witness]:
    """Lets every worker of a Dask cluster look at a file, also those that are busy."""
    ask = partial(client.run, witness, path, on_error="return")
    try:
        answers: dict[str, object] = in_background(ask).result(ANSWER_SECONDS)  # a worker may hang
    except TimeoutError:
        raise UsageError(
            f"the cluster's workers did not answer within {ANSWER_SECONDS} s."
        ) from None
    return [checked_witness(worker, answer) for worker, answer in answers.items()]


def checked_witness(worker: str, answer: object) -> Witness:
    """Returns the answer of a worker.

    Raises:
        UsageError: when it cannot run resnetkit.
    """
    if isinstance(answer, Witness):
        return answer
    raise UsageError(
        f"the worker {worker} cannot run resnetkit ({type(answer).__name__}: {answer}). Install"
        f" resnetkit {version('resnetkit')} on every machine of the cluster."
    )


def run_on_ray(
    address: str | None, function: Callable[[Item], None], items: Sequence[Item], folder: Path
) -> None:
    """Calls a function for each item on the workers of a Ray cluster; see `Workers.run`.

    A task whose worker dies is started again on another one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing phones home
    try:
        import ray
    except ImportError as error:
        raise UsageError(missing_extra("ray")) from error
    if address is None:
        raise UsageError(
            "--backend ray: name the cluster with --address HOST:6379, or --address auto on one of"
            " its machines."
        )
    try:
        with signal_handlers_kept():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(no_cluster("--address", address, "Ray cluster", error)) from error
    try:
        check_shared(folder, ray_witnesses)
        task = ray.remote(num_cpus=1, max_retries=DEATHS, scheduling_strategy="SPREAD")(call)
        pending = [task.remote(function, item) for item in items]
        while pending:
            done, pending = ray.wait(pending, num_returns=1)
            ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        raise ResnetkitError(too_many_deaths(error)) from error
    finally:
        ray.shutdown()  # its tasks are cancelled


def call(function: Callable[[Item], None], item: Item) -> None:
    """Calls a function: what Ray calls in other processes must have a name of its own."""
    function(item)


def ray_witnesses(path: Path) -> list[Witness]:
    """Lets every machine of a Ray cluster look at a file, also those that are busy."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(witness)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        ).remote(path)
        for node in nodes
    ]
    done, late = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    if late:
        raise UsageError(
            f"{len(late)} of {len(asked)} machines of the cluster did not answer within"
            f" {ANSWER_SECONDS} s."
        )
    answers = []
    for answer in done:
        try:
            answers.append(ray.get(answer))
        except ray.exceptions.RayError as error:
            answers.append(checked_witness("of Ray", error))
    return answers


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Restores the handlers of SIGINT and SIGTERM, which Ray replaces when it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def missing_extra(backend: str) -> str:
    """Returns the message of a backend that is not installed."""
    return f"--backend {backend} needs an extra: pip install 'resnetkit[{backend}]'."


def no_cluster(option: str, address: str, kind: str, error: Exception) -> str:
    """Returns the message of an address where no cluster answers."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{option} {address}: no {kind} answers there within {ANSWER_SECONDS} s ({reason})."


def too_many_deaths(error: Exception) -> str:
    """Returns the message of work that loses worker after worker."""
    reason = (str(error).splitlines() or [""])[0]
    return (
        f"the same work lost its worker {DEATHS + 1} times and was given up ({reason}). What is"
        " finished is kept. Often the worker has too little memory: look at its log."
    )
