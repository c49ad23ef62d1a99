"""What a server counts, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["CONTENT_TYPE", "FOLDER", "Metrics"]

CONTENT_TYPE: str = CONTENT_TYPE_LATEST
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder that worker processes share their numbers in."""

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters and histograms of one server; with several workers, of all of them.

    Attributes:
        requests: requests by route and status.
        seconds: from the arrival of a request's first bytes to its answer, by route.
        images: predicted images, by model.
        batches: sizes of batches, by model.
        network_seconds: of a batch, by model.
        in_work: images that wait or are computed, by model.
        reloads: attempts to load changed weights, by model and outcome ("loaded", "failed").
        ready: 1 once a model has answered, by model.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        several = {"registry": self._registry}
        self.requests = Counter(
            "pacavit_requests", "Requests by route and status.", ["route", "status"], **several
        )
        self.seconds = Histogram(
            "pacavit_request_seconds",
            "Seconds from the arrival of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            **several,
        )
        self.images = Counter("pacavit_images", "Predicted images.", ["model"], **several)
        self.batches = Histogram(
            "pacavit_batch_images", "Images in a batch.", ["model"], buckets=_SIZES, **several
        )
        self.network_seconds = Histogram(
            "pacavit_batch_seconds",
            "Seconds that the network takes for a batch.",
            ["model"],
            buckets=_SECONDS,
            **several,
        )
        self.in_work = Gauge(
            "pacavit_images_in_work",
            "Images that wait or are computed.",
            ["model"],
            multiprocess_mode="livesum",
            **several,
        )
        self.reloads = Counter(
            "pacavit_reloads",
            "Attempts to load changed weights, by outcome.",
            ["model", "outcome"],
            **several,
        )
        self.ready = Gauge(
            "pacavit_model_ready",
            "1 once the model has answered.",
            ["model"],
            multiprocess_mode="livemin",
            **several,
        )

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        registry = self._registry
        if os.environ.get(FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return bytes(generate_latest(registry))
