"""The caller: what is tried again, how long is waited, and what counts how."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from typing import Any

import httpx
import pytest
import structlog

from service.errors import (
    BadGatewayError,
    RemoteUnavailableError,
    ServiceError,
)
from service.remote.attempt import MalformedReplyError, Reply
from tests.service.remote.script import OK, failure_of


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
