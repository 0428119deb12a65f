"""The caller of one remote model: a pool of connections, retries that back off, and a circuit breaker."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NoReturn, TypeVar

import httpx
import structlog

from service.codec import Codec
from service.errors import DeadlineExceededError, RemoteUnavailableError, SettingsError
from service.remote.attempt import Call, FailedAttemptError, MalformedReplyError, Outcome, Reply, attempt, malformed
from service.remote.breaker import Breaker, State, Verdict
from service.remote.metrics import RemoteMetrics
from service.settings import Settings

T = TypeVar("T")

LONGEST_BACKOFF_S = 5.0
# Below the five seconds after which uvicorn closes an idle connection: one that is closed as it is used is an error.
KEEP_ALIVE_S = 4.0
STATES: Mapping[State, int] = MappingProxyType({"closed": 0, "half-open": 1, "open": 2})

log = structlog.get_logger()


class RemoteCaller:
    """Asks one remote model. ``name`` is what logs, metrics and problems call it. Used in the event loop alone."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        codec: Codec,
        metrics: RemoteMetrics,
        http: httpx.AsyncClient,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.breaker = Breaker(settings.remote_breaker_failures, settings.remote_breaker_s)
        self._settings = settings
        self._codec = codec
        self._metrics = metrics
        self._http = http
        self._sleep = sleep
        self._places = asyncio.Semaphore(settings.remote_connections)
        metrics.watch(name, lambda: STATES[self.breaker.state])

    async def ask(self, call: Call, read: Callable[[Reply], T], deadline: float, *, retries: int | None = None) -> T:
        """What ``read`` makes of the reply, in a worker thread; it raises MalformedReplyError where that is none.

        ``deadline`` is in event loop time. Raises BadGatewayError, RemoteUnavailableError, RemoteTimeoutError or
        DeadlineExceededError. It is asked again only where no connection was made, and after 502, 503, 504, and 429
        with Retry-After: nothing was computed then.
        """
        most = self._settings.remote_retries if retries is None else retries
        try:
            async with asyncio.timeout_at(deadline):
                for count in itertools.count():
                    try:
                        return await self._attempt(call, read)
                    except FailedAttemptError as failure:
                        await self._before_the_next(failure, count, most, deadline)
        except TimeoutError as error:
            raise DeadlineExceededError(f"{self.name} gave no answer before the deadline; retry later") from error
        raise AssertionError("the loop ends by returning or raising")

    def check(self) -> None:
        """Raises RemoteUnavailableError while the breaker is open, so that no work is done for nothing."""
        if self.breaker.state == "open":
            self._left_alone()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _before_the_next(self, failure: FailedAttemptError, count: int, most: int, deadline: float) -> None:
        """Wait before another attempt, or raise what the client is told where there is none.

        The wait is drawn evenly from zero to a bound that doubles (full jitter, Brooker 2015), so that callers who
        failed together do not come back together; a Retry-After is waited for before that.
        """
        bound = min(LONGEST_BACKOFF_S, self._settings.remote_backoff_s * 2**count)
        wait = failure.retry_after + random.uniform(0, bound)  # noqa: S311 - no secret
        too_late = asyncio.get_running_loop().time() + wait >= deadline
        log.warning(
            "remote_failed", model=self.name, outcome=failure.outcome, reason=str(failure.error), detail=failure.detail,
            attempt=count + 1,
        )  # fmt: skip
        if not failure.again or count >= most or too_late or self.breaker.state == "open":
            raise failure.error from failure
        await self._sleep(wait)

    async def _attempt(self, call: Call, read: Callable[[Reply], T]) -> T:
        async with self._places:
            if not self.breaker.enter():
                self._left_alone()
            begun = time.perf_counter()
            outcome: Outcome = "cancelled"
            verdict: Verdict = "neither"
            try:
                answer = await self._answer(call, read)
                outcome, verdict = "ok", "success"
            except FailedAttemptError as failure:
                outcome, verdict = failure.outcome, failure.verdict
                raise
            finally:
                self.breaker.leave(verdict)
                self._metrics.requests.labels(self.name, outcome).inc()
                self._metrics.seconds.labels(self.name).observe(time.perf_counter() - begun)
        return answer

    async def _answer(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Raises FailedAttemptError. The request's own deadline, where that comes first, ends it as cancelled."""
        settings = self._settings
        call = replace(call, headers={**call.headers, **_request_id()})
        reply = await attempt(self._http, self.name, call, settings.remote_timeout_s, settings.remote_max_answer_bytes)
        try:
            return await self._codec.run(read, reply)
        except MalformedReplyError as error:
            raise malformed(self.name, str(error)) from error

    def _left_alone(self) -> NoReturn:
        self._metrics.requests.labels(self.name, "breaker_open").inc()
        seconds = self.breaker.retry_after
        raise RemoteUnavailableError(
            f"{self.name} failed {self._settings.remote_breaker_failures} times or more in a row and is left alone; "
            f"retry in {seconds} s",
            seconds,
        )


def _request_id() -> dict[str, str]:
    """So that the remote's log can be read beside ours."""
    known = structlog.contextvars.get_contextvars().get("request_id")
    return {} if known is None else {"X-Request-ID": str(known)}


def make_http(settings: Settings) -> httpx.AsyncClient:
    """A client with a pool of its own: no proxies and no credentials from the environment, no redirects.

    Raises SettingsError for certificates that cannot be read.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": "nrp"}
    if settings.remote_authorization is not None:
        secret = settings.remote_authorization.get_secret_value()
        if not (secret.isascii() and secret.isprintable()):
            raise SettingsError("invalid setting: NRP_REMOTE_AUTHORIZATION: it must be printable ASCII on one line")
        headers["Authorization"] = secret
    try:
        verify = True if settings.remote_ca_file is None else ssl.create_default_context(cafile=settings.remote_ca_file)
    except OSError as error:
        raise SettingsError(f"invalid setting: NRP_REMOTE_CA_FILE: {error.strerror or error}") from error
    most = settings.remote_connections
    return httpx.AsyncClient(
        headers=headers,
        verify=verify,
        trust_env=False,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=KEEP_ALIVE_S),
        timeout=httpx.Timeout(None, connect=settings.remote_connect_timeout_s),
    )
