"""Timing on a device: medians of interleaved repeats, so that a slow moment hits every variant alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Run = Callable[[], object]
ENOUGH = 0.02  # seconds that one repeat takes at least, so that a clock's grain does not count
MOST_CALLS = 1000


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median over ``repeats``, and the quartiles."""

    median: float
    quartiles: tuple[float, float]
    repeats: int

    def facts(self, images: int) -> dict[str, object]:
        """For a row, of calls on ``images`` images."""
        return {
            "milliseconds": round(1000 * self.median, 4),
            "quartiles": [round(1000 * value, 4) for value in self.quartiles],
            "images per second": round(images / self.median, 1),
            "repeats": self.repeats,
        }


def interleaved(runs: Mapping[str, Run], device: torch.device, repeats: int) -> dict[str, Timing]:
    """Each of ``runs`` warmed up, then all in turn, ``repeats`` times."""
    calls = {name: _calls(run, device) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(seconds_of(run, device, calls[name]))
    return {name: _timing(values) for name, values in seconds.items()}


def seconds_of(run: Run, device: torch.device, calls: int) -> float:
    """Seconds a call of ``calls`` calls in a row; a GPU's own clock where there is one."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - began) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000 / calls


def _calls(run: Run, device: torch.device) -> int:
    """How many calls are enough, after two to warm up."""
    seconds_of(run, device, 2)
    return max(1, min(MOST_CALLS, round(ENOUGH / max(1e-9, seconds_of(run, device, 1)))))


def _timing(values: list[float]) -> Timing:
    if len(values) < 2:
        return Timing(values[0], (values[0], values[0]), len(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(statistics.median(values), (low, high), len(values))
