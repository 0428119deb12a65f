"""The metrics of remote models."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RemoteMetrics:
    """What is counted of the attempts to ask remote models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "nrp_remote_requests_total",
            "Attempts to ask a remote model, by how they ended; breaker_open ones were not made.",
            ["model", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "nrp_remote_seconds", "From an attempt's first byte to its last.", ["model"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._breaker = Gauge(
            "nrp_remote_breaker_state",
            "0: closed, all is well. 1: half-open, one attempt is let through. 2: open, the model is left alone.",
            ["model"],
            registry=registry,
        )

    def watch(self, model: str, state: Callable[[], float]) -> None:
        """Read the breaker's state whenever the metrics are asked for."""
        self._breaker.labels(model).set_function(state)
