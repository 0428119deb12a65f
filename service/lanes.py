"""Lanes: the runs that a device takes side by side, and how many threads each of them has.

A GPU has one lane, which runs batches. A CPU has one a core: there an image costs what it costs, in a batch or not, and
threads that work on one image together wait for each other. Only a long run that is alone has all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# A run of fewer operations (a quarter of a second of one core) is as soon done by one thread as by several, which would
# spin while they wait for each other and keep others waiting.
LONG_OPERATIONS = 2e10
# Runs that follow each other closely leave gaps in which one is alone; those must not count.
CROWDED_S = 0.2


def choose_lanes(chosen: int, device: torch.device, threads: int) -> int:
    """How many runs go side by side; ``chosen`` 0: as many as there are threads on a CPU, else one."""
    return chosen or (threads if device.type == "cpu" else 1)


class Crowd:
    """Gives each run its share of the CPU's ``threads``: all to a long one that is alone, else one."""

    def __init__(self, lanes: int, threads: int) -> None:
        self._lanes = lanes
        self.threads = threads
        self._lock = threading.Lock()
        self._running = 0
        self._overlapped = float("-inf")
        self._here = threading.local()

    def alone(self) -> bool:
        """Whether the run of this thread has the device to itself, or there is none."""
        return bool(getattr(self._here, "alone", True))

    @contextmanager
    def entered(self, operations: float) -> Iterator[None]:
        """For the length of a run of so many: what PyTorch takes for this thread's number of threads is its share."""
        if self._lanes == 1:
            yield
            return
        with self._lock:
            self._running += 1
            now = time.monotonic()
            if self._running > 1:
                self._overlapped = now
            alone = now - self._overlapped > CROWDED_S
        self._here.alone = alone
        torch.set_num_threads(self.threads if alone and operations >= LONG_OPERATIONS else 1)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
