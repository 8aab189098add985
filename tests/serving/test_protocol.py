"""The Open Inference Protocol, compared with what tritonclient writes and reads."""

import base64
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from resnetkit.inference.predictor import Predictor
from resnetkit.serving.limits import Limits, Refusal
from resnetkit.serving.model import ServedModel, prepare
from resnetkit.serving.protocol import inference_response, parse_inference_request

LIMITS = Limits(images=4, json_bytes=20_000)
SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def model() -> ServedModel:
    from resnetkit.inference.transform import EvalTransform

    return prepare(
        "linear", Predictor(Small(), EvalTransform(3, (16, 16), 1.0)), longest_batch_seconds=1
    )


class Small:
    name, precision, origin, layers = "small", "float32", "a small network", ("pool", "fc")
    network_sha256 = "0" * 64

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), 4), 0.25)

    def features(self, pixels: np.ndarray, layer: str) -> np.ndarray:
        return pixels.reshape(len(pixels), -1)[:, :5].astype(np.float32)


def written(inputs: list[InferInput], outputs: list[InferRequestedOutput] | None) -> Any:
    body, length = InferenceServerClient.generate_request_body(inputs, outputs, request_id="7")
    return body, length


def test_tensors_and_images_of_tritonclient_are_read(model: ServedModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    tensor = InferInput("pixels", list(pixels.shape), "UINT8")
    contents = [b"first image", b"", b"\x00\xff" * 50]
    images = InferInput("image", [3], "BYTES")
    images.set_data_from_numpy(np.array(contents, dtype=object))
    outputs = [InferRequestedOutput("pool"), InferRequestedOutput("probabilities", False, 2)]
    for is_binary in (True, False):
        tensor.set_data_from_numpy(pixels, binary_data=is_binary)
        request = parse_inference_request(*written([tensor], outputs), model, LIMITS)
        assert isinstance(request.images, np.ndarray)
        np.testing.assert_array_equal(request.images, pixels)
        assert (request.id, [output.name for output in request.outputs]) == (
            "7",
            ["pool", "probabilities"],
        )
        assert [(output.is_binary, output.classes) for output in request.outputs] == [
            (True, 0),
            (False, 2),
        ]
    request = parse_inference_request(*written([images], None), model, LIMITS)
    assert request.images == contents
    assert [(output.name, output.is_binary) for output in request.outputs] == [
        ("probabilities", True)
    ]


@pytest.mark.parametrize("is_binary", [True, False])
def test_tritonclient_reads_the_response(model: ServedModel, is_binary: bool) -> None:
    pixels = np.zeros((2, *SHAPE), dtype=np.uint8)
    tensor = InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    outputs = [
        InferRequestedOutput("pool", binary_data=is_binary),
        InferRequestedOutput("probabilities", binary_data=is_binary),
        InferRequestedOutput("fc", binary_data=is_binary, class_count=2),
    ]
    request = parse_inference_request(*written([tensor], outputs), model, LIMITS)
    rows = [
        [np.arange(5, dtype=np.float32) + row, np.array([0.1, 0.9]), np.array([3.0, 1.0, 2.0])]
        for row in range(2)
    ]
    body, length = inference_response(request, model, rows)
    result = InferenceServerClient.parse_response_body(body, header_length=length)
    np.testing.assert_array_equal(result.as_numpy("pool"), [row[0] for row in rows])
    np.testing.assert_array_equal(result.as_numpy("probabilities"), [[0.1, 0.9]] * 2)
    expected = [b"3.000000:0", b"2.000000:2"]
    decoded = result.as_numpy("fc")
    assert [
        [item if isinstance(item, bytes) else item.encode() for item in row] for row in decoded
    ] == [
        expected,
        expected,
    ]
    assert result.get_response()["id"] == "7"


def request_json(**changes: Any) -> dict[str, Any]:
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}
    return {"inputs": [{**image, **changes}]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body has 0 bytes"),
        (b"{", "the body is not JSON"),
        (b"[]", "the body: "),
        (b'{"inputs": 1}', "inputs: "),
        (b'{"inputs": [], "inputs": []}', "occurs twice"),
        (b"[" * 5000, "levels deep"),
        (b'{"inputs": []}', "the request has 0 inputs"),
        (b'{"id": "' + b"x" * 30_000 + b'"}', "the JSON has 30,010 bytes"),
        (request_json(name="photo"), "unknown input 'photo'"),
        (request_json(shape=[0]), "expected from 1 to 4 images"),
        (request_json(shape=[5]), "expected from 1 to 4 images"),
        (request_json(shape=[]), "expected from 1 to 4 images"),
        (request_json(shape=[-1]), "greater than or equal to 0"),
        (request_json(shape=[True]), "valid integer"),
        (request_json(shape=[1] * 9), "at most 8"),
        (request_json(shape=[2]), "has 1 elements"),
        (request_json(datatype="UINT8"), "expected BYTES"),
        (request_json(data=["no base64!"]), "expected each element in base64"),
        (request_json(data=[7]), "expected each element in base64"),
        (request_json(data=None), "expected either data or the parameter"),
        (request_json(parameters={"binary_data_size": 3}), "expected either data or"),
        (request_json(data=None, parameters={"binary_data_size": 3}), "0 bytes follow the JSON"),
        (request_json(name="pixels", datatype="UINT8"), "expected UINT8 [B, 3, 16, 16]"),
        (
            request_json(name="pixels", datatype="UINT8", shape=[1, *SHAPE], data=[1, 2]),
            "has 2 values",
        ),
        (
            request_json(name="pixels", datatype="UINT8", shape=[1, *SHAPE], data=[256] * 768),
            "whole numbers from 0 to 255",
        ),
        (
            request_json(
                name="pixels", datatype="UINT8", shape=[1, *SHAPE], data=["a", "b" * 9000]
            ),
            "whole numbers from 0 to 255",
        ),
        (
            request_json(name="pixels", datatype="UINT8", shape=[1, *SHAPE], data=[[1.5]] * 768),
            "whole numbers from 0 to 255",
        ),
        ({**request_json(), "outputs": [{"name": "pol"}]}, "Did you mean 'pool'?"),
        ({**request_json(), "outputs": [{"name": "pool"}] * 2}, "is requested twice"),
        ({**request_json(), "parameters": {"timeout": -1}}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_fit_is_explained(
    model: ServedModel, body: bytes | dict[str, Any], message: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refusal) as refusal:
        parse_inference_request(content, None, model, LIMITS)
    assert message in refusal.value.message
    assert refusal.value.status in (400, 413)
    assert len(refusal.value.message) < 1000


@pytest.mark.parametrize("length", [0, 10_000, 5])
def test_a_wrong_length_of_the_json_is_refused(model: ServedModel, length: int) -> None:
    with pytest.raises(Refusal):
        parse_inference_request(json.dumps(request_json()).encode(), length, model, LIMITS)


def test_lengths_before_elements_must_fit(model: ServedModel) -> None:
    for raw in (b"\x05\x00\x00\x00hell", b"\xff\xff\xff\xff", b"\x01"):
        changes = {"data": None, "parameters": {"binary_data_size": len(raw)}}
        text = json.dumps(request_json(**changes)).encode()
        with pytest.raises(Refusal, match="exceeds the data"):
            parse_inference_request(text + raw, len(text), model, LIMITS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (bytes(4_000_000), "has more elements than its shape [1]"),
        (b"", "has 0 elements, but the shape [1]"),
    ],
)
def test_elements_are_counted_while_they_are_read(
    model: ServedModel, raw: bytes, message: str
) -> None:
    changes = {"data": None, "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps(request_json(**changes)).encode()
    with pytest.raises(Refusal) as refusal:
        parse_inference_request(text + raw, len(text), model, LIMITS)
    assert message in refusal.value.message


def test_elements_in_json_are_counted_before_they_are_decoded(model: ServedModel) -> None:
    text = json.dumps(request_json(data=["no base64!"] * 100)).encode()
    with pytest.raises(Refusal, match="has 100 elements"):
        parse_inference_request(text, None, model, LIMITS)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_requests_are_refused_or_read(model_once: ServedModel, data: st.DataObject) -> None:
    text = json.dumps(
        {
            "id": "a",
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": 7},
                }
            ],
            "outputs": [{"name": "pool", "parameters": {"classification": 2}}],
        }
    ).encode()
    content = bytearray(text + b"\x03\x00\x00\x00abc")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.sampled_from([len(text), None, len(text) - 1, len(content)]))
    with suppress(Refusal):  # any other error fails
        parse_inference_request(bytes(content), length, model_once, LIMITS)


@pytest.fixture(scope="session")
def model_once() -> ServedModel:
    from resnetkit.inference.transform import EvalTransform

    return prepare(
        "linear", Predictor(Small(), EvalTransform(3, (16, 16), 1.0)), longest_batch_seconds=1
    )


def test_images_in_base64_are_decoded(model: ServedModel) -> None:
    text = json.dumps(request_json(data=[base64.b64encode(b"\x00\xffhi").decode()])).encode()
    assert parse_inference_request(text, None, model, LIMITS).images == [b"\x00\xffhi"]
