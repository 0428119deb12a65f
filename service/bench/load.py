"""The load generator: clients in a closed loop, or arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from service.bench.connection import Connection, Reply, Request
from service.bench.figures import UNANSWERED, Sample
from service.bench.servers import ROOT

PNG = b"\x89PNG\r\n\x1a\n"
# A client that was told to come back later and one that was refused without a word wait at least this long.
LEAST_PAUSE_S = 0.1


class Target:
    """One server under load, with the connections to it that are idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def ask(self, request: Request, due: float, *, counts: bool = True) -> tuple[Sample, Reply | None]:
        """Send one request now; the time is counted from ``due`` on the clock of ``time.perf_counter``."""
        connection = self._idle.pop() if self._idle else Connection(self._port)
        try:
            reply = await connection.send(request)
        except OSError:
            return Sample(due, time.perf_counter(), UNANSWERED, counts=counts), None
        except asyncio.CancelledError:
            connection.close()
            raise
        ended = time.perf_counter()
        self._idle.append(connection)
        good = reply.status == 200 and reply.body.startswith(PNG)
        return Sample(due, ended, reply.status, good, "retry-after" in reply.headers, counts), reply

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()


async def closed_loop(
    target: Target, next_request: Callable[[], Request | None], clients: int, seconds: float
) -> list[Sample]:
    """``clients`` that each send the next request when the last one was answered, for ``seconds`` or until there is
    none, but one at the least. What was sent by then is waited for. Who is refused waits as long as it was told."""
    end = time.perf_counter() + seconds
    samples: list[Sample] = []

    async def client() -> None:
        first = True  # even where the time is over before a client had its turn
        while (first or time.perf_counter() < end) and (request := next_request()) is not None:
            first = False
            sample, reply = await target.ask(request, time.perf_counter())
            samples.append(sample)
            if not sample.good:
                told = reply.headers.get("retry-after", "") if reply else ""
                pause = float(told) if told.isdigit() else 0.0
                await asyncio.sleep(min(max(LEAST_PAUSE_S, pause), max(0.0, end - time.perf_counter())))

    await asyncio.gather(*(client() for _ in range(clients)))
    return samples


async def open_loop(
    target: Target, request: Request, times: Sequence[float], *, standing: int, seconds: float, grace_s: float
) -> list[Sample]:
    """Send at ``times`` after now, however many are unanswered; wait ``grace_s`` beyond ``seconds`` for the rest.

    ``standing`` requests go out at once before, and do not count for latencies.
    """
    begun = time.perf_counter()
    first = [asyncio.create_task(target.ask(request, begun, counts=False)) for _ in range(standing)]
    tasks = [(begun, task) for task in first]
    for after in times:
        due = begun + after
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append((due, asyncio.create_task(target.ask(request, due))))
    limit = max(0.0, begun + seconds + grace_s - time.perf_counter())
    if tasks:
        await asyncio.wait([task for _, task in tasks], timeout=limit)
    samples = []
    for number, (due, task) in enumerate(tasks):
        counts = number >= standing
        if task.done():
            samples.append(task.result()[0])
        else:
            task.cancel()
            samples.append(Sample(due, time.perf_counter(), UNANSWERED, counts=counts))
    await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
    return samples


async def probing(port: int, path: str, every_s: float, found: list[Sample]) -> None:
    """Have ``path`` asked for every ``every_s`` seconds until cancelled, each counted from when it was due."""
    command = (sys.executable, "-m", "service.bench.probe", str(port), path, str(every_s))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    try:
        await process.wait()
    finally:
        out, _ = await process.communicate(b"")  # which closes its standard input
        found += [Sample(0.0, milliseconds / 1000, status) for milliseconds, status in json.loads(out or b"[]")]


async def beside(work: Coroutine[Any, Any, list[Sample]], *watchers: Coroutine[Any, Any, None]) -> list[Sample]:
    """The samples of ``work``, with ``watchers`` running as long as it does."""
    tasks = [asyncio.create_task(watcher) for watcher in watchers]
    try:
        return await work
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
