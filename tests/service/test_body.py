from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from PIL import Image

from service.admission import Allowance
from service.errors import OverloadedError

LIMIT = 10_000


@pytest.mark.parametrize("route", ["/purify", "/classify-robust"])
def test_a_body_announced_too_long_is_refused_by_its_length(client_for: Any, route: str) -> None:
    answer = client_for(max_body_bytes=LIMIT).post(route, content=b"x" * (LIMIT + 1))
    assert answer.status_code == 413
    assert str(LIMIT) in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=x"])
def test_a_body_of_unannounced_length_is_counted_as_it_arrives(client_for: Any, content_type: str) -> None:
    client = client_for(max_body_bytes=LIMIT)
    head = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        if "multipart" in content_type
        else b""
    )
    received = []
    watched = client.state.bodies

    async def body() -> AsyncIterator[Any]:
        yield head
        for _ in range(20):
            received.append(watched.held)
            yield b"x" * 1000

    answer = client.post("/purify", content=body(), headers={"content-type": content_type})
    assert answer.status_code == 413
    assert max(received) <= LIMIT  # nothing beyond the limit was ever kept
    assert watched.held == 0


def test_a_body_at_the_limit_passes(
    client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    data = file_of(photo())
    client = client_for(max_body_bytes=len(data))
    assert client.post("/purify", content=data).status_code == 200
    assert client.state.bodies.held == 0


def test_bodies_of_all_requests_together_are_bounded(
    client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(max_body_bytes=LIMIT, max_body_bytes_in_flight=LIMIT)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[Any]:
        yield b"x" * 9_000
        await go_on.wait()

    first = client.sending("POST", "/purify", content=slow())
    data = file_of(photo(40, 40))

    async def until_held() -> None:
        while client.state.bodies.held < 9_000:  # noqa: ASYNC110 - an allowance has no event of its own
            await asyncio.sleep(0.001)

    client.run(until_held())
    answer = client.post("/purify", content=data)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1

    async def release() -> None:
        go_on.set()

    client.run(release())
    assert first.result(10).status_code == 415
    assert client.post("/purify", content=data).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up(client_for: Any) -> None:
    client = client_for(request_timeout_s=0.1)

    async def never() -> AsyncIterator[Any]:
        yield b"x"
        await asyncio.sleep(5)

    answer = client.post("/purify", content=never())
    assert answer.status_code == 408
    assert answer.json()["type"] == "urn:nrp:problem:upload-timeout"


def test_a_client_that_leaves_during_its_upload_is_no_error_of_ours(client: Any) -> None:
    async def scenario() -> Any:
        async def receive() -> Any:
            return messages.pop(0)

        messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
        answers = []

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/purify", "raw_path": b"/purify",
            "query_string": b"", "headers": [(b"transfer-encoding", b"chunked")], "scheme": "http",
            "server": ("test", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip
        await client.app(scope, receive, send)
        return answers

    assert client.run(scenario())[0]["status"] == 499
    assert client.state.bodies.held == 0


def test_an_allowance_is_given_back_whatever_happens() -> None:
    allowance = Allowance(10, "pixels in flight", lambda: 7)
    with pytest.raises(OverloadedError, match="6 of 10") as refused, allowance.holding(6):
        allowance.take(5)
    assert refused.value.retry_after == 7
    assert refused.value.reason == "pixels_in_flight"
    assert allowance.held == 0
    with allowance.holding(10):
        assert allowance.held == 10
