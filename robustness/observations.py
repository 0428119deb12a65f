"""Observations: which photos a victim got right, under which attack and behind which defence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustness.defences import Role


@dataclass(frozen=True)
class Scenario:
    """What was done to the photos: ``attack`` by name, within ``eps`` /255 (0: nothing)."""

    attack: str
    eps: int

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.attack}, eps {self.eps}/255" if self.eps else self.attack


CLEAN = Scenario("clean", 0)


@dataclass(frozen=True)
class Observation:
    """``correct`` (N,) bool: one entry a photo, in the order of the photos."""

    scenario: Scenario
    victim: str
    defence: str
    role: Role
    correct: Tensor


@dataclass(frozen=True)
class Measurements:
    """Everything a run saw. ``aware`` holds what attackers who know the purifier left standing."""

    observations: tuple[Observation, ...]
    aware: tuple[Observation, ...]
    warnings: tuple[str, ...]
