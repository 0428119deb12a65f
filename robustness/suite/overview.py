"""The overview: every attack on every classifier behind every defence, and what an attacker who knows leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustness.adaptive import Method, Through, aware
from robustness.adversaries import Threat
from robustness.attacks.autoattack import AutoAttack
from robustness.attacks.pgd import PGD
from robustness.attacks.square import Square
from robustness.defences import Defence, Jpeg, Purification
from robustness.judgement import judge
from robustness.observations import Observation, Scenario
from robustness.report import LEAST
from robustness.scores import accuracy
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.suite.threats import transfers, white_boxes
from robustness.victims.classification import Classifier

OVERVIEW = Place("overview")
EOT = 20
QUERIES = 1000


def unaware(session: Session, arena: Arena) -> list[Observation]:
    """Clean, white-box and transfer rows, all defences."""
    defences = (*session.defences, *session.purified)
    found = session.measure(arena, session.clean(arena), defences, OVERVIEW)
    for victim, threat in white_boxes(session, arena.victims):
        found += session.measure(arena, session.attack(arena, threat, (victim,)), defences, OVERVIEW)
    for threat in transfers(session, arena):
        others = tuple(victim for victim in arena.victims if victim.name != threat.target)
        found += session.measure(arena, session.attack(arena, threat, others), defences, OVERVIEW)
    return found


@dataclass(frozen=True)
class Ladder:
    """What adaptive attackers leave, image by image: ``standing`` (N,) bool withstood all of them so far."""

    observations: list[Observation]
    standing: Tensor


def knowing(session: Session, arena: Arena) -> list[Observation]:
    """Attackers who know the defence, on the purifier's default mode and on the baseline that does best unaware."""
    few = arena.first(session.sizes.aware_photos)
    found: list[Observation] = []
    for victim in arena.classifiers():
        for eps in session.sizes.aware_eps:
            for defence in (session.purified[0], Jpeg(20)):
                found += climb(session, few, victim, defence, eps).observations
    _unclimbed(session, arena)
    return found


def _unclimbed(session: Session, arena: Arena) -> None:
    """Rows that say where no one who knows the purifier was let loose on it."""
    sizes, default = session.sizes, session.purified[0]
    reason = (
        f"suite {session.recorder.suite} lets attackers who know the purifier loose on its default mode, at eps "
        f"{', '.join(map(str, sizes.aware_eps))}"
    )
    for victim in arena.classifiers():
        for eps in sizes.eps:
            for defence in session.purified:
                if defence is not default or eps not in sizes.aware_eps:
                    scenario = Scenario(LEAST, eps, "aware")
                    weights = {session.purifier: defence.weights}
                    session.recorder.lack(OVERVIEW, arena.task, scenario, victim.name, defence, reason, weights)


def climb(session: Session, arena: Arena, victim: Classifier, defence: Defence, eps: int) -> Ladder:
    """Adaptive attacks from the cheapest to the dearest, each on the images that withstood those before it.

    Every row counts all images, those that fell before as fallen: it is the minimum so far, image by image. The last
    row is the minimum over all.
    """
    standing = torch.ones(len(arena.bench.examples), dtype=torch.bool)
    observations: list[Observation] = []
    for threat in ladder(session, defence, victim, eps):
        attacked = int(standing.sum())
        if attacked:
            standing = _tried(session, arena, threat, victim, defence, standing)
        observations.append(_seen(threat.scenario, victim, defence, standing))
        facts = {"attack": repr(threat.attack), "attacked": attacked, "counts": "minimum with all attacks above"}
        _record(session, arena, observations[-1], defence, facts)
    observations.append(_seen(Scenario(LEAST, eps, "aware"), victim, defence, standing))
    _record(
        session, arena, observations[-1], defence, {"attacks": [seen.scenario.attack for seen in observations[:-1]]}
    )
    return Ladder(observations, standing)


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
    evidence = session.evidence(arena, trial, defence, seen.victim, facts, 0.0)
    session.recorder.add(OVERVIEW, arena.task, seen, evidence)


def ladder(session: Session, defence: Defence, victim: Classifier, eps: int) -> Iterator[Threat]:
    """The adaptive attacks on ``defence`` at ``eps``, cheapest first; the suite's sizes say how far up it goes."""
    steps, heavy = session.sizes.aware_steps, session.sizes.heavy_aware
    exact: Method = "full-gradient" if defence.differentiable else "BPDA"
    blind = Through(PGD(eps), f"blind {PGD(eps).name}")
    yield Threat(blind, victim.name, victim.identity, victim.knowledge, "aware")
    yield aware(PGD(eps, iterations=steps), defence, victim, "BPDA")
    if exact == "full-gradient":
        yield aware(PGD(eps, iterations=steps), defence, victim, exact)
    if not heavy:
        return
    yield aware(PGD(eps, iterations=steps, step=max(0.5, eps / 10)), defence, victim, exact)
    if isinstance(defence, Purification):
        static = _static(session, defence)
        yield aware(PGD(eps, iterations=steps), defence, victim, "BPDA-substitute", substitute=static)
        if not defence.mode.static:
            yield aware(PGD(eps, iterations=EOT), defence, victim, exact, eot=EOT)
    standard = AutoAttack(eps) if defence.draw_count == 1 else AutoAttack(eps, "rand", iterations=EOT)
    yield aware(standard, defence, victim, exact)
    yield aware(Square(eps, queries=QUERIES), defence, victim, "BPDA")


def _static(session: Session, defence: Purification) -> Defence:
    """The purifier without its noise: what an attacker would differentiate who gave up on averaging draws."""
    for candidate in session.purified:
        if candidate.mode.static:
            return candidate
    return defence.with_draws(1)
