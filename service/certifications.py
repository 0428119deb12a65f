"""The certifications in progress: few at a time, and never two of their chunks in the device's queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.admission import Allowance
from service.batcher import Batcher
from service.certification import Certification
from service.engine import Engine
from service.job import Answer, Job

# Until its first chunk is done nobody knows how long a certification takes.
UNKNOWN_RETRY_AFTER = 30


class Pace:
    """How fast one certification goes. Seconds of this process."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._share = 0.0

    def note(self, done: int, of: int) -> None:
        """``done`` of ``of`` noisy copies have been asked about."""
        self._share = done / of

    @property
    def seconds_left(self) -> float | None:
        """What is left at the pace so far; None before the first chunk."""
        if self._share == 0:
            return None
        return (time.monotonic() - self._begun) * (1 / self._share - 1)


class Certifications:
    """At most ``limit`` at a time. Owned by the event loop.

    Their chunks take turns among themselves, and the device's thread takes them in turn with the batches of everyone
    else: whoever waits for the device waits for one chunk more than without certifications, however many there are.
    """

    def __init__(self, limit: int) -> None:
        self._allowance = Allowance(limit, "certifications", self.retry_after)
        self._paces: set[Pace] = set()
        self._turn = asyncio.Lock()

    @contextmanager
    def admitted(self) -> Iterator[Pace]:
        """A place for the length of a block. Raises OverloadedError where all are taken."""
        with self._allowance.holding(1):
            pace = Pace()
            self._paces.add(pace)
            try:
                yield pace
            finally:
                self._paces.discard(pace)

    @property
    def running(self) -> int:
        """How many there are now."""
        return len(self._paces)

    def retry_after(self) -> int:
        """Whole seconds until the first of them should be done."""
        left = [UNKNOWN_RETRY_AFTER if pace.seconds_left is None else pace.seconds_left for pace in self._paces]
        return max(1, math.ceil(min(left, default=1)))

    async def advance(self, certification: Certification, engine: Engine, batcher: Batcher[Job, Answer]) -> None:
        """One chunk more. Raises EngineStoppedError and what the chunk raises; cancelling gives the chunk up."""
        async with self._turn:
            await batcher.on_device(lambda: certification.advance(engine))
