"""The OpenAPI description of the routes."""

from typing import Any

from resnetkit.inference.predictor import TOP
from resnetkit.serving.model import ServedModel
from resnetkit.serving.saliency import METHODS

__all__ = ["document"]

JSON = "application/json"
REFUSALS = {
    "400": "The request is not what was expected.",
    "401": "The token is missing or wrong.",
    "403": "The page that sends the request may not use this server.",
    "408": "The request was not received in time.",
    "411": "The body has no length.",
    "413": "The body or the image is too large.",
    "415": "The body is compressed, or not an image alone.",
    "421": "The request is addressed to another host.",
    "422": "The image cannot be decoded.",
    "503": "The server is busy; Retry-After says when to try again.",
}


def document(model: ServedModel, version: str) -> dict[str, Any]:
    """Returns the description, OpenAPI 3.1.

    Args:
        model: that is served, whose names are filled in.
        version: of this package.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "resnetkit",
            "version": version,
            "description": f"Classifies images with {model.predictor.engine.origin}.",
        },
        "paths": {**own_paths(model), **protocol_paths()},
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def own_paths(model: ServedModel) -> dict[str, Any]:
    """Returns the routes of resnetkit."""
    layers = {"type": "string", "enum": list(model.predictor.engine.layers), "default": "pool"}
    label = {"type": "integer", "minimum": 0}
    method = {"type": "string", "enum": list(METHODS), "default": METHODS[0]}
    top = {"type": "integer", "minimum": 1, "default": TOP}
    return {
        "/predict": {
            "post": image_route(
                "The most probable classes of an image, as 'resnet predict --json' prints them.",
                "Predictions",
                {"top": top},
            )
        },
        "/features": {
            "post": image_route("Activations of a layer.", "Features", {"layer": layers})
        },
        "/saliency": {
            "post": image_route(
                "The pixels that a prediction depends on, if torch computes the network.",
                "Saliency",
                {"label": label, "method": method},
            )
        },
        "/model": {"get": plain_route("What is served, and the limits of requests.")},
        "/metrics": {"get": plain_route("Metrics for Prometheus.", "text/plain")},
        "/openapi.json": {"get": plain_route("This description.")},
    }


def protocol_paths() -> dict[str, Any]:
    """Returns the routes of the Open Inference Protocol."""
    health = {"live": "Whether the process runs.", "ready": "Whether requests are accepted."}
    paths: dict[str, Any] = {
        f"/v2/health/{name}": {"get": plain_route(text)} for name, text in health.items()
    }
    paths["/v2"] = {"get": plain_route("Metadata of the server.")}
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        names = [name for name in ("model", "version") if f"{{{name}}}" in path]
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
        paths[path] = {"get": plain_route("Metadata of the model."), "parameters": parameters}
        paths[f"{path}/ready"] = {
            "get": plain_route("Whether the model answers."),
            "parameters": parameters,
        }
        paths[f"{path}/infer"] = {"post": inference_route(), "parameters": parameters}
    return paths


def image_route(summary: str, schema: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Describes a route that takes an image as its body."""
    timeout = {"type": "number", "exclusiveMinimum": 0, "description": "Seconds to wait."}
    return {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "query", "schema": described}
            for name, described in {**parameters, "timeout": timeout}.items()
        ],
        "requestBody": {
            "required": True,
            "description": "The content of an image file.",
            "content": {"image/*": {}, "application/octet-stream": {}},
        },
        "responses": {"200": success(JSON, reference(schema)), **refusals()},
    }


def inference_route() -> dict[str, Any]:
    """Describes the route of inference."""
    return {
        "summary": "Inference; binary data may follow the JSON (binary_tensor_data of Triton).",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": reference("InferenceRequest")},
                "application/octet-stream": {},
            },
        },
        "responses": {"200": success(JSON, reference("InferenceResponse")), **refusals()},
    }


def plain_route(summary: str, kind: str = JSON) -> dict[str, Any]:
    """Describes a route that takes nothing."""
    described = {"type": "object"} if kind == JSON else {"type": "string"}
    return {"summary": summary, "responses": {"200": success(kind, described), **refusals()}}


def success(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Describes a response that is no refusal."""
    return {"description": "Success.", "content": {kind: {"schema": schema}}}


def refusals() -> dict[str, Any]:
    """Describes the refusals."""
    content = {JSON: {"schema": reference("Error")}}
    return {
        status: {"description": description, "content": content}
        for status, description in REFUSALS.items()
    }


def reference(schema: str) -> dict[str, Any]:
    """Refers to a schema."""
    return {"$ref": f"#/components/schemas/{schema}"}


def record(**properties: Any) -> dict[str, Any]:
    """Returns the schema of an object with these fields, all required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a list."""
    return {"type": "array", "items": items}


def schemas() -> dict[str, Any]:
    """Returns the schemas of bodies."""
    text, number, whole = {"type": "string"}, {"type": "number"}, {"type": "integer"}
    tensor = {"name": text, "datatype": text, "shape": list_of(whole)}
    data = {"parameters": {"type": "object"}, "data": {"type": "array"}}
    described = record(**tensor)
    described["properties"] = {**tensor, **data}
    request = record(inputs=list_of(described))
    request["properties"] |= {
        "id": text,
        "parameters": {"type": "object"},
        "outputs": list_of({"type": "object", "properties": {"name": text}, "required": ["name"]}),
    }
    prediction = record(label=whole, probability=number, **{"class": text})
    answer = record(path=text, predictions=list_of(prediction), error={"type": ["string", "null"]})
    return {
        "Error": record(error=text),
        "Predictions": list_of(answer),
        "Features": record(layer=text, features=list_of(number), origin=text, network_sha256=text),
        "Saliency": record(label=whole, method=text, image=text, map=text, **{"class": text}),
        "InferenceRequest": request,
        "InferenceResponse": record(
            model_name=text, model_version=text, outputs=list_of(described)
        ),
    }
