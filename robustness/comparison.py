"""Comparison: a purifier beside the best baseline and beside no attack at all, photo by photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.errors import EvaluationError
from robustness.intervals import paired, share_interval
from robustness.observations import CLEAN, Observation, Scenario

Interval = tuple[float, float]
Measured = tuple[float, Interval]


@dataclass(frozen=True)
class Comparison:
    """Scores (N,) in [0,1] of the same photos, each the mean over the same victims.

    ``clean`` is of untouched photos without a defence; ``undefended`` (None for attackers who know the defence, who
    have none to know there), ``defended`` and the ``baselines`` by name are under one attack.
    """

    clean: Tensor
    undefended: Tensor | None
    defended: Tensor
    baselines: Mapping[str, Tensor]

    @property
    def best(self) -> str | None:
        """The baseline that keeps most, None where none was attacked."""
        return max(self.baselines, key=lambda name: float(self.baselines[name].sum()), default=None)

    def points(self) -> Measured | None:
        """By how many points the purifier is above the best baseline, and the paired 95 % interval."""
        if self.best is None:
            return None
        lead = self.defended - self.baselines[self.best]
        low, high = paired(lead)
        return 100 * float(lead.mean()), (100 * low, 100 * high)

    def share(self) -> Measured | None:
        """What is left, in percent of ``clean``, and its 95 % interval; None where nothing was right to begin with."""
        if not self.clean.any():
            return None
        low, high = share_interval(self.defended, self.clean)
        return 100 * float(self.defended.mean() / self.clean.mean()), (100 * low, 100 * high)


def compare(observations: Sequence[Observation], scenario: Scenario, defence: str) -> Comparison | None:
    """The comparison under ``scenario``; None where the observations have none of ``defence``.

    Raises EvaluationError where the victims of ``defence`` were not judged clean without it.
    """
    attacked = [seen for seen in observations if seen.scenario == scenario]
    behind: dict[str, dict[str, Tensor]] = {}
    roles: dict[str, str] = {}
    for seen in attacked:
        behind.setdefault(seen.defence, {})[seen.victim] = seen.each
        roles[seen.defence] = seen.role
    if defence not in behind:
        return None
    victims = list(behind[defence])
    bare = {seen.victim: seen.each for seen in observations if seen.scenario == CLEAN and seen.role == "none"}
    if not set(victims) <= set(bare):
        raise EvaluationError(
            f"{', '.join(sorted(set(victims) - set(bare)))}: no clean score; judge clean photos first"
        )

    def mean(scores: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([scores[victim].double() for victim in victims]).mean(dim=0)

    defended = mean(behind[defence])
    undefended = next((mean(behind[name]) for name, role in roles.items() if role == "none"), None)
    baselines = {name: mean(behind[name]) for name, role in roles.items() if role == "baseline"}
    return Comparison(mean(bare)[: len(defended)], undefended, defended, baselines)
