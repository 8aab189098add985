"""Options that say where many pieces of work are done."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from resnetkit.studies.cluster import Workers

__all__ = ["Address", "Backend", "Jobs", "Scheduler", "chosen_workers", "refuse_worker_options"]

Jobs = Annotated[int, Parameter(help="How many at a time; one for each core by default.")]
Backend = Annotated[
    str,
    Parameter(
        help="loky, the default, starts processes on this machine; dask and ray use a cluster."
    ),
]
Scheduler = Annotated[
    str | None, Parameter(help="Address of a Dask scheduler, such as tcp://10.0.0.1:8786.")
]
Address = Annotated[
    str | None, Parameter(help="Address of a Ray cluster, such as 10.0.0.1:6379, or auto.")
]


def chosen_workers(
    jobs: int, backend: str, device: str, scheduler: str | None, address: str | None
) -> "Workers":
    """Returns the workers that options describe.

    Raises:
        UsageError: when they exclude each other.
    """
    from resnetkit.errors import UsageError
    from resnetkit.studies.cluster import Workers

    if jobs < 0:
        raise UsageError(f"--jobs {jobs}: expected 0 or more.")
    for option, value, kind in (("scheduler", scheduler, "dask"), ("address", address, "ray")):
        if value is not None and backend != kind:
            raise UsageError(f"--{option} {value}: expected together with --backend {kind}.")
    return Workers(jobs or None, backend, device, scheduler or address)


def refuse_worker_options(
    expected: str,
    shards: int | None,
    jobs: int,
    backend: str,
    scheduler: str | None,
    address: str | None,
) -> None:
    """Raises UsageError for options of several processes, which need another option."""
    from resnetkit.errors import UsageError

    given = {
        "--shards": shards is not None,
        "--jobs": jobs != 0,
        "--backend": backend != "loky",
        "--scheduler": scheduler is not None,
        "--address": address is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"{option}: expected together with {expected}.")
