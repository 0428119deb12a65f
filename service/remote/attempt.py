"""One attempt to ask a remote model: what is sent, what comes back within the bounds, and the ways that it can fail."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import httpx

from service.errors import BadGatewayError, RemoteTimeoutError, RemoteUnavailableError, ServiceError
from service.remote.breaker import Verdict

Outcome = Literal[
    "ok", "unreachable", "unavailable", "overloaded", "refused", "failed", "broken", "malformed", "timeout",
    "cancelled", "breaker_open",
]  # fmt: skip

WHILE_AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
# So much of an error's answer is read, so that its connection can be used again.
MOST_ERROR_BYTES = 1 << 16
LONGEST_RETRY_AFTER = 3600


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    method: str
    url: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A 200's body, and its headers by lower-case name."""

    body: bytes
    headers: Mapping[str, str]


class MalformedReplyError(Exception):
    """A reply is not what the protocol says; one line says why. Always turned into a FailedAttemptError."""


class FailedAttemptError(Exception):
    """An attempt that gave no answer. ``error``: what the client is told; ``again``: another attempt may help, after
    ``retry_after`` seconds; ``verdict``: what it says of the server; ``detail``: for the log alone."""

    def __init__(
        self,
        outcome: Outcome,
        error: ServiceError,
        *,
        again: bool = False,
        retry_after: float = 0.0,
        verdict: Verdict = "failure",
        detail: str = "",
    ) -> None:
        super().__init__(str(error))
        self.outcome = outcome
        self.error = error
        self.again = again
        self.retry_after = retry_after
        self.verdict = verdict
        self.detail = detail


async def attempt(http: httpx.AsyncClient, name: str, call: Call, within_s: float, most_bytes: int) -> Reply:
    """Send ``call`` once. Raises FailedAttemptError."""
    try:
        async with asyncio.timeout(within_s):
            return await _exchange(http, name, call, most_bytes)
    except TimeoutError as error:
        raise FailedAttemptError("timeout", RemoteTimeoutError(f"{name} gave no answer in {within_s:.3g} s")) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        away = RemoteUnavailableError(f"{name} cannot be reached; retry later")
        raise FailedAttemptError("unreachable", away, again=True, detail=_line(error)) from error
    except httpx.HTTPError as error:
        broken = BadGatewayError(f"{name} broke off the connection; retry later")
        raise FailedAttemptError("broken", broken, detail=_line(error)) from error


def malformed(name: str, why: str) -> FailedAttemptError:
    """The failure that a reply is which nobody understands."""
    return FailedAttemptError("malformed", BadGatewayError(f"{name} answered otherwise than it should: {why}"))


class _Handshake:
    """Closes a connection whose TLS handshake does not come to its end.

    A trace function of httpcore's, which itself closes one whose handshake fails, but not one where it is cancelled:
    that would stay open, as nobody's, until the server closes it.
    """

    def __init__(self) -> None:
        self._stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed" and self._stream is not None:
            await self._stream.aclose()


async def _exchange(http: httpx.AsyncClient, name: str, call: Call, most_bytes: int) -> Reply:
    headers, extensions = dict(call.headers), {"trace": _Handshake()}
    sending = http.stream(call.method, call.url, content=call.content, headers=headers, extensions=extensions)
    async with sending as response:
        if response.status_code != HTTPStatus.OK:
            text = await _bounded(response, MOST_ERROR_BYTES) or b""
            raise _refusal(name, response, " ".join(text[:200].decode("utf-8", "replace").split()))
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise malformed(name, "its body is compressed, which it was asked not to be")
        body = await _bounded(response, most_bytes)
        if body is None:
            raise malformed(name, f"its answer is longer than {most_bytes} bytes; see NRP_REMOTE_MAX_ANSWER_BYTES")
        return Reply(body, {key.lower(): value for key, value in response.headers.items()})


async def _bounded(response: httpx.Response, most: int) -> bytes | None:
    """The body as it came over the wire; None where it is longer than ``most``, which is not read then."""
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        return None
    body = bytearray()
    async for chunk in response.aiter_raw():
        if len(body) + len(chunk) > most:
            return None
        body += chunk
    return bytes(body)


def _refusal(name: str, response: httpx.Response, detail: str) -> FailedAttemptError:
    """What a status other than 200 amounts to."""
    status = response.status_code
    wait = _retry_after(response.headers.get("retry-after"))
    error: ServiceError
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        error = RemoteUnavailableError(f"{name} has too much to do; retry later", max(1, round(wait or 1)))
        return FailedAttemptError(
            "overloaded", error, again=wait is not None, retry_after=wait or 0.0, verdict="neither", detail=detail
        )
    if status in WHILE_AWAY:
        error = RemoteUnavailableError(f"{name} answered {status}; retry later", max(1, round(wait or 1)))
        return FailedAttemptError("unavailable", error, again=True, retry_after=wait or 0.0, detail=detail)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return FailedAttemptError("failed", BadGatewayError(f"{name} answered {status}"), detail=detail)
    told = "a redirect, which is not followed; name where it leads" if response.is_redirect else "the log says more"
    error = BadGatewayError(f"{name} answered {status}: {told}")
    return FailedAttemptError("refused", error, verdict="success", detail=detail)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After asks for, as a number or as a date; None where it is absent or nonsense."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(min(int(value), LONGEST_RETRY_AFTER))
    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
