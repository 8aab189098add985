"""The peers of `serve_load.py`: the same predictor behind FastAPI and behind LitServe.

python benchmarks/serve_peers.py fastapi|litserve MODEL PORT
"""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from resnetkit.inference.predictor import Activations, Predictor, load_predictor

BATCH = 16
BATCH_SECONDS = 0.005  # that LitServe waits for a full batch
TOP = 5


def ranked(predictor: Predictor, probabilities: Any) -> list[dict[str, object]]:
    """Returns the most probable classes."""
    answer = predictor.answer(Activations(None, probabilities), TOP)
    return [
        {"label": guess.label, "class": guess.name, "probability": guess.probability}
        for guess in answer.ranked
    ]


def serve_fastapi(model: Path, port: int) -> None:
    """Serves with FastAPI: each request is answered by a function in its pool of threads."""
    predictor, app = load_predictor(model), FastAPI()

    def answer(content: bytes) -> list[dict[str, object]]:
        pixels = predictor.transform.pixels(content)
        return ranked(predictor, predictor.engine.probabilities(pixels[None])[0])

    @app.post("/predict")
    async def predict(request: Request) -> list[dict[str, object]]:
        return await run_in_threadpool(answer, await request.body())

    uvicorn.run(app, port=port, log_level="warning")


class Api(litserve.LitAPI):
    """Decodes, batches and computes in the worker of LitServe."""

    def setup(self, device: str) -> None:
        self.predictor = load_predictor(Path(sys.argv[2]))

    def decode_request(self, request: dict[str, str]) -> Any:
        return self.predictor.transform.pixels(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.predictor.engine.probabilities(x)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> list[dict[str, object]]:
        return ranked(self.predictor, output)


def serve_litserve(model: Path, port: int) -> None:
    """Serves with LitServe, with batches."""
    api = Api(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=port, generate_client_file=False, num_api_servers=1, log_level="warning")


if __name__ == "__main__":
    serve = {"fastapi": serve_fastapi, "litserve": serve_litserve}[sys.argv[1]]
    serve(Path(sys.argv[2]), int(sys.argv[3]))
