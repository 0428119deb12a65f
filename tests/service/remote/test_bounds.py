"""The caller: bounds on time, bytes and connections, a breaker that opens and closes, and what nobody learns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from service.errors import (
    BadGatewayError,
    DeadlineExceededError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    SettingsError,
)
from service.remote.caller import make_http
from tests.service.remote.script import OK, failure_of, reply_of


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
