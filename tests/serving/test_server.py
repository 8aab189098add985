"""A real uvicorn on loopback: routes, limits, and clients that misbehave."""

import contextlib
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from resnetkit.data.images import decode
from resnetkit.inference.transform import EvalTransform
from resnetkit.serving import app, connections
from resnetkit.serving.app import Endpoints
from resnetkit.serving.guard import Access
from resnetkit.serving.model import prepare
from resnetkit.serving.protocol import inference_response, parse_inference_request
from resnetkit.serving.saliency import Explained

TOKEN = "0123456789abcdef0123"


def sample(client: Any, name: str, **labels: str) -> float:
    """Returns a value of the metrics; 0 if there is none."""
    for family in text_string_to_metric_families(client.get("/metrics").body.decode()):
        for found in family.samples:
            if found.name == name and labels.items() <= found.labels.items():
                return float(found.value)
    return 0.0


def test_an_image_is_answered_as_by_the_predictor(
    client: Any, image: Callable[..., bytes], predictor_of: Callable[..., Any]
) -> None:
    predictor = predictor_of(client.engine)
    for number, kind in enumerate(("PNG", "JPEG", "WEBP", "BMP", "TIFF")):
        content = image(number, kind)
        reply = client.post("/predict?top=3", content)
        (expected,) = predictor.predict(content, top=3)
        assert reply.status == 200
        assert reply.json == [
            {
                "path": "-",
                "predictions": [
                    {"label": guess.label, "class": guess.name, "probability": guess.probability}
                    for guess in expected.ranked
                ],
                "error": None,
            }
        ]
        assert reply.headers["server-timing"].startswith("decode;dur=")
        (activations,) = predictor.features(content, layer="fc")
        features = client.post("/features?layer=fc", content).json
        assert features["features"] == activations.values.tolist()
        assert features["network_sha256"] == client.engine.network_sha256


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "sentence"),
    [
        ("/predict", b"\x01\x02", {}, 422, "not an image in a supported format"),
        ("/predict", b"", {}, 400, "the body is empty"),
        ("/predict?top=0", b"x", {}, 400, "expected at least 1"),
        ("/predict?top=1.5", b"x", {}, 400, "expected a whole number"),
        ("/predict?top=99999999999", b"x", {}, 400, "expected a whole number"),
        ("/predict?top=1&top=2", b"x", {}, 400, "occurs twice"),
        ("/predict?tpo=1", b"x", {}, 400, "Did you mean 'top'?"),
        ("/predict?timeout=soon", b"x", {}, 400, "positive number of seconds"),
        ("/predict?timeout=-1", b"x", {}, 400, "positive number of seconds"),
        ("/features?layer=pol", b"x", {}, 400, "Did you mean 'pool'?"),
        ("/predict", b"x", {"Content-Type": "multipart/form-data"}, 415, "--data-binary"),
        ("/predict", b"x", {"Content-Encoding": "gzip"}, 415, "compressed"),
        ("/predict", b"x", {"Host": "evil.example"}, 421, "--allow-host"),
        ("/predict", b"x", {"Origin": "https://evil.example"}, 403, "--allow-origin"),
        ("/saliency", b"x", {}, 404, "need a network that torch computes"),
        ("/nothing", b"x", {}, 404, "/openapi.json lists all routes"),
        ("/v2/models/other/infer", b"x", {}, 404, "there is no model 'other'"),
        ("/v2/models/linear/versions/2/infer", b"x", {}, 404, "of version '2'"),
        ("/v2/models/linear/infer", b"x", {}, 400, "not JSON"),
        ("/model", b"x", {}, 405, "does not take POST: use GET or HEAD."),
    ],
)
def test_what_is_wrong_is_said(
    client: Any, path: str, body: bytes, headers: dict[str, str], status: int, sentence: str
) -> None:
    reply = client.send("POST", path, body, headers)
    assert reply.status == status
    assert sentence in reply.error


def test_get_does_not_predict_and_other_methods_are_refused(client: Any) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        reply = client.send(method, "/predict")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_every_route_is_described_and_every_reference_resolves(client: Any) -> None:
    document = client.get("/openapi.json").json
    described = {
        (path, method.upper())
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    routes = {
        (route.path, method)
        for route in Endpoints(client.server.service, "1").routes()
        for method in route.methods - {"HEAD"}
    }
    assert described == routes
    text = json.dumps(document)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


def test_health_and_metadata_follow_the_protocol(client: Any) -> None:
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    assert client.get("/v2/models/linear/ready").status == 200
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data", "classification"]
    metadata = client.get("/v2/models/linear/versions/1").json
    assert [item["name"] for item in metadata["inputs"]] == ["image", "pixels"]
    assert metadata["outputs"] == [
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 7]},
        {"name": "pool", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "fc", "datatype": "FP32", "shape": [-1, 7]},
    ]


def test_tritonclient_works_unchanged(client: Any, image: Callable[..., bytes]) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    contents = [image(number) for number in range(5)]
    expected = [client.post("/predict?top=7", content).json[0] for content in contents]
    with contextlib.closing(InferenceServerClient(f"127.0.0.1:{client.port}")) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("linear")
        assert triton.get_server_metadata()["name"] == "resnetkit"
        assert triton.get_model_metadata("linear")["versions"] == ["1"]
        images = InferInput("image", [5], "BYTES")
        images.set_data_from_numpy(np.array(contents, dtype=object))
        result = triton.infer("linear", [images], request_id="a")
        probabilities = result.as_numpy("probabilities")
        outputs = [InferRequestedOutput("fc"), InferRequestedOutput("pool", binary_data=False)]
        both = triton.infer("linear", [images], outputs=outputs, model_version="1")
        assert both.as_numpy("fc").shape == (5, 7)
        assert both.as_numpy("pool").shape == (5, 3)
        pixels = np.zeros((2, 3, 16, 16), dtype=np.uint8)
        tensor = InferInput("pixels", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels)
        waiting = triton.async_infer("linear", [tensor])
        assert waiting.get_result().as_numpy("probabilities").shape == (2, 7)
        images.set_data_from_numpy(np.array([*contents[:4], b"\x01\x02"], dtype=object))
        with pytest.raises(InferenceServerException, match="supported format"):
            triton.infer("linear", [images])
    for row, record in zip(probabilities, expected, strict=True):
        for prediction in record["predictions"]:
            assert row[prediction["label"]] == pytest.approx(prediction["probability"], abs=1e-6)


def infer_pixels(count: int, *outputs: str, **parameters: int) -> tuple[bytes, dict[str, str]]:
    """Returns the body and the headers of a request with binary pixels."""
    raw = bytes(count * 3 * 16 * 16)
    tensor = {
        "name": "pixels",
        "datatype": "UINT8",
        "shape": [count, 3, 16, 16],
        "parameters": {"binary_data_size": len(raw)},
    }
    asked = [{"name": output} for output in outputs]
    text = json.dumps({"inputs": [tensor], "outputs": asked, "parameters": parameters}).encode()
    return text + raw, {app.JSON_LENGTH: str(len(text))}


def test_large_bodies_are_parsed_outside_the_event_loop(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def parsed(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name.partition("_")[0])
        return parse_inference_request(*arguments)

    monkeypatch.setattr(app, "parse_inference_request", parsed)
    body, headers = infer_pixels(64)
    assert client.send("POST", "/v2/models/linear/infer", body, headers).status == 200
    assert threads == ["json"]


def test_writing_a_response_has_a_deadline(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    can_write = threading.Event()

    def written(*arguments: Any) -> Any:
        can_write.wait(10)
        return inference_response(*arguments)

    monkeypatch.setattr(app, "LONG_TEXT", 0)
    monkeypatch.setattr(app, "inference_response", written)
    body, headers = infer_pixels(1, timeout=500_000)  # microseconds
    reply = client.send("POST", "/v2/models/linear/infer", body, headers)
    can_write.set()
    assert reply.status == 503
    assert "not ready in time" in reply.error


def test_a_bad_image_among_others_harms_only_itself(
    client: Any, image: Callable[..., bytes]
) -> None:
    contents = [image(number) if number % 3 else b"\x89PNG broken" for number in range(24)]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda content: client.post("/predict", content), contents))
    assert [reply.status for reply in replies] == [
        200 if number % 3 else 422 for number in range(24)
    ]


def test_simultaneous_requests_share_batches_and_get_their_own_answers(
    serving: Callable[..., Any], linear: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving(linear()) as client:
        contents = [image(number) for number in range(12)]
        alone = [client.post("/predict", content).json for content in contents]
        client.engine.batches.clear()
        client.engine.is_held.clear()
        with ThreadPoolExecutor(12) as pool:
            pending = [pool.submit(client.post, "/predict", content) for content in contents]
            deadline = time.monotonic() + 60
            while client.server.service.images < 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            client.engine.is_held.set()
            together = [reply.result().json for reply in pending]
        assert max(client.engine.batches) > 1
        assert sum(client.engine.batches) == 12
    for one, other in zip(alone, together, strict=True):
        assert [guess["label"] for guess in one[0]["predictions"]] == [
            guess["label"] for guess in other[0]["predictions"]
        ]
        for guess, same in zip(one[0]["predictions"], other[0]["predictions"], strict=True):
            assert guess["probability"] == pytest.approx(same["probability"], abs=1e-6)


def test_an_overloaded_server_refuses_at_once_and_says_when_to_come_back(
    serving: Callable[..., Any], linear: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    content = image(0)
    with serving(linear(seconds=0.05), batch_size=1, wait_seconds=0.2) as client:
        client.engine.is_held.clear()
        with ThreadPoolExecutor(24) as pool:
            pending = [pool.submit(client.post, "/predict", content) for _ in range(24)]
            first = next(as_completed(pending))
            assert first.result().status == 503  # while nothing is computed
            client.engine.is_held.set()
            replies = [reply.result() for reply in pending]
        refused = [reply for reply in replies if reply.status == 503]
        assert {reply.status for reply in replies} == {200, 503}
        assert all(reply.headers["retry-after"] == "1" for reply in refused)
        assert sample(client, "resnet_refused_total", reason="wait") == len(refused)
        assert client.post("/predict", content).status == 200


def test_images_that_cannot_be_computed_in_time_are_refused_at_once(
    serving_model: Callable[..., Any],
    linear: Callable[..., Any],
    predictor_of: Callable[..., Any],
) -> None:
    engine = linear()
    model = prepare("linear", predictor_of(engine), longest_batch_seconds=9)
    engine.batches.clear()
    slow = replace(model, seconds_per_image=3.0)
    with serving_model(slow, answer_seconds=30.0) as client:

        def infer(*arguments: Any) -> Any:
            body, headers = infer_pixels(*arguments)
            return client.send("POST", "/v2/models/linear/infer", body, headers)

        for reply in (infer(64), infer(6, "pool", "fc")):
            assert reply.status == 503
            assert "send fewer images in a request, or request fewer outputs" in reply.error
        assert engine.batches == []
        assert infer(6).status == 200


def test_an_idle_server_that_seems_too_slow_tries_again(serving: Callable[..., Any]) -> None:
    body, headers = infer_pixels(64)
    with serving(answer_seconds=30.0) as client:
        for _ in range(100):
            client.server.service.pace.computed(8, 8, 8 * 10.0)
        statuses: list[int] = []
        while 200 not in statuses and len(statuses) < 100:
            statuses.append(client.send("POST", "/v2/models/linear/infer", body, headers).status)
        assert set(statuses) == {200, 503}


def test_others_wait_for_each_output_of_an_image(
    serving_model: Callable[..., Any],
    linear: Callable[..., Any],
    predictor_of: Callable[..., Any],
    image: Callable[..., bytes],
) -> None:
    model = prepare("linear", predictor_of(linear()), longest_batch_seconds=9)
    with serving_model(replace(model, seconds_per_image=0.1)) as client:
        service, deadline = client.server.service, time.monotonic() + 60
        with service.admitted(5, deadline, outputs=3):
            reply = client.post("/predict", image(0))
            assert (reply.status, "would wait about 1.5 s" in reply.error) == (503, True)
        with service.admitted(5, deadline):
            assert client.post("/predict", image(0)).status == 200


def test_a_deadline_travels_with_the_request(
    serving: Callable[..., Any], linear: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving(linear()) as client:
        client.engine.batches.clear()
        client.engine.is_held.clear()
        start = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(client.post, "/predict", image(0))
            while not client.engine.batches:
                time.sleep(0.01)
            reply = client.post("/predict?timeout=0.2", image(1))
            assert reply.status == 503
            assert "not ready in time" in reply.error
            assert time.monotonic() - start > 0.15  # the engine still computes the first image
            client.engine.is_held.set()
            assert first.result().status == 200
        assert client.post("/predict", image(2)).status == 200
        assert client.engine.batches == [1, 1]  # the late one was not computed


def test_the_image_of_a_client_that_left_is_not_computed(
    serving: Callable[..., Any], linear: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving(linear()) as client:
        client.engine.batches.clear()
        client.engine.is_held.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/predict", image(0))
            while not client.engine.batches:
                time.sleep(0.01)
            leaving = client.connection()
            leaving.request("POST", "/predict", image(1))
            while client.server.service.images < 2:
                time.sleep(0.01)
            leaving.close()
            while client.server.service.images > 1:
                time.sleep(0.01)
            client.engine.is_held.set()
            assert first.result().status == 200
        assert client.post("/predict", image(2)).status == 200
        assert client.engine.batches == [1, 1]
        assert sample(client, "resnet_abandoned_total") == 1


def png_of_zeros(width: int, height: int) -> bytes:
    """Returns a small file with very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def test_image_bombs_are_refused_before_they_are_decoded(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", pytest.fail)
    for width, height, status, sentence in (
        (9000, 9000, 413, "more than the limit of 67 million"),
        (60_000, 60_000, 422, "far too many pixels"),
        (8000, 10, 422, "more than 100 times"),
    ):
        reply = client.post("/predict", png_of_zeros(width, height))
        assert (reply.status, sentence in reply.error) == (status, True), reply.body


def test_large_images_have_a_limit_of_their_own(serving: Callable[..., Any]) -> None:
    large = io.BytesIO()
    Image.new("L", (2200, 2200)).save(large, "PNG")
    small = io.BytesIO()
    Image.new("L", (20, 20)).save(small, "PNG")
    with serving(large_pixels=2200 * 2200) as client, ThreadPoolExecutor(9) as pool:
        pending = [pool.submit(client.post, "/predict", large.getvalue()) for _ in range(8)]
        assert client.post("/predict", small.getvalue()).status == 200
        statuses = [reply.result().status for reply in pending]
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_no_image_waits_for_the_memory_of_a_large_one(
    client: Any, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    large, is_decoded, can_go = (2200, 2200), threading.Event(), threading.Event()
    center_crop = EvalTransform.center_crop

    def held(transform: EvalTransform, picture: Image.Image) -> Image.Image:
        if picture.size == large:
            is_decoded.set()
            can_go.wait(60)
        return center_crop(transform, picture)

    monkeypatch.setattr(EvalTransform, "center_crop", held)
    monkeypatch.setattr(decode.GATE, "limit", 2**22)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.post, "/predict", image(0, "PNG", large))
        assert is_decoded.wait(60)
        reply = client.post("/predict?timeout=10", image(1, "PNG", (100, 100)))
        can_go.set()
        assert (reply.status, pending.result().status) == (200, 200)


def test_bodies_that_are_too_large_are_refused_unread(serving: Callable[..., Any]) -> None:
    with serving(body_bytes=1000) as client, raw(client) as talk:
        talk.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert b"413" in talk.recv(4096)


def test_bodies_that_are_not_completed_give_way_to_others(
    serving: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving(bytes_in_flight=20_000) as client, raw(client) as hoarder:
        hoarder.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000\r\n\r\n"
            + b"x" * 19_999
        )
        bodies = client.server.service.bodies
        while bodies.used < 19_999:
            time.sleep(0.01)
        assert client.post("/predict", image(0)).status == 200
        reply = everything(hoarder)
        assert reply[9:12] == b"503"
        assert b"receives too much at once" in reply
        assert sample(client, "resnet_refused_total", reason="bytes") == 1
        assert bodies.used == 0


@contextlib.contextmanager
def raw(client: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.port), timeout=25) as talk:
        yield talk


def everything(talk: socket.socket) -> bytes:
    """Returns what a server sends until it closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := talk.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),  # closed without a word: nothing was asked
        (b"POST /predict HTTP/1.1\r\nHost: localh", b"408"),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc", b"408"),
    ],
)
def test_slow_requests_are_given_up(
    serving: Callable[..., Any], sent: bytes, status: bytes
) -> None:
    with serving(receive_seconds=0.4) as client, raw(client) as talk:
        talk.sendall(sent)
        reply = everything(talk)
        assert reply[9:12] == status
        assert b"within 0 s" in reply or not status


def test_a_slow_head_and_a_slow_body_are_given_up_together(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)
    with serving(receive_seconds=1.0) as client, raw(client) as talk:
        talk.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(0.5)  # half of the time; the body alone would have all of it
        talk.sendall(b"Content-Length: 9\r\n\r\nabc")
        reply = everything(talk)
        assert reply[9:12] == b"408"
        assert b"the request was not received within 1 s" in reply
        assert client.get("/v2/health/live").status == 200


def test_slow_clients_cannot_keep_others_out(
    serving: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving(connections=20) as client, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(raw(client)) for _ in range(60)]
        for number, talk in enumerate(slow):
            with contextlib.suppress(OSError):
                talk.sendall(b"POST /predict HTTP/1.1\r\n" if number % 2 else b"P")
        for number in range(5):
            assert client.post("/predict", image(number)).status == 200
        assert len(client.server._server.server_state.connections) <= 20
        assert sample(client, "resnet_dropped_connections_total") >= 40


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/new\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 40_000, b"431"),
        (b"GET /v2 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.0\r\n\r\n", b"421"),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 2\r\n\r\n", b"400"),
        (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n",
            b"411",
        ),
        (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"411",
        ),
    ],
)
def test_what_is_not_http_is_refused_and_closed(client: Any, sent: bytes, status: bytes) -> None:
    with raw(client) as talk:
        talk.sendall(sent)
        if status == b"421":
            talk.shutdown(socket.SHUT_WR)
        reply = everything(talk)
    assert reply[9:12] == status
    _, _, body = reply.partition(b"\r\n\r\n")
    assert json.loads(body)["error"].endswith(".")


def test_a_refused_body_does_not_end_the_connection(
    client: Any, image: Callable[..., bytes]
) -> None:
    connection = client.connection()
    for content, status in ((b"x" * 300_000, 422), (image(0), 200), (b"", 400), (image(1), 200)):
        connection.request("POST", "/predict", content)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_pipelined_requests_are_answered_in_order(client: Any) -> None:
    request = b"GET /v2/health/%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    with raw(client) as talk:
        talk.sendall(request % (b"live", b"") + request % (b"ready", b"Connection: close\r\n"))
        reply = everything(talk)
    assert reply.index(b'"live"') < reply.index(b'"ready"')
    assert reply.count(b"HTTP/1.1 200") == 2


def test_a_token_protects_all_but_the_health(serving: Callable[..., Any]) -> None:
    with serving(access=Access(token=TOKEN)) as client:
        assert client.get("/v2/health/ready").status == 200
        for path in ("/model", "/metrics", "/v2", "/openapi.json"):
            assert client.get(path).status == 401
            assert client.get(path, Authorization=f"Bearer {TOKEN}").status == 200


def test_pages_that_are_named_may_use_the_server(serving: Callable[..., Any]) -> None:
    page = "https://example.com"
    with serving(access=Access(origins=(page,), token=TOKEN)) as client:
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        reply = client.send("OPTIONS", "/predict", None, asked)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, page)
        reply = client.get("/model", Origin=page, Authorization=f"Bearer {TOKEN}")
        assert reply.headers["access-control-allow-origin"] == page
        assert client.get("/model", Origin="https://evil.example").status == 403


def test_a_reload_loses_no_request_and_a_failed_one_changes_nothing(
    serving: Callable[..., Any],
    linear: Callable[..., Any],
    image: Callable[..., bytes],
    predictor_of: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from resnetkit.errors import WeightsError

    content = image(0)
    with serving(linear(seed=0)) as client:
        statuses: list[int] = []
        digests: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                reply = client.post("/predict", content)
                statuses.append(reply.status)
                digests.append(reply.headers.get("resnet-network", ""))

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(ask)
            time.sleep(0.1)
            client.server._load = lambda: prepare(
                "linear", predictor_of(linear(seed=1)), longest_batch_seconds=9
            )
            assert client.server.reload()
            time.sleep(0.1)

            def corrupt() -> Any:
                raise WeightsError("the model is corrupt.")

            client.server._load = corrupt
            assert not client.server.reload()
            time.sleep(0.1)
            stop.set()
        assert set(statuses) == {200}
        assert digests[0] == f"{0:064x}"
        assert digests[-1] == f"{1:064x}"
        assert sample(client, "resnet_reloads_total", result="failed") == 1
        assert "the old one still answers: the model is corrupt." in caplog.text


def test_requests_in_flight_are_answered_when_the_server_stops(
    serving: Callable[..., Any], linear: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving(linear()) as client, ThreadPoolExecutor(1) as pool:
        client.engine.seconds = 0.3
        pending = pool.submit(client.post, "/predict", image(0))
        while not client.server.service.images:
            time.sleep(0.01)
        client.server.stop()
        assert pending.result().status == 200


class Explainer:
    """Answers at once with an empty map."""

    def explain(self, pixels: np.ndarray, method: str, label: int | None) -> Explained:
        return Explained(0, pixels, np.zeros(pixels.shape[1:], dtype=np.float32))


def test_saliency_maps_say_nothing_about_the_pace_of_the_engine(
    serving_model: Callable[..., Any],
    linear: Callable[..., Any],
    predictor_of: Callable[..., Any],
    image: Callable[..., bytes],
) -> None:
    model = prepare("linear", predictor_of(linear()), longest_batch_seconds=9)
    with serving_model(replace(model, explainer=Explainer(), seconds_per_image=0.5)) as client:
        assert client.post("/saliency", image(0)).json["class"] == "kind 0"
        assert client.post("/saliency", b"bad").status == 422
        assert client.server.service.pace.wait_seconds(1, 1) == 0.5
        assert sample(client, "resnet_batch_images_count") == 0


def test_metrics_count_requests_and_batches(
    serving: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    with serving() as client:
        for number in range(3):
            client.post("/predict", image(number))
        client.post("/predict", b"bad")
        client.get("/" + "x" * 50)
        assert sample(client, "resnet_requests_total", route="predict", status="200") == 3
        assert sample(client, "resnet_requests_total", route="predict", status="422") == 1
        assert sample(client, "resnet_requests_total", route="none", status="404") == 1
        assert sample(client, "resnet_batch_images_sum") == 3
        assert sample(client, "resnet_decode_seconds_count") == 3
        assert sample(client, "resnet_images_in_flight") == 0
        assert sample(client, "resnet_model_info", engine="linear") == 1
