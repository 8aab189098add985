"""What a server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from resnetkit.serving.model import ServedModel

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "resnet_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "resnet_request_seconds",
            "Seconds from the head of a request to its response.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "resnet_decode_seconds",
            "Seconds to decode and resize an image.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "resnet_batch_seconds",
            "Seconds to compute a batch.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_images = Histogram(
            "resnet_batch_images", "Images of a batch.", buckets=BATCHES, registry=registry
        )
        self.refused = Counter(
            "resnet_refused",
            "Requests refused because the server was busy, by reason.",
            ("reason",),
            registry=registry,
        )
        self.abandoned = Counter(
            "resnet_abandoned", "Requests whose client left before the answer.", registry=registry
        )
        self.dropped_connections = Counter(
            "resnet_dropped_connections",
            "Connections closed because they were too slow or too many.",
            registry=registry,
        )
        self.reloads = Counter(
            "resnet_reloads", "Reloads of the model, by result.", ("result",), registry=registry
        )
        self.images = Gauge(
            "resnet_images_in_flight", "Images admitted and not answered.", registry=registry
        )
        self.model = Info("resnet_model", "The model that answers.", registry=registry)

    def watch(self, images: Callable[[], float]) -> None:
        """Sets the function that returns the number of images in flight."""
        self.images.set_function(images)

    def describe(self, model: ServedModel) -> None:
        """Publishes which model answers."""
        engine = model.predictor.engine
        self.model.info(
            {
                "name": model.name,
                "engine": engine.name,
                "precision": engine.precision,
                "network_sha256": engine.network_sha256,
                "best_batch": str(model.best_batch),
            }
        )

    def text(self) -> bytes:
        """Returns all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
