"""A figure of the protocol, and its way home from a bare machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from robustness.errors import EvaluationError
from robustness.scores import Score, accuracy


@dataclass(frozen=True)
class Figure:
    """One figure: what is left of ``attack`` at ``eps`` /255 (0: clean), by ``series``, beside its ``clean`` twin.

    ``series``: "single draw", "vote", "worst of R", and the vote's of a check: "EOT curve" (over ``x`` draws),
    "known noise". ``source`` names the defence that a transferred attack was made through. ``clean`` is the same
    series on the same photos as they are. ``settings`` say how it was measured.
    """

    attack: str
    eps: int
    series: str
    score: Score
    clean: Score
    source: str | None = None
    x: float | None = None
    settings: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, photo by photo, as JSON has it."""
        return {
            "attack": self.attack,
            "eps": self.eps,
            "series": self.series,
            "source": self.source,
            "x": self.x,
            "settings": self.settings,
            "percent": self.score.percent,
            "interval": list(self.score.interval),
            "each": _each(self.score),
            "clean": _each(self.clean),
        }


def figure_of(entry: Mapping[str, Any]) -> Figure:
    """What ``as_json`` wrote. Raises EvaluationError for anything else."""
    try:
        return Figure(
            str(entry["attack"]),
            int(entry["eps"]),
            str(entry["series"]),
            accuracy(torch.tensor(entry["each"], dtype=torch.float64)),
            accuracy(torch.tensor(entry["clean"], dtype=torch.float64)),
            entry["source"],
            entry["x"],
            dict(entry["settings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"this is no figure of the aware protocol ({error!r}); measure again") from error


def _each(score: Score) -> list[float]:
    return [] if score.each is None else [float(value) for value in score.each]
