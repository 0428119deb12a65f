"""What is measured of each arm, and when: phases, arrivals, and the time there is for them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LEAST_SECONDS = 2.0
MOST_SECONDS = 30.0
# Of the time left, what the answering of the last requests and the starting of servers take.
OVERHEAD = 0.4
# Requests sent at once before a rate that no server keeps up with, so that the queue is full from the start.
STANDING_QUEUE = 160
# What those get to be queued or refused before the first arrival: they come faster than any client's would.
SETTLE_S = 2.0


@dataclass(frozen=True)
class Phase:
    """``closed``: ``level`` clients, each of which sends when it has its answer. ``open``: arrivals at random times,
    ``level`` percent of the capacity on average, whether or not the server keeps up."""

    kind: Literal["closed", "open"]
    level: int

    @property
    def name(self) -> str:
        """As rows and tables have it."""
        return f"{self.level} client{'s' * (self.level > 1)}" if self.kind == "closed" else f"{self.level} %"

    @property
    def busy(self) -> bool:
        """Whether the server always has something to do."""
        return self.kind == "closed" or self.level > 100

    @property
    def full_load(self) -> bool:
        """Whether the server has all it can do, and a queue."""
        return self.level >= 32 if self.kind == "closed" else self.level > 100

    @property
    def standing_queue(self) -> int:
        """Requests sent at once before the first arrival."""
        return STANDING_QUEUE if self.kind == "open" and self.level >= 200 else 0


def phases(clients: Sequence[int], loads: Sequence[int]) -> tuple[Phase, ...]:
    """In rising order, the closed loops first, since the capacity comes from them."""
    closed = [Phase("closed", level) for level in sorted(set(clients))]
    return (*closed, *(Phase("open", level) for level in sorted(set(loads))))


def settling(phase: Phase, seconds: float) -> float:
    """Seconds of a phase before its first arrival."""
    return min(SETTLE_S, seconds / 4) if phase.standing_queue else 0.0


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Times in [0, seconds) of a Poisson process of ``rate`` a second. The seed makes them the same for every arm."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    times: list[float] = []
    now = chance.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += chance.expovariate(rate)
    return times


def seconds_each(left_s: float, phases_left: int) -> float:
    """How long the next phase may take, so that all that are left fit into the time."""
    return min(MOST_SECONDS, max(LEAST_SECONDS, left_s * (1 - OVERHEAD) / max(1, phases_left)))


def turns(arms: Sequence[str], rounds: int, seed: int) -> list[tuple[int, str]]:
    """(round, arm), each round in another order: a slow minute of the machine does not always hit the same arm."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    return [(number, arm) for number in range(rounds) for arm in chance.sample(list(arms), len(arms))]
