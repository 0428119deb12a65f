"""The ladder: adaptive attacks on one defence, from the cheapest to the dearest, each on what still stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustness.adaptive import aware
from robustness.adversaries import Threat
from robustness.attacks.pgd import PGD
from robustness.defences import Defence
from robustness.judgement import judge
from robustness.observations import Observation, Scenario
from robustness.report import LEAST
from robustness.scores import accuracy
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.victims.classification import Classifier

TABLE = "overview"
UNAWARE = "all unaware attacks"
COUNTS = "minimum with all attacks above and at smaller budgets"


@dataclass(frozen=True)
class Ladder:
    """What adaptive attackers leave, image by image.

    ``standing`` (N,) bool withstood those who know the defence; ``left`` withstood those who do not as well.
    """

    observations: list[Observation]
    standing: Tensor
    left: Tensor


def climb(
    session: Session,
    arena: Arena,
    victim: Classifier,
    defence: Defence,
    eps: int,
    *,
    unaware: Sequence[Observation] = (),
    below: Ladder | None = None,
) -> Ladder:
    """The adaptive attacks on ``defence`` at ``eps``, each on the images that withstood those before it.

    Whoever may change pixels by ``eps`` may change them by less, so what fell on the ladder ``below``, of a smaller
    budget, has fallen. Every row counts all images, and is the minimum so far, image by image. Knowing a defence
    forbids nobody the attacks that need no knowledge: the last row is the minimum with ``unaware`` observations of
    this victim, defence and eps too.
    """
    standing = below.standing if below else torch.ones(len(arena.bench.examples), dtype=torch.bool)
    observations: list[Observation] = []
    for threat in ladder(session, defence, victim, eps):
        count = int(standing.sum())
        if count:
            standing = _tried(session, arena, threat, victim, defence, standing)
        observations.append(_seen(threat.scenario, victim, defence, standing))
        facts = {"attack": repr(threat.attack), "attacked": count, "counts": COUNTS}
        _record(session, arena, observations[-1], defence, facts)
    left = standing & below.left if below else standing.clone()
    for seen in unaware:
        left &= seen.correct[: len(left)]
    names = [seen.scenario.attack for seen in observations]
    if unaware:
        alone = torch.stack([seen.correct[: len(left)] for seen in unaware]).all(dim=0)
        observations.append(_seen(Scenario(UNAWARE, eps, "aware"), victim, defence, alone))
        _record(session, arena, observations[-1], defence, {"attacks": sorted(_titles(unaware))})
        names.append(UNAWARE)
    observations.append(_seen(Scenario(LEAST, eps, "aware"), victim, defence, left))
    _record(session, arena, observations[-1], defence, {"attacks": names, "counts": COUNTS})
    return Ladder(observations, standing, left)


def _titles(seen: Sequence[Observation]) -> set[str]:
    return {one.scenario.title for one in seen}


def _tried(
    session: Session, arena: Arena, threat: Threat, victim: Classifier, defence: Defence, standing: Tensor
) -> Tensor:
    """Which images (N,) still stand after ``threat`` was made on those that stood."""
    places = standing.nonzero().flatten()
    part = replace(arena, bench=replace(arena.bench, examples=arena.bench.examples.pick(places)))
    (seen,) = judge(part.bench, session.attack(part, threat, (victim,)), defence)
    left = torch.zeros_like(standing)
    left[places] = seen.correct
    return left


def _seen(scenario: Scenario, victim: Classifier, defence: Defence, standing: Tensor) -> Observation:
    return Observation(scenario, victim.name, defence.name, defence.role, accuracy(standing))


def _record(session: Session, arena: Arena, seen: Observation, defence: Defence, facts: dict[str, object]) -> None:
    trial = session.clean(arena, [victim for victim in arena.victims if victim.name == seen.victim])
    known = {"precision": arena.bench.conditions.precision, **facts}
    evidence = session.evidence(arena, trial, defence, seen.victim, known, 0.0)
    session.recorder.add(Place(TABLE), arena.task, seen, evidence)


def ladder(session: Session, defence: Defence, victim: Classifier, eps: int) -> Iterator[Threat]:
    """The adaptive attacks on ``defence`` at ``eps``, cheapest first. The suite imagenet has the whole protocol."""
    steps = session.sizes.aware_steps
    yield aware(PGD(eps, iterations=steps), defence, victim, "BPDA")
    if defence.differentiable:
        yield aware(PGD(eps, iterations=steps), defence, victim, "full-gradient")
