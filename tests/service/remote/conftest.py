"""Servers on loopback sockets that stand for remote models."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from PIL import Image

from tests.service.remote.answers import QUICK, classified
from tests.service.remote.script import Bench, Script


def until(condition: Callable[[], Any]) -> None:
    """Wait for ``condition``."""
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


class Running:
    """An ASGI application on a port of this machine, a free one unless ``options``, uvicorn's, name one."""

    def __init__(self, app: Any, **options: Any) -> None:
        config = uvicorn.Config(
            app,
            **{
                "port": 0,
                "log_config": None,
                "lifespan": "off",
                "loop": "asyncio",
                "timeout_graceful_shutdown": 1,
                **options,
            },
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


class Fake:
    """A remote model whose answer a test sets: JSON to everything, or what ``respond`` returns for a path and body."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.respond: Callable[[str, bytes], Awaitable[Any]] | None = None
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.sent: list[dict[str, str]] = []
        self.connections: set[Any] = set()
        self.left = 0
        self.busy = 0
        self._running: Running | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        self._running = Running(self, port=self._port)
        self._port = self._running.port

    def stop(self) -> None:
        """Be gone."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.busy += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self.busy -= 1

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        self.paths.append(scope["path"])
        self.sent.append({key.decode(): value.decode() for key, value in scope["headers"]})
        self.connections.add(scope["client"])
        answering = asyncio.create_task(self._answer(scope["path"], body))
        leaving = asyncio.create_task(receive())
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self.left += 1
            answering.cancel()
            return
        leaving.cancel()
        answer = answering.result()
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        headers = [(key.encode(), value.encode()) for key, value in self.headers.items()]
        headers.append((b"content-length", str(len(text)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def _answer(self, path: str, body: bytes) -> Any:
        return self.answer if self.respond is None else await self.respond(path, body)


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    """Starts applications on sockets, and stops them at the end."""
    started: list[Running] = []

    def start(app: Any, **options: Any) -> Running:
        started.append(Running(app, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(name="until")
def _until() -> Callable[[Callable[[], Any]], None]:
    return until


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


@pytest.fixture
def remote_client(client_for: Callable[..., Any], fake: Any) -> Any:
    """A service whose classifier is ``fake``; what the start asked it is forgotten."""
    fake.answer = classified(0.25, 0.75)

    def make(task: str = "classifier", path: str = "/predict?key=k3y", **changes: Any) -> Any:
        others = {} if task == "classifier" else {"classifier": "none"}
        client = client_for(**{**QUICK, **others, task: fake.url + path, **changes})
        for seen in (fake.bodies, fake.paths, fake.sent):
            seen.clear()
        return client

    return make


@pytest.fixture
def image(file_of: Callable[..., bytes]) -> bytes:
    return file_of(Image.new("RGB", (30, 20), (200, 200, 200)))
