"""Around every request: its id, its log line, its metrics, and the answer to what nobody foresaw.

Pure ASGI, here and in ``body``: middleware that wraps the request would hide a client's disconnect from the route.
"""

from __future__ import annotations

import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import CLIENT_CLOSED_REQUEST
from service.in_flight import RequestsInFlight
from service.metrics import Metrics
from service.problems import unexpected_problem
from service.record import RequestRecord, begin_record

_PROBES = frozenset({"/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})

log = structlog.get_logger()


class RequestContext:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, requests: RequestsInFlight) -> None:
        self.app = app
        self.metrics = metrics
        self.requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = begin_record(scope)
        status: int | None = None

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = record.request_id
            await send(message)

        begun = time.perf_counter()
        with self.requests.counting(), structlog.contextvars.bound_contextvars(request_id=record.request_id):
            try:
                await self.app(scope, receive, send_marked)
            except Exception:  # the last place that can answer; logged with its traceback
                log.exception("request_failed", path=scope["path"])
                if status is None:
                    await unexpected_problem(scope)(scope, receive, send_marked)
            finally:
                # No status: the server cancelled the request because its time to drain was over.
                self._note(scope, record, status or CLIENT_CLOSED_REQUEST, time.perf_counter() - begun)

    def _note(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        route = _template(scope)
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        level = "warning" if status >= 500 else "debug" if route in _PROBES else "info"
        getattr(log, level)(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            **record.facts,
        )


def _template(scope: Scope) -> str:
    """The route's template, so that what clients invent does not become labels."""
    path = getattr(scope.get("route"), "path", None)
    if isinstance(path, str):
        return path
    literal = scope.get("endpoint") is not None and not scope.get("path_params")
    return str(scope["path"]) if literal else "unmatched"
