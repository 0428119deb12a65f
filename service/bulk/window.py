"""A window over much work: some of it in progress, its results in order, and bounded by what it holds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def in_window(pieces: Iterable[Callable[[], Coroutine[Any, Any, T]]], size: int) -> AsyncGenerator[T, None]:
    """The results of ``pieces`` in their order; at most ``size`` are begun and not yet taken.

    Ends only when what it began has ended, however it ends. Close it (``contextlib.aclosing``): a generator that is
    left half way does not end by itself.
    """
    begun: deque[asyncio.Task[T]] = deque()
    try:
        for piece in pieces:
            if len(begun) == size:
                yield await _first(begun)
            begun.append(asyncio.create_task(piece()))
        while begun:
            yield await _first(begun)
    finally:
        for task in begun:
            task.cancel()
        if begun:
            await asyncio.wait(begun)
        for task in begun:  # nobody asks any more; what came of it counts as read
            _ = task.cancelled() or task.exception()


async def _first(begun: deque[asyncio.Task[T]]) -> T:
    """The oldest task's result; it stays in ``begun`` until it has one, so that it can be cancelled."""
    await asyncio.wait([begun[0]])
    return begun.popleft().result()


class Share:
    """How much of something one request may hold at a time; more than that only alone. Waits where there is no room."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, amount: int) -> AsyncIterator[None]:
        """Wait until ``amount`` fits, and hold it for the length of a block."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.held == 0 or self.held + amount <= self.limit)
            self.held += amount
        try:
            yield
        finally:
            self.held -= amount
            async with self._changed:
                self._changed.notify_all()
