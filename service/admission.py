"""Admission: how much may be held in memory at one time, all requests together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import OverloadedError


class Allowance:
    """A bounded amount of something (bytes, pixels). Owned by the event loop, so it needs no lock."""

    def __init__(self, limit: int, unit: str, retry_after: Callable[[], int] = lambda: 1) -> None:
        self.limit = limit
        self.held = 0
        self._unit = unit
        self._retry_after = retry_after

    def take(self, amount: int) -> None:
        """Take ``amount`` or raise OverloadedError; never waits, for who waits holds memory too."""
        if self.held + amount > self.limit:
            raise OverloadedError(
                f"{self.held} of {self.limit} {self._unit} are in use and this request needs {amount}; retry later",
                reason=self._unit.replace(" ", "_"),
                retry_after=self._retry_after(),
            )
        self.held += amount

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        self.held -= amount

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Take ``amount`` for the length of a block."""
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)
