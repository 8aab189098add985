"""The process of the server: its socket, its signals, its end."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import cast

import uvicorn

from resnetkit.errors import ResnetkitError, UsageError
from resnetkit.serving.app import build_app
from resnetkit.serving.connections import Connection, protocol_class, watched
from resnetkit.serving.guard import Access, is_loopback
from resnetkit.serving.limits import Limits
from resnetkit.serving.metrics import Metrics
from resnetkit.serving.model import ServedModel
from resnetkit.serving.service import Service

__all__ = ["ModelServer", "bound_socket", "check_access", "ending_in_time", "fitting_limits"]

logger = logging.getLogger(__name__)

HEAD_BYTES = 2**14
RESERVED_FILES = 128  # open files that are not connections
SWITCH_SECONDS = 0.001  # between threads: the event loop waits at most so long for the interpreter
SHORTEST_TOKEN = 16
LAST_SECONDS = 0.5  # for threads to end, when all requests are answered or given up


class Server(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ModelServer:
    """Serves a model until it is stopped.

    Args:
        load: returns the model; it is called again for a reload.
        access: who may use the server.
        limits: of requests.
        version: of this package.
    """

    def __init__(
        self, load: Callable[[], ServedModel], access: Access, limits: Limits, version: str
    ) -> None:
        self._load = load
        self.metrics = Metrics()
        self.service = Service(load(), limits, self.metrics)
        self._reloading = threading.Lock()
        self.limits = limits
        config = uvicorn.Config(
            build_app(self.service, access, version),
            http=protocol_class(limits, self.metrics),
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=limits.keep_alive_seconds,
            timeout_graceful_shutdown=limits.drain_seconds,
        )
        self._server = Server(config)

    @property
    def has_started(self) -> bool:
        """Returns whether connections are accepted."""
        return self._server.started

    def stop(self) -> None:
        """Stops the server after the requests in flight; any thread may call it."""
        self._server.should_exit = True

    def run(self, listening: socket.socket, *, started: Callable[[], None] = lambda: None) -> None:
        """Serves until SIGTERM, SIGINT or `stop`; SIGHUP reloads the model.

        Args:
            listening: a bound socket.
            started: called when connections are accepted.
        """
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            with quiet_uvicorn():
                asyncio.run(self._serve(listening, started))
        finally:
            sys.setswitchinterval(before)
            self.service.close(timeout=1.0)

    async def _serve(self, listening: socket.socket, started: Callable[[], None]) -> None:
        """Serves in an event loop."""
        loop = asyncio.get_running_loop()
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self.start_reload)
        connections = cast("set[Connection]", self._server.server_state.connections)
        with watched(connections), stopped_by_signals(self.stop if is_main else None):
            serving = asyncio.ensure_future(self._server.serve([listening]))
            while not (self._server.started or serving.done()):
                await asyncio.sleep(0.01)
            if self._server.started:
                started()
            await serving

    def start_reload(self) -> None:
        """Reloads the model in a thread, while the old one answers."""
        threading.Thread(target=self.reload, name="reload", daemon=True).start()

    def reload(self) -> bool:
        """Loads the model again; it answers only after it was checked.

        Returns:
            Whether it answers; otherwise the old one goes on, and the reason is logged.
        """
        with self._reloading:
            try:
                model = self._load()
            except Exception as error:
                self.metrics.reloads.labels("failed").inc()
                is_bug = not isinstance(error, ResnetkitError | OSError | MemoryError)
                logger.warning(
                    "the model was not reloaded, the old one still answers: %s",
                    error or type(error).__name__,
                    exc_info=is_bug,
                )
                return False
            self.service.replace_model(model)
            self.metrics.reloads.labels("done").inc()
            logger.warning("the model was reloaded: %s", model.predictor.engine.origin)
            return True


@contextmanager
def stopped_by_signals(stop: Callable[[], None] | None) -> Iterator[None]:
    """Calls a function at SIGTERM and SIGINT during the block; not outside the main thread."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    if stop is None:
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextmanager
def quiet_uvicorn() -> Iterator[None]:
    """Keeps uvicorn from logging what clients do wrong; its errors still are."""
    named = logging.getLogger("uvicorn.error")
    before = named.level
    named.setLevel(logging.ERROR)
    try:
        yield
    finally:
        named.setLevel(before)


def bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to an address and does not listen yet.

    Raises:
        UsageError: when the port is in use, may not be used, or the host is not of this machine.
    """
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: expected from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: there is no such host.") from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UsageError(f"{reason_of(error, host, port)}.") from error
    return bound


def reason_of(error: OSError, host: str, port: int) -> str:
    """Returns why a socket could not be bound."""
    import errno

    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} of {host} is in use by another program: stop it, or choose another"
                " port with --port"
            )
        case errno.EACCES:
            return f"port {port} may not be used by this user: choose one from 1024 with --port"
        case errno.EADDRNOTAVAIL:
            return f"--host {host}: it is not an address of this machine"
        case _:
            return f"{host}, port {port}: {error.strerror or error}"


def check_access(host: str, access: Access, *, is_open: bool) -> Access:
    """Returns the access with the hosts that follow from the address.

    Raises:
        UsageError: when others could use the server without a token, or the token is weak.
    """
    token = access.token
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("the token has characters other than printable ASCII.")
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"the token has {len(token)} characters: expected {SHORTEST_TOKEN} or more, such as"
            " those of 'openssl rand -hex 32'."
        )
    if is_loopback(host):
        return access
    if token is None and not is_open:
        raise UsageError(
            f"--host {host}: others could use the server. Set a token with --token-file or the"
            " variable RESNET_SERVE_TOKEN, or say --open to let everybody use it."
        )
    names = {host.lower(), socket.gethostname().lower()}
    return replace(access, hosts=access.hosts | names, any_address=True)


@contextmanager
def ending_in_time() -> Iterator[None]:
    """Ends the process after the block if threads that were started in it still work.

    Python would wait for them when it exits: minutes, for a saliency map of a deep network.
    """
    before = set(threading.enumerate())
    yield
    started = [thread for thread in threading.enumerate() if thread not in before]
    deadline = monotonic() + LAST_SECONDS
    for thread in started:
        if not thread.daemon:
            thread.join(max(0.0, deadline - monotonic()))
    if any(thread.is_alive() and not thread.daemon for thread in started):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # its reader has left, or it was closed
                stream.flush()
        logging.shutdown()
        os._exit(0)


def fitting_limits(limits: Limits) -> Limits:
    """Returns limits that fit this process and each other.

    There are no more connections than this process may have open files, and all bodies together
    may be as large as one of them.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return replace(
        limits,
        connections=max(1, min(limits.connections, most - RESERVED_FILES)),
        bytes_in_flight=max(limits.bytes_in_flight, limits.body_bytes),
    )
