"""The report: what a run saw, as accuracies with intervals, clean accuracy kept, and margins over the baselines.

A photo's score is the share of victims that got it right; averages over victims are means of scores, and their
Wilson intervals stand on the number of photos alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustness.defences import Role
from robustness.intervals import paired, wilson
from robustness.observations import CLEAN, Measurements, Observation, Scenario
from robustness.scores import accuracy

AVERAGE = "average of victims"
LEAST = "least of the adaptive attacks"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """``percent`` of ``count`` photos, with its Wilson 95 % interval; ``correct`` is fractional in an average."""

    attack: str
    eps: int
    victim: str
    defence: str
    role: Role
    correct: float
    count: int
    percent: float
    interval: Interval

    @property
    def scenario(self) -> Scenario:
        """What was done to the photos."""
        return Scenario(self.attack, self.eps) if self.eps else CLEAN


@dataclass(frozen=True)
class Kept:
    """Defended over undefended clean accuracy, in percent."""

    victim: str
    defence: str
    percent: float
    count: int


@dataclass(frozen=True)
class Margin:
    """Points by which a purifier is above the best baseline, by the average of victims, with a paired 95 % interval.

    ``attack`` "average of attacks" is the mean of the margins of one eps, each over the baseline that is best there.
    """

    defence: str
    attack: str
    eps: int
    baseline: str
    points: float
    count: int
    interval: Interval


@dataclass(frozen=True)
class Report:
    """All figures of a run. ``adaptive`` is of the attackers who know the purifier, on fewer photos."""

    accuracies: tuple[Accuracy, ...]
    kept: tuple[Kept, ...]
    margins: tuple[Margin, ...]
    adaptive: tuple[Accuracy, ...]
    warnings: tuple[str, ...]


def summarise(measurements: Measurements) -> Report:
    """The figures of a run."""
    observations = measurements.observations
    accuracies = _accuracies(observations)
    aware = [*measurements.aware, *_least(measurements.aware)]
    kept, warnings = _kept(accuracies)
    return Report(
        accuracies=tuple(accuracies),
        kept=tuple(kept),
        margins=tuple(_margins(observations)),
        adaptive=tuple(_accuracies(aware)),
        warnings=(*measurements.warnings, *warnings),
    )


def accuracy_of(scenario: Scenario, victim: str, defence: str, role: Role, scores: Tensor) -> Accuracy:
    """The accuracy that ``scores`` (N,) in [0,1] amount to."""
    correct, count = float(scores.double().sum()), len(scores)
    low, high = wilson(correct, count)
    interval = (100 * low, 100 * high)
    return Accuracy(
        scenario.attack, scenario.eps, victim, defence, role, correct, count, 100 * correct / count, interval
    )


def _accuracies(observations: Sequence[Observation]) -> list[Accuracy]:
    """One of the average of victims for each scenario and defence, then one for each victim."""
    averages = [
        accuracy_of(members[0].scenario, AVERAGE, members[0].defence, members[0].role, _scores(members))
        for members in _grouped(observations).values()
    ]
    each = [accuracy_of(o.scenario, o.victim, o.defence, o.role, o.correct) for o in observations]
    several = len({o.victim for o in observations}) > 1
    return [*averages, *each] if several else each


def _grouped(observations: Iterable[Observation]) -> dict[tuple[Scenario, str], list[Observation]]:
    groups: dict[tuple[Scenario, str], list[Observation]] = {}
    for observation in observations:
        groups.setdefault((observation.scenario, observation.defence), []).append(observation)
    return groups


def _scores(members: Sequence[Observation]) -> Tensor:
    return torch.stack([member.correct for member in members]).double().mean(dim=0)


def _least(aware: Sequence[Observation]) -> list[Observation]:
    """A photo withstands an adaptive attacker only if it withstands every adaptive attack on its victim."""
    groups: dict[tuple[str, int, str], Observation] = {}
    for seen in aware:
        key = (seen.victim, seen.scenario.eps, seen.defence)
        so_far = groups.get(key)
        correct = seen.correct if so_far is None else so_far.correct & seen.correct
        groups[key] = replace(seen, scenario=Scenario(LEAST, seen.scenario.eps, "aware"), score=accuracy(correct))
    return list(groups.values())


def _kept(accuracies: Sequence[Accuracy]) -> tuple[list[Kept], list[str]]:
    clean = [accuracy for accuracy in accuracies if accuracy.scenario == CLEAN]
    undefended = {accuracy.victim: accuracy for accuracy in clean if accuracy.role == "none"}
    kept, warnings = [], []
    for victim, bare in undefended.items():
        if bare.correct == 0:
            warnings.append(f"{victim}: not one clean photo is classified right; nothing can be said to be kept")
            continue
        kept += [
            Kept(victim, accuracy.defence, 100 * accuracy.correct / bare.correct, accuracy.count)
            for accuracy in clean
            if accuracy.victim == victim and accuracy.role != "none"
        ]
    return kept, warnings


def _margins(observations: Sequence[Observation]) -> list[Margin]:
    found: list[Margin] = []
    attacked = _grouped(o for o in observations if o.scenario != CLEAN)
    for defence in dict.fromkeys(o.defence for o in observations if o.role == "purifier"):
        for eps in sorted({scenario.eps for scenario, _ in attacked}):
            leads: list[Tensor] = []
            for scenario in dict.fromkeys(scenario for scenario, _ in attacked if scenario.eps == eps):
                baselines = {
                    name: _scores(members)
                    for (where, name), members in attacked.items()
                    if where == scenario and members[0].role == "baseline"
                }
                best = max(baselines, key=lambda name: float(baselines[name].sum()))
                leads.append(_scores(attacked[scenario, defence]) - baselines[best])
                found.append(_margin(defence, scenario, best, leads[-1]))
            found.append(_margin(defence, Scenario("average of attacks", eps), "best each", torch.stack(leads).mean(0)))
    return found


def _margin(defence: str, scenario: Scenario, baseline: str, lead: Tensor) -> Margin:
    low, high = paired(lead)
    points, interval = 100 * float(lead.mean()), (100 * low, 100 * high)
    return Margin(defence, scenario.attack, scenario.eps, baseline, points, len(lead), interval)
