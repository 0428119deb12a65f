"""A circuit breaker: a server that fails again and again is left alone for a while, and its callers told so at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half-open", "open"]
Verdict = Literal["success", "failure", "neither"]


class Breaker:
    """Closed until ``failures`` in a row; then open for ``open_s`` seconds; then half-open: one attempt is let through,
    which closes it or opens it again. Only the event loop touches it."""

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    @property
    def retry_after(self) -> int:
        """Whole seconds, one at the least, after which asking again may help."""
        return max(1, math.ceil((self._open_until or 0.0) - self._clock()))

    def enter(self) -> bool:
        """Whether an attempt may be made now; where it may, ``leave`` must follow."""
        state = self.state
        if state == "open" or (state == "half-open" and self._probing):
            return False
        self._probing = state == "half-open"
        return True

    def leave(self, verdict: Verdict) -> None:
        """How an attempt ended; ``neither`` where that says nothing of the server."""
        probe, self._probing = self._probing, False
        if verdict == "success":
            self._failures, self._open_until = 0, None
        elif verdict == "failure":
            self._failures += 1
            if probe or self._failures >= self._limit:
                self._open_until = self._clock() + self._open_s
