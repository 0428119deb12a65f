"""Observations: what victims scored, under which attack and behind which defence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from robustness.defences import Role
from robustness.scores import Score
from robustness.victims.victim import Answers

Attacker = Literal["none", "white box", "transfer", "aware"]


@dataclass(frozen=True)
class Scenario:
    """What was done to the images: ``attack`` by name, within ``eps`` /255 (0: nothing), by someone who knows what.

    ``surrogate`` names whose gradients were followed where that is not the victim.
    """

    attack: str
    eps: int
    attacker: Attacker = "white box"
    surrogate: str | None = None

    @property
    def title(self) -> str:
        """For a person."""
        if not self.eps:
            return self.attack
        source = f" from {self.surrogate}" if self.surrogate else ""
        return f"{self.attack}{source}, eps {self.eps}/255"


CLEAN = Scenario("clean", 0, "none")


@dataclass(frozen=True)
class Observation:
    """What ``victim`` scored; ``answers`` are what it said, one entry an image, in the order of the images."""

    scenario: Scenario
    victim: str
    defence: str
    role: Role
    score: Score
    answers: Answers = field(default_factory=dict, repr=False)

    @property
    def each(self) -> Tensor:
        """Every image's own score (N,) in [0,1]. Raises TypeError for a metric that has none, such as mAP."""
        if self.score.each is None:
            raise TypeError(f"{self.score.metric} is not a mean over images")
        return self.score.each

    @property
    def correct(self) -> Tensor:
        """Which images (N,) bool a classifier got right."""
        return self.each > 0


@dataclass(frozen=True)
class Measurements:
    """Everything a run saw. ``aware`` holds what attackers who know the purifier left standing."""

    observations: tuple[Observation, ...]
    aware: tuple[Observation, ...]
    warnings: tuple[str, ...]
