"""The suite's self-checks: measurements made only to find out whether the others can be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model_store.inference import seeded
from robustness.adaptive import aware
from robustness.adversaries import Threat, white_box
from robustness.attacks.attack import required
from robustness.attacks.pgd import PGD
from robustness.defences import Defence, NoDefence, Purification
from robustness.judgement import Trial, judge
from robustness.observations import Observation
from robustness.report import LEAST
from robustness.seeds import derive_seed
from robustness.selfchecks import (
    UNBOUNDED,
    draw_warnings,
    loss_warnings,
    masking_warnings,
    resubmission_warnings,
    resubmissions,
    transfer_warnings,
    unbounded_warnings,
)
from robustness.suite.ladder import UNAWARE
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.victims.classification import Classifier
from robustness.victims.victim import on

FEW = 16
ITERATIONS = (1, 10, 50)
LOSS_EPS = 8
DECISIONS = 4


def check_suite(session: Session, arena: Arena, seen: Sequence[Observation], known: Sequence[Observation]) -> None:
    """Add to the session's warnings whatever makes its classification figures doubtful.

    ``seen`` are the observations under unaware attackers, ``known`` those under attackers who know the defence.
    """
    white = [o for o in seen if o.scenario.attacker == "white box"]
    transfer = [o for o in seen if o.scenario.attacker == "transfer"]
    session.warnings.extend(transfer_warnings(white, transfer))
    informed = [o for o in known if o.scenario.attack not in (LEAST, UNAWARE)]
    session.warnings.extend(masking_warnings([o for o in seen if o.scenario.eps], informed))
    victim, purified = session.classifiers()[0], session.purified[0]
    few = arena.first(FEW)
    direct, through = _threats(victim, purified)
    _unbounded(session, few, victim, (direct(UNBOUNDED, 10), NoDefence()), (through(UNBOUNDED, 10), purified))
    for make in (direct, through):
        losses = {count: _final_loss(session, few, make(LOSS_EPS, count), victim) for count in ITERATIONS}
        session.warnings.extend(loss_warnings(make(LOSS_EPS, max(ITERATIONS)).title, losses))
    for defence in session.purified:
        resubmit(session, arena, victim, defence)


Make = Callable[[int, int], Threat]


def _threats(victim: Classifier, purified: Purification) -> tuple[Make, Make]:
    def direct(eps: int, iterations: int) -> Threat:
        return white_box(PGD(eps, iterations=iterations), victim)

    def through(eps: int, iterations: int) -> Threat:
        return aware(PGD(eps, iterations=iterations), purified, victim, "full-gradient")

    return direct, through


def _unbounded(session: Session, arena: Arena, victim: Classifier, *cases: tuple[Threat, Defence]) -> None:
    chance = 100 / len(victim.folders)
    for threat, defence in cases:
        trial = session.attack(arena, threat, (victim,))
        for seen in session.measure(arena, trial, (defence,), Place("checks", "unbounded attack")):
            session.warnings.extend(unbounded_warnings(seen, chance))


def _final_loss(session: Session, arena: Arena, threat: Threat, victim: Classifier) -> Tensor:
    """The attacker's own loss (N,) at its adversaries, under noise that is the same whatever the iterations."""
    conditions = arena.bench.conditions
    trial = session.attack(arena, threat, (victim,))
    truths = on(conditions.device, trial.examples.truths)
    known = threat.learn(truths, seeded(derive_seed(conditions.seed, "loss check")))
    loss = required(known.loss, "a loss", threat.title)
    with torch.no_grad(), conditions.autocast():
        return loss(conditions.floats(trial.examples.pixels)).float().cpu()


def resubmit(session: Session, arena: Arena, victim: Classifier, defence: Purification) -> None:
    """How much an attacker gains who may send the same image several times to a randomised defence."""
    if defence.mode.static:
        return
    title = f"{defence.name} on {victim.name}"
    session.warnings.extend(draw_warnings(title, defence.mode, draws=defence.draw_count, decisions=DECISIONS))
    clean = session.clean(arena, (victim,))
    hit = session.attack(arena, white_box(PGD(LOSS_EPS), victim), (victim,))
    votes = {trial.scenario.title: _decisions(session, arena, trial, defence) for trial in (clean, hit)}
    for trial in (clean, hit):
        (seen,) = judge(arena.bench, trial, defence)
        for series, score in resubmissions(votes[trial.scenario.title]).items():
            facts: dict[str, object] = {"decisions": DECISIONS}
            evidence = session.evidence(arena, trial, defence, victim.name, facts, 0.0)
            place = Place("checks", f"{series} of {DECISIONS}")
            session.recorder.add(place, arena.task, replace(seen, score=score), evidence)
    session.warnings.extend(resubmission_warnings(title, votes[hit.scenario.title], votes[clean.scenario.title]))


def _decisions(session: Session, arena: Arena, trial: Trial, defence: Purification) -> Tensor:
    """(R, N) bool: the defence's decision on every image, of fresh noise R times."""
    rounds = []
    for turn in range(DECISIONS):
        seed = session.recorder.conditions.seed + turn
        bench = replace(arena.bench, conditions=replace(arena.bench.conditions, seed=seed))
        (seen,) = judge(bench, trial, defence)
        rounds.append(seen.correct)
    return torch.stack(rounds)
