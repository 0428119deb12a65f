"""The load generator's HTTP: one kept-alive connection, lean, since it runs on the cores that it measures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h11

_CHUNK = 1 << 16
BOUNDARY = "nrp-bench-boundary"


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Request:
    """What is sent, ready to be sent many times."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=())


def upload(path: str, image: bytes, form_field: str = "") -> Request:
    """A POST of one PNG file: as the body itself, or in the field of a multipart form."""
    if not form_field:
        return Request("POST", path, image, (("Content-Type", "image/png"),))
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{form_field}"; filename="image.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    body = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Request("POST", path, body, (("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),))


class Connection:
    """One request at a time. Opened when needed, and again where the server has closed it."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._state = h11.Connection(h11.CLIENT)

    async def send(self, request: Request) -> Reply:
        """Send and wait for the whole answer. Raises OSError or h11.ProtocolError where there is none."""
        kept = self._streams is not None
        try:
            return await self._exchange(request)
        except (ConnectionError, h11.RemoteProtocolError):
            self.close()
            if not kept:
                raise
        except BaseException:
            self.close()
            raise
        return await self._exchange(request)  # the server had closed a connection that lay idle

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: Request) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
            self._state = h11.Connection(h11.CLIENT)
        reader, writer = self._streams
        head = h11.Request(method=request.method, target=request.path, headers=self._headers(request))
        parts: tuple[Any, ...] = (head, h11.Data(data=request.body), h11.EndOfMessage())
        writer.write(b"".join(self._state.send(part) or b"" for part in parts))
        await writer.drain()
        reply = await self._receive(reader)
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        else:
            self.close()
        return reply

    async def _receive(self, reader: asyncio.StreamReader) -> Reply:
        status, headers, body = 0, {}, bytearray()
        while True:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                self._state.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Reply(status, headers, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the server closed the connection before it answered")

    def _headers(self, request: Request) -> list[tuple[str, str]]:
        host, port = self._address
        fixed = [("Host", f"{host}:{port}"), ("Accept-Encoding", "identity")]
        return [*fixed, *request.headers, ("Content-Length", str(len(request.body)))]
