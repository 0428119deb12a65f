"""Timing: variants take turns, and medians are of what the clock said."""

from __future__ import annotations

import pytest
import torch

from training.gpu import clocking
from training.gpu.clocking import Timing, interleaved

CPU = torch.device("cpu")


class Fake:
    """A clock that only the timed calls move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def takes(self, name: str, *seconds: float) -> None:
        self.now += seconds[min(self.calls.count(name), len(seconds) - 1)]
        self.calls.append(name)


def test_variants_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(clocking, "time", fake)
    runs = {"slow": lambda: fake.takes("slow", 1.0), "fast": lambda: fake.takes("fast", 0.5)}
    found = interleaved(runs, CPU, 3)
    assert fake.calls[6:] == ["slow", "fast"] * 3  # after two to warm up and one to count how many are enough
    assert found["slow"].median == 1.0
    assert found["fast"].median == 0.5
    assert found["fast"].repeats == 3


def test_quick_calls_are_repeated_until_the_clock_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(clocking, "time", fake)
    found = interleaved({"quick": lambda: fake.takes("quick", 0.005)}, CPU, 2)
    assert len(fake.calls) == 3 + 2 * 4
    assert found["quick"].median == pytest.approx(0.005)


def test_the_first_slow_calls_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(clocking, "time", fake)
    found = interleaved({"warming": lambda: fake.takes("warming", 9.0, 9.0, 1.0)}, CPU, 3)
    assert found["warming"].median == 1.0


def test_facts_of_a_timing() -> None:
    facts = Timing(0.5, (0.4, 0.6), 5).facts(8)
    assert facts == {"milliseconds": 500.0, "quartiles": [400.0, 600.0], "images per second": 16.0, "repeats": 5}
