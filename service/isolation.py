"""A batch whose members fail alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.errors import OutOfDeviceMemoryError

P = TypeVar("P")
R = TypeVar("R")

Run = Callable[[list[P]], Sequence[R | Exception]]


def run_isolated(run: Run[P, R], members: list[P]) -> list[R | Exception]:
    """One outcome a member: ``run`` on all of them; if that raises, in parts.

    Out of memory: two halves, each again in this way. Anything else: one by one, so that only the member that
    cannot be run gets the exception.
    """
    try:
        return _one_each(run(members), members)
    except Exception as error:  # noqa: BLE001 - it is handed to the member it belongs to
        if len(members) == 1:
            return [error]
        size = -(-len(members) // 2) if isinstance(error, OutOfDeviceMemoryError) else 1
        parts = [members[start : start + size] for start in range(0, len(members), size)]
        return [outcome for part in parts for outcome in run_isolated(run, part)]


def _one_each(outcomes: Sequence[R | Exception], members: list[P]) -> list[R | Exception]:
    """A short answer would leave somebody waiting for ever."""
    if len(outcomes) != len(members):
        raise RuntimeError(f"run gave {len(outcomes)} outcomes for {len(members)} members")
    return list(outcomes)
