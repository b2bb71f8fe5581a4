"""What is counted and timed, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
READ, UNREADABLE, FAILED = "read", "unreadable", "failed"  # what becomes of pictures
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_PICTURES = (1, 2, 4, 8)


class Metrics:
    """The metrics of one service, apart from those of others in the process.

    Args:
        busy: how many requests are in the service.
    """

    def __init__(self, busy: Callable[[], int]):
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files
        self._requests = Counter(
            "nanodet_requests", "Requests for detections", ["model", "status"], registry=registry
        )
        self._seconds = Histogram(
            "nanodet_request_seconds", "From the first line of a request to its answer", ["model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._pictures = Counter(
            "nanodet_pictures", "Pictures that were answered", ["model", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._batch = Histogram(
            "nanodet_batch_pictures", "Pictures of a call of the detector", ["model"],
            buckets=_PICTURES, registry=registry,
        )  # fmt: skip
        self._detect = Histogram(
            "nanodet_detect_seconds", "Of a call of the detector", ["model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        gauge = Gauge("nanodet_requests_in_progress", "Reading, waiting, computing",
                      registry=registry)  # fmt: skip
        gauge.set_function(busy)

    def answered(self, model: str, status: int, seconds: float) -> None:
        """Count a request for detections; ``model`` is one of the service's, or empty."""
        self._requests.labels(model, str(status)).inc()
        self._seconds.labels(model).observe(seconds)

    def picture(self, model: str, outcome: str) -> None:
        """Count a picture that was read, unreadable, or failed."""
        self._pictures.labels(model, outcome).inc()

    def called(self, model: str, pictures: int, seconds: float) -> None:
        """Count a call of the detector."""
        self._batch.labels(model).observe(pictures)
        self._detect.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All of them, in the format of ``CONTENT_TYPE``."""
        return generate_latest(self._registry)
