"""The first signal is noted, a second one ends the process as usual."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from resnetkit.errors import Interrupted
from resnetkit.training.signals import StopRequest, caught_signals

SIGNALS = [
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nothing_else_happens(number: int) -> None:
    with caught_signals() as stop:
        assert not stop
        send(number)
        assert stop
        assert stop.signal_number == number


@pytest.fixture(autouse=True)
def _signals_end_processes() -> Iterator[None]:
    """Undoes what a shell and nohup do to processes: they ignore SIGINT and SIGHUP."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_ends_the_process_as_usual(first: int) -> None:
    with caught_signals():
        send(first)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize("signalled", [False, True])
def test_handlers_are_put_back(signalled: bool) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with caught_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        if signalled:
            send(signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_in_another_thread_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def work() -> None:
        with caught_signals() as stop:
            seen.extend([bool(stop), [signal.getsignal(number) for number in SIGNALS]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_names_the_signal(number: int, code: int) -> None:
    error = Interrupted("stopped.", number)
    assert error.exit_code == code
    assert str(error) == "stopped."


def test_nobody_asked_at_the_beginning() -> None:
    assert not StopRequest()


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught_signals() as stop:
            send(signal.SIGHUP)
            assert not stop
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
