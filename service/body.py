"""The limit on request bodies, counted as they arrive."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import Allowance
from service.errors import BodyTooLargeError

DRAIN_S = 2.0
DRAIN_BYTES = 128 << 20


class BodyLimit:
    """Refuse a body above ``limit`` bytes (413) when a route begins to read it, or as soon as it gets that long.

    Bytes held by all requests together count against ``in_flight``; where that is used up the answer is 429.
    Both are raised into the route that reads, so they are answered, counted and logged as its own errors are.
    """

    def __init__(self, app: ASGIApp, limit: int, in_flight: Allowance) -> None:
        self.app = app
        self.limit = limit
        self.in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self.limit, self.in_flight)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.in_flight.give_back(body.held)


class _Body:
    """One request's body on its way in."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int, in_flight: Allowance) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit = limit
        self._in_flight = in_flight
        self._complete = not (self._header(b"content-length").strip(b"0") or self._header(b"transfer-encoding"))
        self.held = 0

    async def receive(self) -> Message:
        """The next message. Raises BodyTooLargeError, by Content-Length before anything is read, or OverloadedError.

        The chunk at fault is not kept.
        """
        announced = self._header(b"content-length")
        if announced.isdigit() and int(announced) > self._limit:
            raise self._too_large()
        message = await self._receive()
        if message["type"] == "http.request":
            self._complete = not message.get("more_body", False)
            length = len(message.get("body", b""))
            if self.held + length > self._limit:
                raise self._too_large()
            self._in_flight.take(length)
            self.held += length
        else:
            self._complete = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on the response, its end not before the rest of the body was read and thrown away.

        A server that closes a connection with unread bytes in it resets it, and the client loses the answer.
        """
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and not self._complete and not self._header(b"expect"):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self) -> None:
        left = DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_S):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body is longer than the limit of {self._limit} bytes; send a smaller image")

    def _header(self, name: bytes) -> bytes:
        return next((value for key, value in self._scope["headers"] if key == name), b"")
