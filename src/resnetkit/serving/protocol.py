"""The Open Inference Protocol, version 2, over HTTP: JSON, and binary data after it.

https://github.com/kserve/open-inference-protocol; the binary data are Triton's extension
binary_tensor_data, the classes its extension classification. A model takes one of two inputs:
`image`, BYTES (B), the contents of image files, or `pixels`, UINT8 (B, C, H, W). Its outputs are
`probabilities`, FP64 (B, K), and its layers, FP32 (B, D).
"""

import base64
import binascii
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resnetkit.errors import did_you_mean
from resnetkit.inference.engine import Pixels
from resnetkit.serving.limits import Limits, Refusal
from resnetkit.serving.model import PROBABILITIES, ServedModel
from resnetkit.untrusted import parse_json

__all__ = [
    "EXTENSIONS",
    "InferenceRequest",
    "RequestedOutput",
    "inference_response",
    "model_metadata",
    "parse_inference_request",
]

EXTENSIONS = ("binary_tensor_data", "classification")
IMAGE, PIXELS = "image", "pixels"
LENGTH_BYTES = 4  # before each element of BYTES, little-endian
DATATYPES = {"float64": "FP64", "float32": "FP32"}

Text = Annotated[str, Field(max_length=1000)]
Size = Annotated[int, Field(strict=True, ge=0, le=2**53)]


class Message(BaseModel):
    """A part of a request; what is not known is ignored, as the protocol asks."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class InputParameters(Message):
    """Parameters of an input."""

    binary_data_size: Size | None = None


class Input(Message):
    """An input tensor."""

    name: Text
    datatype: Text
    shape: Annotated[list[Size], Field(max_length=8)]
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(Message):
    """Parameters of a requested output."""

    binary_data: bool | None = None
    classification: Annotated[int, Field(ge=0)] = 0


class Output(Message):
    """A requested output."""

    name: Text
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Message):
    """Parameters of a request."""

    binary_data_output: bool = False
    timeout: Size | None = None


class Body(Message):
    """The JSON of a request."""

    id: Text | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[Input], Field(max_length=16)]
    outputs: Annotated[list[Output], Field(max_length=64)] = []


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a request asks for.

    Attributes:
        name: of the output.
        is_binary: whether it follows the JSON of the response.
        classes: the number of best classes to give instead; 0 for the values.
    """

    name: str
    is_binary: bool
    classes: int


@dataclass(frozen=True, eq=False)
class InferenceRequest:
    """A request for inference.

    Attributes:
        id: repeated in the response; None if there is none.
        images: the contents of image files, or pixels uint8 (B, C, H, W).
        outputs: at least one.
        timeout_seconds: of the request; None if it sets none.
    """

    id: str | None
    images: list[bytes] | Pixels
    outputs: tuple[RequestedOutput, ...]
    timeout_seconds: float | None


def parse_inference_request(
    content: bytes, json_length: int | None, model: ServedModel, limits: Limits
) -> InferenceRequest:
    """Parses the body of a request.

    Args:
        content: of the body.
        json_length: of the JSON that it begins with; None when it is only JSON.
        model: that is asked.
        limits: of the server.

    Raises:
        Refusal: when it is not what the protocol and the model expect.
    """
    length = len(content) if json_length is None else json_length
    if not 0 < length <= len(content):
        raise Refusal(
            400,
            f"Inference-Header-Content-Length is {length:,}, but the body has {len(content):,}"
            " bytes.",
        )
    if length > limits.json_bytes:
        raise Refusal(
            413,
            f"the JSON has {length:,} bytes, more than the limit of {limits.json_bytes:,}: send"
            " tensors as binary data.",
        )
    body = parsed_body(content[:length])
    images = images_of(body.inputs, content[length:], model, limits)
    timeout = body.parameters.timeout
    return InferenceRequest(
        body.id,
        images,
        requested_outputs(body, model),
        None if timeout is None else timeout / 1e6,
    )


def parsed_body(content: bytes) -> Body:
    """Returns the JSON of a request, checked.

    Raises:
        Refusal: when it is not JSON, or not that of a request.
    """
    try:
        return Body.model_validate(parse_json(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Refusal(400, f"{where}: {first['msg'].lower()}.") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}.") from None


def requested_outputs(body: Body, model: ServedModel) -> tuple[RequestedOutput, ...]:
    """Returns the outputs that a request asks for; by default the first one of the model.

    Raises:
        Refusal: for an output that the model does not have.
    """
    default = body.parameters.binary_data_output
    if not body.outputs:
        return (RequestedOutput(next(iter(model.computations)), default, 0),)
    outputs = []
    for output in body.outputs:
        check_output(output.name, model)
        chosen = output.parameters.binary_data
        is_binary = default if chosen is None else chosen
        outputs.append(RequestedOutput(output.name, is_binary, output.parameters.classification))
    if len({output.name for output in outputs}) < len(outputs):
        raise Refusal(400, "an output is requested twice: request each once.")
    return tuple(outputs)


def check_output(name: str, model: ServedModel) -> None:
    """Raises Refusal for an output that a model does not have."""
    if name not in model.computations:
        names = ", ".join(model.computations)
        raise Refusal(
            400,
            f"unknown output '{name}': expected one of {names}."
            + did_you_mean(name, model.computations),
        )


def images_of(
    inputs: Sequence[Input], binary: bytes, model: ServedModel, limits: Limits
) -> list[bytes] | Pixels:
    """Returns the images of a request.

    Raises:
        Refusal: when there is not exactly one input, or it does not fit the model.
    """
    if len(inputs) != 1:
        raise Refusal(
            400,
            f"the request has {len(inputs)} inputs: expected one, 'image' with the contents of"
            " image files or 'pixels' with a tensor.",
        )
    tensor = inputs[0]
    raw = binary_data(tensor, binary)
    if not tensor.shape or not 1 <= tensor.shape[0] <= limits.images:
        raise Refusal(
            400,
            f"input '{tensor.name}' has the shape {tensor.shape}: expected from 1 to"
            f" {limits.images} images.",
        )
    if tensor.name == IMAGE:
        return image_contents(tensor, raw)
    if tensor.name == PIXELS:
        return pixel_values(tensor, raw, model)
    raise Refusal(400, f"unknown input '{tensor.name}': expected 'image' or 'pixels'.")


def binary_data(tensor: Input, binary: bytes) -> bytes | None:
    """Returns the binary data of an input, or None when its data are in the JSON.

    Raises:
        Refusal: when it has both, neither, or binary data of another size.
    """
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise Refusal(
            400, f"input '{tensor.name}': expected either data or the parameter binary_data_size."
        )
    if len(binary) != (size or 0):
        raise Refusal(
            400,
            f"input '{tensor.name}': {len(binary):,} bytes follow the JSON, and binary_data_size"
            f" is {size or 0:,}.",
        )
    return None if size is None else binary


def image_contents(tensor: Input, raw: bytes | None) -> list[bytes]:
    """Returns the elements of the input `image`.

    Raises:
        Refusal: when it is not BYTES (B), or its JSON is not base64.
    """
    if tensor.datatype != "BYTES" or len(tensor.shape) > 2 or tensor.shape[1:] not in ([], [1]):
        raise Refusal(
            400,
            f"input 'image' is {tensor.datatype} {tensor.shape}: expected BYTES [B], the contents"
            " of B image files.",
        )
    if raw is not None:
        return elements(raw, tensor.shape)
    data = tensor.data or []
    if len(data) != tensor.shape[0]:
        raise Refusal(400, f"input 'image' has {len(data)} elements, but the shape {tensor.shape}.")
    return [from_base64(item) for item in data]


def elements(raw: bytes, shape: Sequence[int]) -> list[bytes]:
    """Splits binary data of BYTES, where its length precedes each element.

    Raises:
        Refusal: when a length does not fit, or the number of elements.
    """
    contents: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(contents) == shape[0]:
            raise Refusal(400, f"input 'image' has more elements than its shape {shape}.")
        length = int.from_bytes(raw[start : start + LENGTH_BYTES], "little")
        start += LENGTH_BYTES + length
        if start > len(raw):
            raise Refusal(
                400,
                "input 'image': the length before an element exceeds the data that follow.",
            )
        contents.append(raw[start - length : start])
    if len(contents) < shape[0]:
        raise Refusal(400, f"input 'image' has {len(contents)} elements, but the shape {shape}.")
    return contents


def from_base64(item: object) -> bytes:
    """Decodes an element of BYTES in JSON.

    Raises:
        Refusal: when it is not base64.
    """
    try:
        if isinstance(item, str):
            return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Refusal(
        400,
        "input 'image': expected each element in base64, or binary data.",
    )


def pixel_values(tensor: Input, raw: bytes | None, model: ServedModel) -> Pixels:
    """Returns the input `pixels`, uint8 (B, C, H, W).

    Raises:
        Refusal: when it does not have the type, shape or values that the model takes.
    """
    shape = (tensor.shape[0], *model.size)
    if tensor.datatype != "UINT8" or tensor.shape != list(shape):
        raise Refusal(
            400,
            f"input 'pixels' is {tensor.datatype} {tensor.shape}: expected UINT8"
            f" {['B', *model.size]}.".replace("'B'", "B"),
        )
    values = np.frombuffer(raw, dtype=np.uint8) if raw is not None else uint8_values(tensor.data)
    if values.size != np.prod(shape):
        raise Refusal(
            400,
            f"input 'pixels' has {values.size:,} values, but the shape {tensor.shape}.",
        )
    return values.reshape(shape)


def uint8_values(data: list[Any] | None) -> Pixels:
    """Returns numbers of JSON, flat or nested, as uint8.

    Raises:
        Refusal: when they are not whole numbers from 0 to 255.
    """
    values = data or []
    while values and all(isinstance(item, list) for item in values):
        values = list(chain.from_iterable(values))
    try:
        return np.frombuffer(bytes(values), dtype=np.uint8)
    except (TypeError, ValueError):
        raise Refusal(400, "input 'pixels': expected whole numbers from 0 to 255.") from None


def inference_response(
    request: InferenceRequest, model: ServedModel, rows: Sequence[Sequence[npt.NDArray[Any]]]
) -> tuple[bytes, int | None]:
    """Returns the body of a response, and the length of its JSON if binary data follow it.

    Args:
        request: that is answered.
        model: that was asked.
        rows: for each image, a row for each requested output.
    """
    outputs, binary = [], []
    for number, output in enumerate(request.outputs):
        values = np.stack([image[number] for image in rows])
        described, raw = encoded_output(output, values, model)
        outputs.append(described)
        binary.append(raw)
    identity = {} if request.id is None else {"id": request.id}
    answer = {"model_name": model.name, "model_version": "1", **identity, "outputs": outputs}
    text = json.dumps(answer, allow_nan=False).encode()
    blob = b"".join(binary)
    return text + blob, len(text) if any(output.is_binary for output in request.outputs) else None


def encoded_output(
    output: RequestedOutput, values: npt.NDArray[Any], model: ServedModel
) -> tuple[dict[str, Any], bytes]:
    """Returns the description of an output, with its data unless they are binary, and those."""
    facts: dict[str, Any] = {"name": output.name}
    if output.classes:
        texts = [best_classes(row, output.classes, model) for row in values]
        facts |= {"datatype": "BYTES", "shape": [len(texts), len(texts[0])]}
        flat = [text for row in texts for text in row]
        raw = b"".join(struct.pack("<I", len(item)) + item for item in map(str.encode, flat))
        data: list[Any] = flat
    else:
        facts |= {"datatype": DATATYPES[values.dtype.name], "shape": list(values.shape)}
        data = [] if output.is_binary else values.reshape(-1).tolist()
        raw = values.tobytes() if output.is_binary else b""
    if output.is_binary:
        return {**facts, "parameters": {"binary_data_size": len(raw)}}, raw
    return {**facts, "data": data}, b""


def best_classes(row: npt.NDArray[Any], count: int, model: ServedModel) -> list[str]:
    """Returns value:index:name of the largest values, in descending order."""
    labels = np.argsort(-row, kind="stable")[:count].tolist()
    names = model.predictor.class_names
    is_class = len(names) == len(row)
    return [
        f"{row[label]:.6f}:{label}" + (f":{names[label]}" if is_class else "") for label in labels
    ]


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Returns the metadata of a model."""
    return {
        "name": model.name,
        "versions": ["1"],
        "platform": f"resnetkit_{model.predictor.engine.name}",
        "inputs": [
            {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, *model.size]},
        ],
        "outputs": [
            {
                "name": output,
                "datatype": "FP64" if output == PROBABILITIES else "FP32",
                "shape": [-1, width],
            }
            for output, width in model.widths.items()
        ],
    }
