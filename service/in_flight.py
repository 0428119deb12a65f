"""The requests in progress, for whoever changes what they rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class RequestsInFlight:
    """Knows when every request that is in progress now will have ended. Owned by the event loop."""

    def __init__(self) -> None:
        self._ends: set[asyncio.Event] = set()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count one request for the length of a block."""
        end = asyncio.Event()
        self._ends.add(end)
        try:
            yield
        finally:
            self._ends.discard(end)
            end.set()

    def now(self) -> frozenset[asyncio.Event]:
        """One event for each request in progress; it is set when the request ends."""
        return frozenset(self._ends)
