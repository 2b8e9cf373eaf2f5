"""What a server tells Prometheus: requests by code, refusals, batches by point and size, and where the time went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from vitrail.serve.speeds import Seen
from vitrail.serve.waiting import Answered

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "vitrail_requests", "Requests, by path and status code", ["path", "code"], registry=registry
        )
        self._images = Counter(
            "vitrail_images", "Images answered, by operating point", ["point"], registry=registry
        )
        self._refused = Counter(
            "vitrail_refused_images", "Images refused, by reason", ["reason"], registry=registry
        )
        self._late = Counter("vitrail_late_images", "Images answered after their deadline", registry=registry)
        self._sizes = Histogram("vitrail_batch_images", "Images of a batch", registry=registry, buckets=SIZES)
        self._times = Histogram(
            "vitrail_seconds",
            "Seconds of an image in the queue, of its batch in decoding and in the network, and of requests in all",
            ["part"],
            registry=registry,
            buckets=SECONDS,
        )

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Add a number that is read whenever the metrics are."""
        Gauge(name, words, registry=self.registry).set_function(value)

    def request(self, path: str, code: int, seconds: float) -> None:
        """Note a request that was answered."""
        self._requests.labels(path, str(code)).inc()
        if path == "/predict":
            self._times.labels("request").observe(seconds)

    def computed(self, batch: Seen, answered: Sequence[Answered]) -> None:
        """Note a batch."""
        self._images.labels(batch.point).inc(len(answered))
        self._sizes.observe(len(answered))
        self._times.labels("decode").observe(batch.decode)
        self._times.labels("network").observe(batch.network)
        for one in answered:
            self._times.labels("queue").observe(one.queue)

    def refused(self, why: str, images: int) -> None:
        """Note images that were refused."""
        self._refused.labels(why).inc(images)

    def late(self, images: int) -> None:
        """Note images that were answered too late."""
        self._late.inc(images)

    def text(self) -> bytes:
        """Return the metrics in the format of Prometheus."""
        return generate_latest(self.registry)
