"""The caller against a scripted transport: what is tried again, how long is waited, and what counts how."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry

from service.codec import Codec
from service.errors import (
    BadGatewayError,
    DeadlineExceededError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    ServiceError,
    SettingsError,
)
from service.remote.attempt import Call, MalformedReplyError, Reply
from service.remote.caller import RemoteCaller, make_http
from service.remote.metrics import RemoteMetrics

CALL = Call("POST", "http://remote/x?key=hidden", b"image", {"Content-Type": "image/png"})


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


@pytest.fixture
def bench(settings_for: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(random, "uniform", max)
    made: list[Bench] = []

    def make(*entries: Any, **settings: Any) -> Bench:
        made.append(Bench(Script(*entries), settings_for(**settings)))
        return made[-1]

    yield make
    for one in made:
        one.codec.close()


OK = (200, {}, b'{"a": 1}')


def failure_of(bench: Bench, kind: type[ServiceError], **options: Any) -> Any:
    with pytest.raises(kind) as failure:
        asyncio.run(bench.ask(**options))
    assert "remote:x" in str(failure.value)
    assert "hidden" not in str(failure.value)
    assert "\n" not in str(failure.value)
    return failure.value


def test_an_answer_comes_back_read_and_is_counted(bench: Any) -> None:
    remote = bench(OK, remote_authorization="Bearer abc")

    async def asked() -> Any:
        with structlog.contextvars.bound_contextvars(request_id="mine"):
            return await remote.ask()

    assert asyncio.run(asked()) == {"a": 1}
    (request,) = remote.script.requests
    assert (request.method, request.content) == ("POST", b"image")
    assert request.headers["authorization"] == "Bearer abc"
    assert request.headers["x-request-id"] == "mine"
    assert request.headers["accept-encoding"] == "identity"
    assert (remote.count("ok"), remote.breaker()) == (1, 0)
    assert remote.registry.get_sample_value("nrp_remote_seconds_count", {"model": "remote:x"}) == 1


@pytest.mark.parametrize(
    "entry",
    [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), (502, {}, b""), (503, {}, b""), (504, {}, b"")],
    ids=str,
)
def test_what_computed_nothing_is_asked_again_with_a_wait_that_doubles(bench: Any, entry: Any) -> None:
    remote = bench(entry, entry, entry, OK, remote_retries=3, remote_backoff_s=0.2)
    assert asyncio.run(remote.ask()) == {"a": 1}
    assert remote.waits == pytest.approx([0.2, 0.4, 0.8])
    assert len(remote.script.requests) == 4


def test_the_wait_is_drawn_from_nothing_up_to_its_bound_and_the_bound_has_one(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(random, "uniform", lambda low, high: drawn.append((low, high)) or 0.0)
    remote = bench((503, {}, b""), remote_retries=4, remote_backoff_s=2, remote_breaker_failures=99)
    failure_of(remote, RemoteUnavailableError)
    assert drawn == [(0, 2), (0, 4), (0, 5), (0, 5), (0, 5)]
    assert remote.waits == [0.0] * 4


def test_after_the_last_retry_the_client_is_told(bench: Any) -> None:
    remote = bench((503, {"retry-after": "7"}, b"busy"), remote_retries=1)
    error = failure_of(remote, RemoteUnavailableError)
    assert (error.retry_after, "503" in str(error)) == (7, True)
    assert (len(remote.script.requests), remote.count("unavailable")) == (2, 2)


@pytest.mark.parametrize(
    ("entry", "kind", "outcome", "hurts"),
    [
        ((500, {}, b"boom"), BadGatewayError, "failed", True),
        ((400, {}, b"what?"), BadGatewayError, "refused", False),
        ((401, {}, b""), BadGatewayError, "refused", False),
        ((204, {}, b""), BadGatewayError, "refused", False),
        ((307, {"location": "http://elsewhere/"}, b""), BadGatewayError, "refused", False),
        ((429, {}, b""), RemoteUnavailableError, "overloaded", None),
        ((200, {}, b"no json"), BadGatewayError, "malformed", True),
        ((200, {"content-encoding": "gzip"}, b"{}"), BadGatewayError, "malformed", True),
        (httpx.ReadError("reset"), BadGatewayError, "broken", True),
        (httpx.RemoteProtocolError("nonsense"), BadGatewayError, "broken", True),
    ],
    ids=str,
)
def test_what_may_have_been_computed_or_would_fail_again_is_asked_once(
    bench: Any, entry: Any, kind: type[ServiceError], outcome: str, hurts: bool | None
) -> None:
    def read(reply: Reply) -> Any:
        raise MalformedReplyError("the body: no JSON")

    remote = bench(entry, remote_breaker_failures=1)
    failure_of(remote, kind, read=read)
    assert len(remote.script.requests) == 1
    assert remote.count(outcome) == 1
    assert remote.breaker() == (2 if hurts else 0)


def test_a_redirect_is_told_and_where_it_leads_never_asked(bench: Any) -> None:
    error = failure_of(bench((302, {"location": "http://elsewhere/"}, b"")), BadGatewayError)
    assert "redirect" in str(error)


def test_too_many_requests_are_waited_out_for_as_long_as_it_says(bench: Any) -> None:
    remote = bench((429, {"retry-after": "3"}, b""), OK, remote_backoff_s=0.5)
    assert asyncio.run(remote.ask()) == {"a": 1}
    assert remote.waits == [3.5]


def test_a_retry_after_may_be_a_date(bench: Any) -> None:
    when = email.utils.formatdate(time.time() + 5, usegmt=True)
    remote = bench((503, {"retry-after": when}, b""), (503, {"retry-after": "soon"}, b""), OK, remote_backoff_s=0)
    assert asyncio.run(remote.ask()) == {"a": 1}
    assert 3 < remote.waits[0] <= 5
    assert remote.waits[1] == 0


def test_a_wait_past_the_deadline_is_not_begun(bench: Any) -> None:
    remote = bench((429, {"retry-after": "60"}, b""))
    error = failure_of(remote, RemoteUnavailableError, within_s=30)
    assert (error.retry_after, remote.waits) == (60, [])


async def slow(request: httpx.Request) -> httpx.Response:
    await asyncio.sleep(20)
    raise AssertionError("it was waited for")


async def dripping() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.01)


async def drips(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=dripping())


@pytest.mark.parametrize("entry", [slow, drips])
def test_an_attempt_that_takes_too_long_is_ended_and_not_repeated(bench: Any, entry: Any) -> None:
    remote = bench(entry, remote_timeout_s=0.05, remote_breaker_failures=1)
    failure_of(remote, RemoteTimeoutError)
    assert (len(remote.script.requests), remote.count("timeout"), remote.breaker()) == (1, 1, 2)


def test_the_deadline_of_the_request_ends_it_and_is_not_the_remotes_fault(bench: Any) -> None:
    remote = bench(slow, remote_breaker_failures=1)
    failure_of(remote, DeadlineExceededError, within_s=0.05)
    assert (remote.count("cancelled"), remote.breaker()) == (1, 0)


def test_a_cancelled_call_ends_the_request_and_is_not_the_remotes_fault(bench: Any) -> None:
    begun, ended = asyncio.Event(), []

    async def watched(request: httpx.Request) -> httpx.Response:
        begun.set()
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(True)
        raise AssertionError

    remote = bench(watched, remote_breaker_failures=1)

    async def cancel() -> None:
        task = asyncio.create_task(remote.ask())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert (ended, remote.count("cancelled"), remote.breaker()) == ([True], 1, 0)


async def chunks(sent: list[int]) -> AsyncIterator[bytes]:
    for size in (60, 60, 60):
        sent.append(size)
        yield b"x" * size


def test_an_answer_that_is_too_long_is_not_read_to_its_end(bench: Any) -> None:
    sent: list[int] = []

    async def long(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=chunks(sent))

    remote = bench(long, remote_max_answer_bytes=100)
    assert "100 bytes" in str(failure_of(remote, BadGatewayError))
    assert sent == [60, 60]
    announced = bench((200, {"content-length": "101"}, b""), remote_max_answer_bytes=100)
    assert "100 bytes" in str(failure_of(announced, BadGatewayError))
    assert announced.count("malformed") == 1


def test_a_dead_server_is_left_alone_probed_and_taken_back(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = httpx.ConnectError("refused")
    remote = bench(refused, refused, refused, OK, remote_retries=1, remote_breaker_failures=2, remote_breaker_s=30)
    now = 1000.0
    remote.caller.breaker._clock = lambda: now

    failure_of(remote, RemoteUnavailableError)  # two attempts: it opens
    assert (len(remote.script.requests), remote.breaker()) == (2, 2)
    error = failure_of(remote, RemoteUnavailableError)
    assert (error.retry_after, "left alone" in str(error)) == (30, True)
    assert (len(remote.script.requests), remote.count("breaker_open")) == (2, 1)

    now += 31
    assert remote.breaker() == 1
    failure_of(remote, RemoteUnavailableError)  # the probe fails: open again, without a retry
    assert (len(remote.script.requests), remote.breaker()) == (3, 2)
    now += 31
    assert asyncio.run(remote.ask()) == {"a": 1}
    assert remote.breaker() == 0


def test_no_retry_is_made_into_a_breaker_that_has_opened(bench: Any) -> None:
    remote = bench((503, {}, b""), remote_retries=5, remote_breaker_failures=2)
    failure_of(remote, RemoteUnavailableError)
    assert (len(remote.script.requests), len(remote.waits)) == (2, 1)


def test_half_open_lets_one_caller_through_at_a_time(bench: Any) -> None:
    gate = asyncio.Event()

    async def waits(request: httpx.Request) -> httpx.Response:
        await gate.wait()
        return reply_of(200, {}, b"1")

    remote = bench((503, {}, b""), waits, remote_retries=0, remote_breaker_failures=1)
    now = 1000.0
    remote.caller.breaker._clock = lambda: now
    failure_of(remote, RemoteUnavailableError)
    now += 31

    async def several() -> list[Any]:
        asked = [asyncio.create_task(remote.ask()) for _ in range(3)]
        await asyncio.sleep(0.02)
        gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, *others = asyncio.run(several())
    assert first == 1
    assert all(isinstance(other, RemoteUnavailableError) for other in others)
    assert len(remote.script.requests) == 2


def test_no_more_than_so_many_are_asked_at_a_time(bench: Any) -> None:
    running, most = 0, 0

    async def counted(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return reply_of(200, {}, b"1")

    remote = bench(counted, remote_connections=3)

    async def many() -> list[Any]:
        return await asyncio.gather(*(remote.ask() for _ in range(9)))

    assert asyncio.run(many()) == [1] * 9
    assert most == 3


def test_neither_secret_nor_query_is_logged(bench: Any) -> None:
    remote = bench((403, {}, b"no\nway"), remote_authorization="Bearer s3cret")
    with structlog.testing.capture_logs() as lines:
        failure_of(remote, BadGatewayError)
    (line,) = lines
    assert (line["event"], line["outcome"], line["detail"], line["model"]) == (
        "remote_failed", "refused", "no way", "remote:x",
    )  # fmt: skip
    assert "s3cret" not in str(lines)
    assert "hidden" not in str(lines)


def test_nothing_of_the_environment_steers_the_client(settings_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    http = make_http(settings_for())
    assert (http.trust_env, http.follow_redirects, http._mounts) == (False, False, {})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"remote_authorization": "Bearer a\nX-Evil: 1"}, "NRP_REMOTE_AUTHORIZATION"),
        ({"remote_ca_file": "/nowhere/ca.pem"}, "NRP_REMOTE_CA_FILE"),
        ({"remote_ca_file": __file__}, "NRP_REMOTE_CA_FILE"),
    ],
)
def test_what_no_client_can_be_made_of_stops_the_start(settings_for: Any, changes: Any, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as failure:
        make_http(settings_for(**changes))
    assert "Evil" not in str(failure.value)
    assert "\n" not in str(failure.value)
