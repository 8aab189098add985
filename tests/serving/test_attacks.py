"""Clients that attack the server while others use it; minutes, so run with -m slow.

RESNETKIT_TEST_MINUTES sets how long 64 clients use the server: 2 by default.
"""

import contextlib
import io
import json
import os
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("RESNETKIT_TEST_MINUTES", "2"))


@contextlib.contextmanager
def bystander(client: Any, content: bytes) -> Iterator[list[float]]:
    """Sends good requests all the time; each must be answered as the first one was."""
    expected = client.post("/predict", content).json
    stop, seconds, wrong = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            start = time.monotonic()
            reply = client.post("/predict", content)
            seconds.append(time.monotonic() - start)
            labels = reply.status == 200 and [
                guess["label"] for guess in reply.json[0]["predictions"]
            ]
            if labels != [guess["label"] for guess in expected[0]["predictions"]]:
                wrong.append((reply.status, reply.body[:200]))
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert len(seconds) > 5


def mutated(content: bytes, chosen: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chosen.randint(1, 10)):
        place = chosen.randrange(len(changed))
        kind = chosen.randrange(3)
        if kind == 0:
            changed[place] = chosen.randrange(256)
        elif kind == 1:
            del changed[place : place + chosen.randint(1, 40)]
        else:
            changed[place:place] = chosen.randbytes(chosen.randint(1, 40))
        if not changed:
            return b"x"
    return bytes(changed)


def test_ten_thousand_mutated_bodies(client: Any, image: Callable[..., bytes]) -> None:
    from tritonclient.http import InferenceServerClient, InferInput

    tensor = InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([image(0), image(1)], dtype=object))
    infer, length = InferenceServerClient.generate_request_body([tensor])
    text = json.dumps(
        {
            "inputs": [
                {"name": "pixels", "datatype": "UINT8", "shape": [1, 3, 16, 16], "data": [7] * 768}
            ]
        }
    ).encode()
    good = [
        ("/predict?top=2", image(2, "JPEG"), {}),
        ("/features", image(3), {}),
        ("/v2/models/linear/infer", infer, {"Inference-Header-Content-Length": str(length)}),
        ("/v2/models/linear/infer", text, {}),
    ]
    chosen, statuses = random.Random(0), {}
    connection = client.connection()
    with bystander(client, image(9)):
        for number in range(10_000):
            path, content, headers = good[number % len(good)]
            connection.request("POST", path, mutated(content, chosen), headers)
            response = connection.getresponse()
            body = response.read()
            statuses[response.status] = statuses.get(response.status, 0) + 1
            if response.status != 200:
                assert 400 <= response.status < 500, body
                assert json.loads(body)["error"].endswith((".", "?"))
    connection.close()
    assert sum(statuses.values()) == 10_000
    assert statuses[400] > 1000


def test_a_thousand_mutated_requests(client: Any, image: Callable[..., bytes]) -> None:
    content = image(1)
    whole = (
        b"POST /predict?top=2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Connection: close\r\nContent-Length: "
        + str(len(content)).encode()
        + b"\r\n\r\n"
        + content
    )
    chosen = random.Random(1)
    with bystander(client, image(9)):
        for _ in range(1000):
            head, separator, body = whole.partition(b"\r\n\r\n")
            sent = mutated(head, chosen) + separator + body
            with socket.create_connection(("127.0.0.1", client.port), timeout=10) as talk:
                received = b""
                with contextlib.suppress(ConnectionError):
                    talk.sendall(sent)
                    talk.shutdown(socket.SHUT_WR)
                    while piece := talk.recv(65536):
                        received += piece
            assert not received or received[9:10] in b"24", received[:200]


def test_a_thousand_malformed_images(client: Any, image: Callable[..., bytes]) -> None:
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
    chosen = random.Random(2)

    def malformed(number: int) -> bytes:
        content = image(number % 20, kinds[number % len(kinds)])
        cut = content[: chosen.randrange(1, len(content))]
        return cut if number % 3 else mutated(content, chosen)

    with bystander(client, image(9)), ThreadPoolExecutor(8) as pool:
        contents = [malformed(number) for number in range(1000)]
        for reply in pool.map(lambda content: client.post("/predict", content), contents):
            assert reply.status == 200 or reply.error
            assert reply.status in (200, 413, 422)


def test_image_bombs(client: Any, image: Callable[..., bytes]) -> None:
    bombs = []
    for kind, options in (("PNG", {}), ("TIFF", {"compression": "tiff_deflate"}), ("GIF", {})):
        content = io.BytesIO()
        Image.new("L", (8000, 8000)).save(content, kind, **options)
        bombs.append(content.getvalue())
    with bystander(client, image(9)) as seconds, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda content: client.post("/predict", content), bombs * 10))
    assert {reply.status for reply in replies} <= {200, 503}
    assert statistics.median(seconds) < 1


def test_two_hundred_slow_clients(serving: Callable[..., Any], image: Callable[..., bytes]) -> None:
    request = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999
    )
    with serving(receive_seconds=5) as client, contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
            for _ in range(200)
        ]
        with bystander(client, image(9)) as seconds:
            for step in range(16):  # a byte each half a second: 8 s, longer than is allowed
                for number, talk in enumerate(slow):
                    offset = step + (0 if number % 2 else 60)
                    with contextlib.suppress(ConnectionError):
                        talk.sendall(request[offset if step else 0 : offset + 1])
                time.sleep(0.5)
        assert statistics.median(seconds) < 0.2
        for talk in slow:
            with contextlib.suppress(ConnectionError):
                assert talk.recv(4096)[9:12] in (b"408", b"400")


def test_clients_that_do_not_read_their_response(
    serving: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(receive_seconds=1) as client, contextlib.ExitStack() as stack:
        for _ in range(20):
            talk = stack.enter_context(socket.socket())
            talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            talk.connect(("127.0.0.1", client.port))
            talk.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(2000):
                    talk.sendall(ask)
        connections, end = client.server._server.server_state.connections, time.monotonic() + 90
        with bystander(client, image(9)):
            while len(connections) >= 5:  # the buffers of the system are filled first
                assert time.monotonic() < end
                time.sleep(0.5)


def memory_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_many_clients_for_minutes(serving: Callable[..., Any], image: Callable[..., bytes]) -> None:
    sizes = [(40, 30), (500, 375), (64, 64), (1000, 700), (17, 33)]
    contents = [
        image(number, kind, size)
        for number, size in enumerate(sizes)
        for kind in ("PNG", "JPEG", "WEBP")
    ]
    with serving(wait_seconds=60) as client:  # on a slow machine, too, all are answered
        expected = [client.post("/predict", content).json for content in contents]
        wrong, counts, end = [], [], time.monotonic() + 60 * MINUTES

        def ask(seed: int) -> None:
            chosen, count = random.Random(seed), 0
            with closing(client.connection()) as connection:
                while time.monotonic() < end:
                    number = chosen.randrange(len(contents))
                    connection.request("POST", "/predict", contents[number])
                    response = connection.getresponse()
                    body = response.read()
                    count += 1
                    if response.status != 200 or not close(json.loads(body), expected[number]):
                        wrong.append((response.status, body))
            counts.append(count)

        with ThreadPoolExecutor(64) as pool:
            clients = [pool.submit(ask, seed) for seed in range(64)]
            time.sleep(15)
            before = memory_bytes()
        for one in clients:
            one.result()
        after = memory_bytes()
    assert wrong == []
    assert sum(counts) > 1000
    assert after < 1.05 * before


def close(answer: Any, expected: Any) -> bool:
    """Returns whether answers are those of another batch size."""
    return all(
        guess["label"] == same["label"] and abs(guess["probability"] - same["probability"]) < 1e-6
        for guess, same in zip(answer[0]["predictions"], expected[0]["predictions"], strict=True)
    )
