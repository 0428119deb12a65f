"""Work for a client: only as long as it is there, and not past its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from service.errors import ClientDisconnectedError, DeadlineExceededError

T = TypeVar("T")


async def carry_out(request: Request, within_s: float, work: Callable[[float], Coroutine[Any, Any, T]]) -> T:
    """The result of ``work``, which is given its deadline in event loop time. The body must have been read.

    Raises ClientDisconnectedError, DeadlineExceededError, and what ``work`` raises; either way only when the work
    has ended, so that what it held has been given back.
    """
    deadline = asyncio.get_running_loop().time() + within_s
    try:
        async with asyncio.timeout_at(deadline):
            return await while_connected(request, work(deadline))
    except TimeoutError as error:
        raise DeadlineExceededError(f"no answer within {within_s:g} s; retry later or send a smaller image") from error


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away. The body must have been read.

    Raises ClientDisconnectedError and what ``work`` raises, once the work has ended.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnectedError("the client went away before its answer was ready")
        return task.result()
    finally:
        both = {task, watch}
        for unfinished in both:
            unfinished.cancel()
        await asyncio.wait(both)
        for ended in both:  # whatever came of the one that lost the race counts as read
            _ = ended.cancelled() or ended.exception()


async def _disconnected(request: Request) -> None:
    """Return when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
