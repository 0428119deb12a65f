"""The metrics of one application, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_SECONDS = (0.001, 0.0025, *_SECONDS)
_BATCH_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_SCORES = (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """Every series the service exports."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("nrp_requests_total", "Requests answered.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "nrp_request_seconds", "From the first byte to the last.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "nrp_stage_seconds", "Time of one request in a stage.", ["stage"], buckets=_STAGE_SECONDS, registry=registry
        )
        self.batch_images = Histogram(
            "nrp_batch_images", "Images run together.", buckets=_BATCH_IMAGES, registry=registry
        )
        self.rejected = Counter(
            "nrp_rejected_total", "Requests turned away for want of room or time.", ["reason"], registry=registry
        )
        self.image_errors = Counter(
            "nrp_image_errors_total", "Images that could not be answered, by problem type.", ["type"], registry=registry
        )
        self.suspicion = Histogram(
            "nrp_suspicion",
            "Calibrated: -log10 of clean images' tail shares, summed; else the RMS change in levels of 255.",
            ["calibrated"],
            buckets=_SCORES,
            registry=registry,
        )
        self.suspicious = Counter(
            "nrp_suspicious_total",
            "Images at or above their threshold, the operator's or the card's.",
            registry=registry,
        )
        self._model_info = Gauge(
            "nrp_model_info", "A model in service; always 1.", ["name", "sha256"], registry=registry
        )
        self._queue_depth = Gauge("nrp_queue_depth", "Images waiting for the device.", registry=registry)
        self._pixels = Gauge("nrp_pixels_in_flight", "Decoded pixels admitted and not yet answered.", registry=registry)
        self._memory = Gauge("nrp_device_memory_bytes", "Allocated on the accelerator; 0 on a CPU.", registry=registry)
        ProcessCollector(registry=registry)

    def watch(
        self, *, queue_depth: Callable[[], float], pixels: Callable[[], float], memory: Callable[[], float]
    ) -> None:
        """Read these figures whenever the metrics are asked for."""
        self._queue_depth.set_function(queue_depth)
        self._pixels.set_function(pixels)
        self._memory.set_function(memory)

    def model(self, name: str, sha256: str) -> None:
        """Name a model that is in service."""
        self._model_info.labels(name, sha256).set(1)

    def no_model(self, name: str, sha256: str) -> None:
        """Take back ``model``: it is in service no more."""
        self._model_info.remove(name, sha256)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
