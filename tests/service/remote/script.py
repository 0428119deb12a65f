"""A caller of a scripted transport, whose waits are written down instead of waited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.codec import Codec
from service.errors import ServiceError
from service.remote.attempt import Call, Reply
from service.remote.caller import RemoteCaller, make_http
from service.remote.metrics import RemoteMetrics

CALL = Call("POST", "http://remote/x?key=hidden", b"image", {"Content-Type": "image/png"})
OK = (200, {}, b'{"a": 1}')


def reply_of(status: int, headers: dict[str, str], body: bytes) -> httpx.Response:
    """A response whose body has yet to be read, as one from a socket has."""
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


class Script(httpx.AsyncBaseTransport):
    """Answers requests with one entry after the other, the last again and again: a response, an error, or a function
    of the request."""

    def __init__(self, *entries: Any) -> None:
        self.entries = list(entries)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        entry = self.entries.pop(0) if len(self.entries) > 1 else self.entries[0]
        if isinstance(entry, Exception):
            raise entry
        if callable(entry):
            answer: httpx.Response = await entry(request)
            return answer
        status, headers, body = entry
        return reply_of(status, headers, body)


class Bench:
    """A caller of a script, its waits written down instead of waited."""

    def __init__(self, script: Script, settings: Any) -> None:
        self.script = script
        self.registry = CollectorRegistry()
        self.waits: list[float] = []
        self.codec = Codec(1)
        http = make_http(settings)
        http._transport = script
        metrics = RemoteMetrics(self.registry)
        self.caller = RemoteCaller("remote:x", settings, self.codec, metrics, http, self._note)

    async def _note(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def ask(self, within_s: float = 30.0, read: Callable[[Reply], Any] | None = None) -> Any:
        deadline = asyncio.get_running_loop().time() + within_s
        return await self.caller.ask(CALL, read or (lambda reply: json.loads(reply.body)), deadline)

    def count(self, outcome: str) -> float:
        labels = {"model": "remote:x", "outcome": outcome}
        return self.registry.get_sample_value("nrp_remote_requests_total", labels) or 0.0

    def breaker(self) -> float | None:
        return self.registry.get_sample_value("nrp_remote_breaker_state", {"model": "remote:x"})


def failure_of(bench: Bench, kind: type[ServiceError], **options: Any) -> Any:
    with pytest.raises(kind) as failure:
        asyncio.run(bench.ask(**options))
    assert "remote:x" in str(failure.value)
    assert "hidden" not in str(failure.value)
    assert "\n" not in str(failure.value)
    return failure.value
