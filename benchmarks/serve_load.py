"""Load on `resnet serve`, next to a plain FastAPI application and LitServe, in turns.

Every server computes the same model with the same engine on the same JPEGs of 500x375 pixels, which
are drawn. A round measures, one after the other: `resnet predict` on the files; each server with as
many clients as keep it busy; the latency of `resnet serve` for one client, compared with the times
of decoding and network that it reports; and three times the load that it can take. The client is a
process of its own on the same machine, and takes processor time from the servers.

FastAPI and LitServe are installed in an environment of their own, in which resnetkit can be
imported too:

    python benchmarks/serve_load.py runs/NAME --peers .venv-peers/bin/python --rounds 3
"""

import argparse
import base64
import json
import os
import random
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from folder_pipeline import draw
from side_by_side import features

CLIENTS = 8  # more would be refused, and try again at once, which takes the processors
IMAGES = 200
OVERLOAD = 3  # times the capacity
START_SECONDS = 120.0


@dataclass
class Outcomes:
    """What clients observed.

    Attributes:
        seconds: of the measurement.
        latencies: seconds of answered requests.
        refused: seconds of requests that were refused with 503.
        stages: seconds of decoding and network of answered requests, as the server reports them.
        others: statuses that are neither, and refusals without Retry-After.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    stages: list[float] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Returns answered requests per second."""
        return len(self.latencies) / self.seconds


class Client:
    """One connection, with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.start = 0.0

    def send(self, request: bytes, start: float) -> None:
        self.start, self.received = start, b""
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Returns status and head of a response, or None while it is incomplete."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionResetError
        self.received += piece
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length is None or len(body) < int(length[1]):
            return None
        return int(head[9:12]), head.lower()


def closed_load(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> Outcomes:
    """Sends the next request of each client when the last one was answered."""
    outcomes, selector = Outcomes(), selectors.DefaultSelector()
    chosen = random.Random(0)
    for _ in range(clients):
        client = Client(port)
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.send(chosen.choice(requests), time.perf_counter())
    start = time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        for key, _ in selector.select(timeout=0.1):
            client = key.data
            if (answer := client.receive()) is not None:
                now = time.perf_counter()
                record(outcomes, answer, now - client.start)
                client.send(chosen.choice(requests), now)
    outcomes.seconds = time.perf_counter() - start
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    return outcomes


def open_load(
    port: int, requests: Sequence[bytes], *, rate: float, seconds: float, clients: int = 400
) -> Outcomes:
    """Sends requests at a rate, at random times, whatever is answered."""
    outcomes, selector, chosen = Outcomes(), selectors.DefaultSelector(), random.Random(0)
    idle = [Client(port) for _ in range(clients)]
    busy = 0
    start = time.perf_counter()
    due = start
    while (now := time.perf_counter()) < start + seconds or busy:
        if now > start + seconds + 15:
            outcomes.others += ["no answer"] * busy
            break
        while due <= now and now < start + seconds:
            if not idle:
                outcomes.others.append("no free client")
            else:
                client = idle.pop()
                client.send(chosen.choice(requests), now)
                selector.register(client.socket, selectors.EVENT_READ, client)
                busy += 1
            due += chosen.expovariate(rate)
        wait = min(0.05, max(0.0, due - time.perf_counter())) if now < start + seconds else 0.05
        for key, _ in selector.select(timeout=wait):
            client = key.data
            answer = client.receive()
            if answer is not None:
                record(outcomes, answer, time.perf_counter() - client.start)
                selector.unregister(client.socket)
                idle.append(client)
                busy -= 1
    outcomes.seconds = seconds
    return outcomes


def record(outcomes: Outcomes, answer: tuple[int, bytes], seconds: float) -> None:
    """Adds a response."""
    status, head = answer
    if status == 200:
        outcomes.latencies.append(seconds)
        stages = re.findall(rb"(?:decode|network);dur=([\d.]+)", head)
        if stages:
            outcomes.stages.append(sum(map(float, stages)) / 1000)
    elif status == 503 and b"retry-after" in head:
        outcomes.refused.append(seconds)
    else:
        outcomes.others.append(str(status))


@dataclass(frozen=True)
class Served:
    """A server to be measured.

    Attributes:
        name: shown.
        command: that starts it, with PORT for the port.
        request: from an image to a request.
    """

    name: str
    command: tuple[str, ...]
    request: Callable[[bytes], bytes]


def raw_request(image: bytes) -> bytes:
    """Returns a request with the image as its body."""
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image


def json_request(image: bytes) -> bytes:
    """Returns a request with the image in JSON, as LitServe takes it."""
    body = json.dumps({"image": base64.b64encode(image).decode()}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def servers(model: Path, peers: str | None) -> list[Served]:
    """Returns the servers that are compared; the first is ours."""
    ours = (sys.executable, "-m", "resnetkit", "serve", str(model), "--port", "PORT")
    listed = [Served("resnet serve", ours, raw_request)]
    if peers:
        script = str(Path(__file__).with_name("serve_peers.py").resolve())
        for name, request in (("fastapi", raw_request), ("litserve", json_request)):
            command = (peers, script, name, str(model), "PORT")
            listed.append(Served(name, command, request))
    return listed


def free_port() -> int:
    """Returns a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextmanager
def started(server: Served, request: bytes) -> Iterator[int]:
    """Starts a server, waits for its first answer, and stops it."""
    port = free_port()
    command = [word.replace("PORT", str(port)) for word in server.command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, cwd=tempfile.gettempdir()
        )
        try:
            end = time.monotonic() + START_SECONDS
            while not answers(port, request):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{server.name} did not start:\n{log.read().decode()}")
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with suppress(ProcessLookupError):  # workers that outlive it would slow down the others
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int, request: bytes) -> bool:
    """Returns whether a server answers a request with 200."""
    try:
        client = Client(port)
        client.socket.settimeout(30)
        client.send(request, 0.0)
        while (answer := client.receive()) is None:
            pass
        client.socket.close()
        return answer[0] == 200
    except OSError:
        return False


def predict_rate(model: Path, folder: Path, repeats: int) -> float:
    """Returns the images per second of `resnet predict`."""
    command = (sys.executable, "-m", "resnetkit", "predict", str(model), "--format", "lines")
    result = subprocess.run(
        [*command, *[str(folder)] * repeats], capture_output=True, text=True, check=True
    )
    found = re.search(r"([\d,.]+) images/s", result.stderr)
    assert found is not None, result.stderr
    return float(found[1].replace(",", ""))


@dataclass
class Round:
    """What a round measured: rates by name, and the outcomes of `resnet serve`."""

    predict: float
    rates: dict[str, float] = field(default_factory=dict)
    alone: Outcomes = field(default_factory=Outcomes)
    overloaded: Outcomes = field(default_factory=Outcomes)


def measure_round(model: Path, folder: Path, peers: str | None, seconds: float) -> Round:
    """Measures all once."""
    images = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    result = Round(predict_rate(model, folder, repeats=max(1, int(seconds / 5))))
    for server in servers(model, peers):
        requests = [server.request(image) for image in images]
        with started(server, requests[0]) as port:
            closed_load(port, requests, clients=CLIENTS, seconds=min(3.0, seconds))
            busy = closed_load(port, requests, clients=CLIENTS, seconds=seconds)
            result.rates[server.name] = busy.rate
            report_others(server.name, busy)
            if server.name == "resnet serve":
                result.alone = closed_load(port, requests, clients=1, seconds=seconds / 2)
                result.overloaded = open_load(
                    port, requests, rate=OVERLOAD * busy.rate, seconds=seconds
                )
                report_others("overload", result.overloaded)
    return result


def report_others(name: str, outcomes: Outcomes) -> None:
    """Prints responses that were not expected."""
    if outcomes.others:
        counts = {text: outcomes.others.count(text) for text in set(outcomes.others)}
        print(f"{name}: {counts}", file=sys.stderr)


def spread(values: Sequence[float], form: str) -> str:
    """Returns the median and the range of values."""
    low, high = min(values), max(values)
    median = statistics.median(values)
    return f"{median:{form}} ({low:{form}} to {high:{form}})"


def table(rounds: Sequence[Round], model: Path) -> str:
    """Returns the results as Markdown."""
    ours = [one.rates["resnet serve"] for one in rounds]
    load = [one.overloaded for one in rounds]
    overload = f"{OVERLOAD} times the load"
    rows = {"`resnet predict`, images/s": spread([one.predict for one in rounds], ".1f")}
    for name in rounds[0].rates:
        rates = [one.rates[name] for one in rounds]
        rows[f"{name}, {CLIENTS} clients, images/s"] = spread(rates, ".1f")
    rows["resnet serve / `resnet predict`"] = ratios(ours, [one.predict for one in rounds])
    for name in list(rounds[0].rates)[1:]:
        rows[f"resnet serve / {name}"] = ratios(ours, [one.rates[name] for one in rounds])
    alone = [one.alone for one in rounds]
    rows["one client: p50, ms"] = spread([milliseconds(one.latencies) for one in alone], ".2f")
    rows["one client: p50 beyond decode and network, ms"] = spread(
        [milliseconds(beyond_stages(one)) for one in alone], ".2f"
    )
    rows[f"{overload}: answered / capacity"] = ratios([one.rate for one in load], ours)
    refused, others = (
        sum(map(len, lists))
        for lists in zip(*((one.refused, one.others) for one in load), strict=True)
    )
    rows[f"{overload}: 503 with Retry-After; anything else"] = f"{refused:,}; {others:,}"
    for percent in (50, 95, 99):
        values = [milliseconds(one.refused, percent) for one in load]
        rows[f"{overload}: p{percent} of a refusal, ms"] = spread(values, ".1f")
    title = f"{model.name}; {machine()}; n = {len(rounds)} rounds, median and range"
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([title, "", "| | |", "|---|---|", *lines])


def ratios(values: Sequence[float], others: Sequence[float]) -> str:
    """Returns the ratios of pairs that were measured in the same round."""
    return spread([value / other for value, other in zip(values, others, strict=True)], ".2f")


def beyond_stages(outcomes: Outcomes) -> list[float]:
    """Returns for each request the seconds beyond decoding and network."""
    pairs = zip(outcomes.latencies, outcomes.stages, strict=True)
    return [total - stages for total, stages in pairs]


def milliseconds(seconds: Sequence[float], percent: float = 50) -> float:
    """Returns a percentile in milliseconds; 0 without values."""
    ordered = sorted(seconds)
    chosen = min(len(ordered) - 1, int(len(ordered) * percent / 100))
    return 1000 * ordered[chosen] if ordered else 0.0


def machine() -> str:
    """Returns the processor, the cores this process may use, and its instructions."""
    from resnetkit.runtime.processor import processor_name
    from resnetkit.runtime.resources import usable_processors

    return f"{processor_name()}, {usable_processors()} cores, {', '.join(features())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--peers", help="Python of an environment with fastapi and litserve")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--folder", type=Path, default=Path("jpegs"))
    options = parser.parse_args()
    model = options.model.resolve()
    draw(options.folder, small=0, large=IMAGES)
    folder = options.folder.resolve() / "large"
    rounds = [
        measure_round(model, folder, options.peers, options.seconds) for _ in range(options.rounds)
    ]
    print(table(rounds, model))


if __name__ == "__main__":
    main()
