"""SIGTERM and SIGHUP of a server in a process of its own."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("linear_server.py")


@contextmanager
def process(seconds: float) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    command = [sys.executable, str(SERVER), "0", str(seconds)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        yield started, int(started.stdout.readline())
    finally:
        started.kill()
        started.communicate()


def post(port: int, content: bytes, path: str = "/predict") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, content)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Resnet-Network", "")
    finally:
        connection.close()


def test_sigterm_answers_what_is_in_flight_and_ends_in_time(image: Callable[..., bytes]) -> None:
    with process(0.5) as (server, port), socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        statuses: list[int] = []
        asking = threading.Thread(target=lambda: statuses.append(post(port, image(0))[0]))
        asking.start()
        time.sleep(0.2)
        server.send_signal(signal.SIGTERM)
        asking.join(60)
        assert statuses == [200]
        with suppress(ConnectionRefusedError):
            assert post(port, image(0)) is None, "a stopped server accepts connections"
        assert server.wait(60) == 0  # although a client has sent half a request


def test_a_saliency_map_that_takes_an_hour_does_not_delay_the_end(
    image: Callable[..., bytes],
) -> None:
    with process(0.0) as (server, port):
        statuses: list[int] = []

        def ask() -> None:
            with suppress(OSError, http.client.HTTPException):
                statuses.append(post(port, image(0), "/saliency")[0])

        asking = threading.Thread(target=ask)
        asking.start()
        assert server.stdout is not None
        assert server.stdout.readline() == "explaining\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        asking.join(60)
        assert statuses != [200]


def test_sighup_reloads_without_a_failed_request(image: Callable[..., bytes]) -> None:
    with process(0.0) as (server, port):
        answers = [post(port, image(0))]
        for _ in range(2):
            server.send_signal(signal.SIGHUP)
            end = time.monotonic() + 60
            before = answers[-1]
            while answers[-1] == before and time.monotonic() < end:
                answers.append(post(port, image(0)))
        assert {status for status, _ in answers} == {200}
        digests = [digest for _, digest in answers]
        assert sorted(set(digests)) == [f"{seed:064x}" for seed in range(3)]
        assert digests == sorted(digests)


@pytest.mark.slow
def test_a_burst_of_reloads_and_an_interruption(image: Callable[..., bytes]) -> None:
    with process(0.0) as (server, port):
        for _ in range(20):
            server.send_signal(signal.SIGHUP)
        assert post(port, image(0))[0] == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
