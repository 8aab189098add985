"""A server of a linear engine as a process, for tests of signals: PORT SECONDS.

Its saliency maps take an hour.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import LinearEngine, linear_predictor
from resnetkit.serving.guard import Access
from resnetkit.serving.limits import Limits
from resnetkit.serving.model import ServedModel, prepare
from resnetkit.serving.server import ModelServer, bound_socket, ending_in_time

engines = [LinearEngine(seed=seed) for seed in range(100)]


def load() -> ServedModel:
    engine = engines.pop(0)
    model = prepare("linear", linear_predictor(engine), longest_batch_seconds=9)
    engine.seconds = float(sys.argv[2])
    return replace(model, explainer=Explainer())


class Explainer:
    def explain(self, *arguments: object) -> None:
        print("explaining", flush=True)
        time.sleep(3600)


with ending_in_time(), bound_socket("127.0.0.1", int(sys.argv[1])) as listening:
    server = ModelServer(load, Access(), Limits(receive_seconds=300, drain_seconds=1), "1")
    port = listening.getsockname()[1]
    server.run(listening, started=lambda: print(port, flush=True))
