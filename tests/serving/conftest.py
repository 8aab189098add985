"""A server with an engine of numpy, in a thread of this process."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetkit.inference.engine import Floats, Pixels, Scores, softmax
from resnetkit.inference.predictor import Predictor
from resnetkit.inference.transform import EvalTransform
from resnetkit.serving.guard import Access
from resnetkit.serving.limits import Limits
from resnetkit.serving.model import ServedModel, prepare
from resnetkit.serving.server import ModelServer, bound_socket

SIDE = 16
CLASSES = 7


@dataclass
class LinearEngine:
    """Logits are products of pixels; it can be slow, and fail for images of one value."""

    seconds: float = 0.0
    seed: int = 0
    name: str = "linear"
    precision: str = "float32"
    origin: str = "a linear network"
    layers: tuple[str, ...] = ("pool", "fc")
    batches: list[int] = field(default_factory=list)
    failing_value: int | None = None
    is_held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.weights = rng.normal(size=(3, CLASSES)).astype(np.float32) / 50
        self.is_held.set()

    @property
    def network_sha256(self) -> str:
        return f"{self.seed:064x}"

    def features(self, pixels: Pixels, layer: str) -> Floats:
        self.batches.append(len(pixels))
        self.is_held.wait(60)
        time.sleep(self.seconds)
        if self.failing_value is not None and (pixels == self.failing_value).all((1, 2, 3)).any():
            raise RuntimeError("this value cannot be computed")
        means = pixels.astype(np.float32).mean((2, 3))
        return means if layer == "pool" else means @ self.weights

    def probabilities(self, pixels: Pixels) -> Scores:
        return softmax(self.features(pixels, "fc"))


def linear_predictor(engine: LinearEngine, *, batch_size: int = 8) -> Predictor:
    names = tuple(f"kind {label}" for label in range(CLASSES))
    return Predictor(engine, EvalTransform(3, (SIDE, SIDE), 1.0), names, batch_size)


def drawn_image(number: int, kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(content, kind)
    return content.getvalue()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Returns the sentence of a refusal, which has this form for every route."""
        assert list(self.json) == ["error"]
        assert self.json["error"].endswith((".", "?"))
        return str(self.json["error"])


@dataclass(frozen=True)
class Client:
    server: ModelServer
    port: int
    engine: LinearEngine

    def connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=60)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = self.connection()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, named, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: bytes, **headers: str) -> Reply:
        return self.send("POST", path, body, headers)

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, headers)


@contextmanager
def running(
    engine: LinearEngine | None = None,
    access: Access | None = None,
    batch_size: int = 8,
    **limits: Any,
) -> Iterator[Client]:
    engine = engine or LinearEngine()
    predictor = linear_predictor(engine, batch_size=batch_size)
    model = prepare("linear", predictor, longest_batch_seconds=9)
    with running_model(model, access, engine, **limits) as client:
        try:
            yield client
        finally:
            engine.is_held.set()


@contextmanager
def running_model(
    model: ServedModel,
    access: Access | None = None,
    engine: LinearEngine | None = None,
    **limits: Any,
) -> Iterator[Client]:
    with bound_socket("127.0.0.1", 0) as listening:
        patient = Limits(**{"answer_seconds": 60.0, **limits})  # however busy this machine is
        server = ModelServer(lambda: model, access or Access(), patient, "1.2.3")
        started = threading.Event()
        thread = threading.Thread(
            target=server.run, args=(listening,), kwargs={"started": started.set}
        )
        port = listening.getsockname()[1]
        thread.start()
        assert started.wait(60)
        try:
            yield Client(server, port, engine or LinearEngine())
        finally:
            server.stop()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def serving_model() -> Callable[..., Any]:
    """Starts a server of a model in a thread, as a context manager."""
    return running_model


@pytest.fixture
def serving() -> Callable[..., Any]:
    """Starts a server in a thread, as a context manager."""
    return running


@pytest.fixture
def linear() -> type[LinearEngine]:
    return LinearEngine


@pytest.fixture
def predictor_of() -> Callable[..., Predictor]:
    return linear_predictor


@pytest.fixture
def image() -> Callable[..., bytes]:
    """Draws an image, another one for each number."""
    return drawn_image


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A server with the usual limits."""
    with running() as started:
        yield started
