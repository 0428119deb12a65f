"""The load generator's HTTP: one kept-alive connection, lean, since it runs on the cores that it measures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import httptools

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


class _Answer:
    """One answer as it is parsed. ``kept``: the connection may be used again."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False
        self.kept = False
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.kept = self.parser.should_keep_alive()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


class Connection:
    """One request at a time. Opened when needed, and again where the server has closed it."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> Reply:
        """Send and wait for the whole answer. Raises OSError where there is none."""
        kept = self._streams is not None
        try:
            return await self._exchange(request)
        except ConnectionError:
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
        reader, writer = self._streams
        writer.writelines((self._head(request), request.body))
        await writer.drain()
        answer = _Answer()
        while not answer.complete:
            data = await reader.read(_CHUNK)
            if not data:
                raise ConnectionResetError("the server closed the connection before it answered")
            try:
                answer.parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise ConnectionResetError("what the server answered is not HTTP") from error
        if not answer.kept:
            self.close()
        return Reply(answer.parser.get_status_code(), answer.headers, bytes(answer.body))

    def _head(self, request: Request) -> bytes:
        host, port = self._address
        fixed = (("Host", f"{host}:{port}"), ("Accept-Encoding", "identity"))
        lines = [f"{name}: {value}" for name, value in (*fixed, *request.headers)]
        first = f"{request.method} {request.path} HTTP/1.1"
        return "\r\n".join((first, *lines, f"Content-Length: {len(request.body)}", "", "")).encode()
