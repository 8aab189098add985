"""The routes of the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnetkit.errors import did_you_mean, headless
from resnetkit.inference.predictor import TOP, Activations
from resnetkit.serving.batcher import Computed
from resnetkit.serving.guard import Access, Guard
from resnetkit.serving.limits import Refusal
from resnetkit.serving.metrics import CONTENT_TYPE
from resnetkit.serving.model import PROBABILITIES, ServedModel
from resnetkit.serving.openapi import document
from resnetkit.serving.page.render import PageFacts
from resnetkit.serving.page.routes import page_routes
from resnetkit.serving.protocol import (
    EXTENSIONS,
    InferenceRequest,
    inference_response,
    model_metadata,
    parse_inference_request,
)
from resnetkit.serving.recorder import Recorder
from resnetkit.serving.requests import (
    check_raw,
    deadline_of,
    query,
    received,
    unless_disconnected,
    whole,
)
from resnetkit.serving.responses import EXCEPTION_HANDLERS, json_response
from resnetkit.serving.saliency import METHODS, data_url
from resnetkit.serving.service import Service

__all__ = ["build_app"]

JSON_LENGTH = "Inference-Header-Content-Length"
LONG_TEXT = 2**14  # bytes or numbers; a thread of its own reads and writes more
VERSION = "1"  # of the model, in addresses


class Endpoints:
    """Answers requests.

    Args:
        service: computes images.
        version: of this package.
    """

    def __init__(self, service: Service, version: str) -> None:
        self.service = service
        self.version = version
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="json")

    def close(self) -> None:
        """Stops the thread that reads and writes long texts."""
        self._texts.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> list[Route]:
        """Returns the routes."""
        model, version = "/v2/models/{model}", "/versions/{version}"
        return [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/features", self.features, methods=["POST"]),
            Route("/saliency", self.saliency, methods=["POST"]),
            Route("/model", self.model, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/v2", self.server_metadata, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            Route(model, self.metadata, methods=["GET"]),
            Route(model + version, self.metadata, methods=["GET"]),
            Route(model + "/ready", self.model_ready, methods=["GET"]),
            Route(model + version + "/ready", self.model_ready, methods=["GET"]),
            Route(model + "/infer", self.infer, methods=["POST"]),
            Route(model + version + "/infer", self.infer, methods=["POST"]),
        ]

    async def predict(self, request: Request) -> Response:
        """Returns the JSON of 'resnet predict --json' for the image in the body."""
        values = query(request, ("top", "timeout"))
        top = whole(values, "top", TOP, least=1)
        model = self.service.model
        if PROBABILITIES not in model.computations:
            raise headless(model.predictor.engine.origin)
        computed = await self.one_image(request, model, PROBABILITIES, values.get("timeout"))
        answer = model.predictor.answer(Activations(None, computed.values), top)
        predictions = [
            {"label": guess.label, "class": guess.name, "probability": guess.probability}
            for guess in answer.ranked
        ]
        record = {"path": "-", "predictions": predictions, "error": None}
        return json_response([record], headers=facts(model, computed))

    async def features(self, request: Request) -> Response:
        """Returns the activations of a layer for the image in the body."""
        values = query(request, ("layer", "timeout"))
        model, layer = self.service.model, values.get("layer", "pool")
        layers = model.predictor.engine.layers
        if layer not in layers:
            raise Refusal(
                400,
                f"unknown layer '{layer[:100]}': expected one of {', '.join(layers)}."
                + did_you_mean(layer[:100], layers),
            )
        computed = await self.one_image(request, model, layer, values.get("timeout"))
        answer = {
            "layer": layer,
            "features": computed.values.tolist(),
            "origin": model.predictor.engine.origin,
            "network_sha256": model.predictor.engine.network_sha256,
        }
        return json_response(answer, headers=facts(model, computed))

    async def one_image(
        self, request: Request, model: ServedModel, output: str, timeout: str | None
    ) -> Computed:
        """Returns an output for the image in the body of a request."""
        service = self.service
        check_raw(request)
        service.check_wait(1, deadline_of(service, timeout))
        async with received(request, service) as content:
            deadline = deadline_of(service, timeout)
            with service.admitted(1, deadline):
                work = service.image_computed(model, content, output, deadline)
                return await unless_disconnected(request, service, work, deadline)

    async def saliency(self, request: Request) -> Response:
        """Returns a saliency map for the image in the body."""
        values = query(request, ("label", "method", "timeout"))
        service, model = self.service, self.service.model
        predictor = model.predictor
        if model.explainer is None:
            raise Refusal(
                404,
                "saliency maps need a network that torch computes, and captum: serve a run folder,"
                " and pip install 'resnetkit[explain]'.",
            )
        method = values.get("method", METHODS[0])
        if method not in METHODS:
            raise Refusal(400, f"method={method[:100]}: expected {' or '.join(METHODS)}.")
        label = whole(values, "label", 0, least=0) if "label" in values else None
        if label is not None and label >= model.widths[PROBABILITIES]:
            raise Refusal(400, f"label={label}: expected less than {model.widths[PROBABILITIES]}.")
        check_raw(request)
        service.check_wait(1, deadline_of(service, values.get("timeout")))
        async with received(request, service) as content:
            deadline = deadline_of(service, values.get("timeout"))
            with service.admitted(1, deadline):
                work = service.explained(model, content, method, label, deadline)
                explained = await unless_disconnected(request, service, work, deadline)
        answer = {
            "label": explained.label,
            "class": predictor.class_name(explained.label),
            "method": method,
            "image": data_url(explained.pixels),
            "map": data_url((explained.values * 255).round().astype("uint8")),
        }
        return json_response(answer)

    async def model(self, request: Request) -> Response:
        """Returns what is served, and the limits of requests."""
        model, limits = self.service.model, self.service.limits
        engine = model.predictor.engine
        channels, height, width = model.size
        return json_response(
            {
                "name": model.name,
                "origin": engine.origin,
                "engine": engine.name,
                "precision": engine.precision,
                "network_sha256": engine.network_sha256,
                "channels": channels,
                "height": height,
                "width": width,
                "classes": model.widths.get(PROBABILITIES, 0),
                "layers": list(engine.layers),
                "saliency": model.explainer is not None,
                "best_batch": model.best_batch,
                "limits": {"body_bytes": limits.body_bytes, "pixels": limits.pixels},
                "version": self.version,
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Returns the metrics."""
        return Response(self.service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        """Returns the description of the routes."""
        return json_response(document(self.service.model, self.version))

    async def server_metadata(self, request: Request) -> Response:
        """Returns the metadata of the server."""
        return json_response(
            {"name": "resnetkit", "version": self.version, "extensions": list(EXTENSIONS)}
        )

    async def live(self, request: Request) -> Response:
        """Answers while the process runs."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """Answers 200 while requests are accepted."""
        is_ready = self.service.is_ready
        return json_response({"ready": is_ready}, status=200 if is_ready else 503)

    async def metadata(self, request: Request) -> Response:
        """Returns the metadata of a model."""
        return json_response(model_metadata(self.named_model(request)))

    async def model_ready(self, request: Request) -> Response:
        """Answers 200 while a model answers."""
        model = self.named_model(request)
        is_ready = self.service.is_ready
        answer = {"name": model.name, "ready": is_ready}
        return json_response(answer, status=200 if is_ready else 503)

    def named_model(self, request: Request) -> ServedModel:
        """Returns the model that an address names.

        Raises:
            Refusal: when it is another one.
        """
        model, name = self.service.model, request.path_params["model"]
        version = request.path_params.get("version", VERSION)
        if name != model.name or version != VERSION:
            raise Refusal(
                404,
                f"there is no model '{name[:100]}' of version '{version[:100]}': this server has"
                f" '{model.name}' of version '{VERSION}'.",
            )
        return model

    async def infer(self, request: Request) -> Response:
        """Answers a request of the Open Inference Protocol."""
        model, service = self.named_model(request), self.service
        length = (
            whole(request.headers, JSON_LENGTH, 0, least=1)
            if JSON_LENGTH in request.headers
            else None
        )
        service.check_wait(1, deadline_of(service))
        async with received(request, service) as content:
            deadline = deadline_of(service)
            parsing = self.in_thread(
                len(content), parse_inference_request, content, length, model, service.limits
            )
            parsed = await unless_disconnected(request, service, parsing, deadline)
            if parsed.timeout_seconds:  # 0 sets none, as in Triton
                deadline = min(deadline, deadline_of(service, parsed.timeout_seconds))
            with service.admitted(len(parsed.images), deadline, len(parsed.outputs)):
                work = self.inferred(parsed, model, deadline)
                rows = await unless_disconnected(request, service, work, deadline)
            values = [[computed.values for computed in row] for row in rows]
            numbers = sum(len(row) for image in values for row in image)
            writing = self.in_thread(numbers, inference_response, parsed, model, values)
            body, json_length = await unless_disconnected(request, service, writing, deadline)
        headers = facts(model, rows[0][0])
        if json_length is None:
            return Response(body, headers=headers, media_type="application/json")
        headers[JSON_LENGTH] = str(json_length)
        return Response(body, headers=headers, media_type="application/octet-stream")

    async def inferred(
        self, parsed: InferenceRequest, model: ServedModel, deadline: float
    ) -> list[list[Computed]]:
        """Computes the images of a request: for each, a row for each output."""
        outputs = [output.name for output in parsed.outputs]
        if isinstance(parsed.images, list):
            return await self.service.images_computed(model, parsed.images, outputs, deadline)
        return await self.service.pixels_computed(model, parsed.images, outputs, deadline)

    async def in_thread(self, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function here, or in a thread if it would make others wait."""
        if size <= LONG_TEXT:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._texts, function, *arguments)


def page_facts(service: Service, access: Access) -> PageFacts:
    """Returns what the page tells about the server."""
    model, engine = service.model, service.model.predictor.engine
    return PageFacts(
        model=model.name,
        engine=engine.name,
        precision=engine.precision,
        classes=model.widths.get(PROBABILITIES, 0),
        image_size=model.size[1:],
        sha256=engine.network_sha256,
        saliency=METHODS if model.explainer is not None else (),
        needs_token=access.token is not None,
        body_bytes=service.limits.body_bytes,
    )


def facts(model: ServedModel, computed: Computed) -> dict[str, str]:
    """Returns headers that say which network answered, and how long each stage took."""
    stages = {
        "decode": computed.decode_seconds,
        "wait": computed.wait_seconds,
        "network": computed.compute_seconds,
    }
    timing = ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in stages.items())
    return {
        "Server-Timing": timing,
        "Resnet-Network": model.predictor.engine.network_sha256,
        "Resnet-Batch": str(computed.batch_size),
    }


def build_app(service: Service, access: Access, version: str) -> Starlette:
    """Returns the application.

    Args:
        service: computes images.
        access: who may use it.
        version: of this package.
    """
    endpoints = Endpoints(service, version)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            endpoints.close()

    cors = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", JSON_LENGTH],
            expose_headers=["Server-Timing", "Retry-After", JSON_LENGTH],
        )
    ]
    return Starlette(
        routes=[*endpoints.routes(), *page_routes(lambda: page_facts(service, access))],
        lifespan=lifespan,
        middleware=[
            Middleware(Recorder, metrics=service.metrics),
            *(cors if access.origins else ()),
            Middleware(Guard, access=access, limits=service.limits),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
