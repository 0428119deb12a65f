"""Server-sent events (WHATWG HTML, section 9.2) of work that takes a while: events on the way, then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

import structlog
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model_store.errors import NrpError
from service.problems import error_problem, unexpected_problem

MEDIA_TYPE = "text/event-stream"
# Proxies end connections on which nothing comes; half a minute is the shortest that is common.
KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": still at work\n\n"
# No cache may keep it, and no proxy hold it back: nginx buffers answers unless told so.
UNBUFFERED: Mapping[str, str] = MappingProxyType({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

Tell = Callable[[str, BaseModel], None]
Work = Callable[[Tell], Coroutine[Any, Any, BaseModel]]

log = structlog.get_logger()


def event(name: str, data: bytes) -> bytes:
    """One event; ``data`` is JSON, without line breaks."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


class EventStream(Response):
    """Begins ``work`` when it is sent. ``work`` tells events; its result is the last one, ``result``.

    It begins with the first event: what ``work`` raises before that is raised here, an answer with a status of its own.
    Later it becomes the last event, ``problem``, of a stream that answered 200. Comments keep the connection open.
    ``work`` must find out by itself when the client has gone.
    """

    media_type = MEDIA_TYPE

    def __init__(self, work: Work, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self._work = work
        self.init_headers({**headers, **UNBUFFERED})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - see ``work``
        events: asyncio.Queue[bytes | None] = asyncio.Queue()
        work = asyncio.create_task(
            self._work(lambda name, data: events.put_nowait(event(name, data.model_dump_json().encode())))
        )
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            begun = await self._relay(events, send)
            if not begun:
                work.result()
                await self._begin(send)
            await _body(send, _last(scope, work), more=False)
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def _relay(self, events: asyncio.Queue[bytes | None], send: Send) -> bool:
        """Send what comes until the end of the work; whether there was anything."""
        begun = False
        while (data := await _next(events)) is not None:
            if not begun and data is not KEEP_ALIVE:
                await self._begin(send)
                begun = True
            if begun:
                await _body(send, data, more=True)
        return begun

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _next(events: asyncio.Queue[bytes | None]) -> bytes | None:
    """The next event, or a comment where none comes for a while; None at the end."""
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            return await events.get()
    except TimeoutError:
        return KEEP_ALIVE


async def _body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def _last(scope: Scope, work: asyncio.Task[BaseModel]) -> bytes:
    """The event that tells how the work ended."""
    error = work.exception()
    if error is None:
        return event("result", work.result().model_dump_json().encode())
    if isinstance(error, NrpError):
        return event("problem", bytes(error_problem(scope, error).body))
    log.error("request_failed", path=scope["path"], exc_info=error)
    return event("problem", bytes(unexpected_problem(scope).body))
