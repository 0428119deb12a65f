"""Answers that are sent while images are being purified, and clients that do not stay for the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.bulk import items
from service.bulk.packing import ZipPacking
from tests.service.bulk.requests import URL, form, wait_for


def test_everything_stops_when_the_client_leaves(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any]
) -> None:
    client = client_for(gated_engine, batch_pixels=24 * 16)
    request = httpx.Request("POST", f"http://test{URL}", files=form(*photos(30)))
    sent = client.run(leave_early(client, request))
    assert sent[0]["status"] == 499
    assert client.state.batcher.depth == client.state.pixels.held == client.state.bodies.held == 0
    client.state.engine.gate.set()
    wait_for(lambda: client.state.batcher.busy_s == 0)
    assert client.state.engine.ran == [1]


def test_a_client_that_leaves_half_way_ends_it_quietly(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any]
) -> None:
    client = client_for(gated_engine, batch_pixels=24 * 16)
    client.state.engine.gate.set()
    request = httpx.Request("POST", f"http://test{URL}", files=form(*photos(30)))
    sent = client.run(leave_early(client, request, after_chunks=3))
    assert sent[0]["status"] == 200
    assert all(message.get("more_body", True) for message in sent)
    wait_for(lambda: client.state.batcher.busy_s == 0)
    assert client.state.batcher.depth == client.state.pixels.held == client.state.bodies.held == 0
    assert sum(client.state.engine.ran) <= 3 + 2 * items.WINDOW
    assert client.post("/purify", content=photos(1)[0][1]).status_code == 200


async def leave_early(client: Any, request: httpx.Request, after_chunks: int = 0) -> list[dict[str, Any]]:
    """A client that hangs up once its images are queued, or after some of the answer, as a server would report it."""
    hung_up = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if after_chunks and len(sent) > after_chunks:
            hung_up.set()
            await asyncio.sleep(0.02)

    serving = asyncio.create_task(serve(client, request, send, hung_up))
    if not after_chunks:
        while client.state.batcher.depth < items.WINDOW - 1:  # noqa: ASYNC110 - a queue has no event for outsiders
            await asyncio.sleep(0.001)
        hung_up.set()
    await serving
    return sent


async def serve(client: Any, request: httpx.Request, send: Any, hung_up: asyncio.Event) -> None:
    """Call the application as a server does."""
    messages = [{"type": "http.request", "body": request.read(), "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": URL, "raw_path": URL.encode(),
        "query_string": b"", "headers": [(b"content-type", request.headers["content-type"].encode())],
        "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
    }  # fmt: skip
    await client.app(scope, receive, send)


def test_the_answer_begins_before_the_last_image_is_purified(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any]
) -> None:
    client = client_for(gated_engine, batch_pixels=24 * 16)
    client.state.engine.gate.set()
    ran_before: list[int] = []

    async def send(message: Any) -> None:
        ran_before.append(len(client.state.engine.ran))

    request = httpx.Request("POST", f"http://test{URL}", files=form(*photos(30)))
    client.run(serve(client, request, send, asyncio.Event()))
    assert ran_before[0] <= 2 * items.WINDOW < 30 == len(client.state.engine.ran)


def test_a_defect_of_ours_half_way_leaves_an_answer_without_its_end(
    client: Any, photos: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ZipPacking.add

    def broken(packing: ZipPacking, item: Any, purified: Any) -> bytes:
        if item.file == "3.png":
            raise RuntimeError("a defect")
        return add(packing, item, purified)

    monkeypatch.setattr(ZipPacking, "add", broken)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    request = httpx.Request("POST", f"http://test{URL}", files=form(*photos(12)))
    client.run(serve(client, request, send, asyncio.Event()))
    assert [message["status"] for message in sent if "status" in message] == [200]
    assert len(sent) == 4  # the head and three images
    assert all(message.get("more_body", True) for message in sent)
    assert client.state.pixels.held == client.state.bodies.held == 0
