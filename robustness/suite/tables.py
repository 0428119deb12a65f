"""The paper's tables, measured on this project's models and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robustness.adaptive import aware
from robustness.adversaries import white_box
from robustness.attacks.generated import PREFIX
from robustness.attacks.pgd import PGD
from robustness.defences import Defence, NoDefence
from robustness.judgement import Trial, judge
from robustness.observations import Observation, Scenario
from robustness.results.row import Task
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.suite.threats import PERTURBERS, generated, named
from robustness.victims.classification import top
from robustness.victims.detection import Detector

TARGETED = "PGD-10 targeted"
UNDEFENDED = (NoDefence(),)
PAPER_EPS = 16
# A second place for SSP beside the paper's conv3-3: scenes are small here, and shallower features hurt them more.
SHALLOW = ("relu2-2", "features.8")


def table_4(session: Session, arena: Arena) -> None:
    """SSP against CDA on detection; a row for each generator that the store lacks says so."""
    for eps in (8, PAPER_EPS):
        for threat in (session.surrogate.threat(named(session, "SSP", eps)), *generated(session, eps)):
            session.measure(arena, session.attack(arena, threat, arena.victims), UNDEFENDED, Place("T4"))
        for name in sorted(set(PERTURBERS) - set(session.store.names())):
            scenario = Scenario(f"CDA {name.removeprefix(PREFIX)}", eps, "transfer")
            for victim in arena.victims:
                reason = f"the store holds no generator {name}; train it with `nrp train perturber`"
                session.recorder.lack(Place("T4"), arena.task, scenario, victim.name, NoDefence(), reason)


def table_5(session: Session, arena: Arena) -> None:
    """Clean top-1 and top-5 accuracy of the classifiers."""
    trial = session.clean(arena)
    for seen in judge(arena.bench, trial, NoDefence()):
        for metric, places in (("top-1", 1), ("top-5", 5)):
            score = replace(top(seen.answers, trial.examples.truths, places), metric=metric)
            observation = replace(seen, score=score)
            evidence = session.evidence(arena, trial, NoDefence(), seen.victim, {"places": places}, 0.0)
            session.recorder.add(Place("T5", metric), arena.task, observation, evidence)


def transformations(session: Session, arena: Arena, table: str) -> list[Observation]:
    """Tables 6 and 7: SSP at 8 and 16/255 on segmentation or detection, behind every transformation and purifier.

    Beside the paper's columns stand SSP on shallower features and, on fewer scenes and at 16/255, the victim's own
    white box and an attacker who knows the purifier.
    """
    defences = (*session.defences, *session.purified)
    found = session.measure(arena, session.clean(arena), defences, Place(table))
    for eps in (8, PAPER_EPS):
        if eps not in session.sizes.scene_eps:
            _left_out(session, arena, eps, defences, table)
            continue
        found += session.measure(arena, features_attacked(session, arena, eps), defences, Place(table))
        trial = features_attacked(session, arena, eps, SHALLOW[1])
        found += session.measure(arena, trial, defences, Place(table, SHALLOW[0]), layer=SHALLOW[1])
    return found + _known_victims(session, arena.spread(session.sizes.aware_scenes), defences, table)


def _left_out(session: Session, arena: Arena, eps: int, defences: Sequence[Defence], table: str) -> None:
    """Rows that say that this suite makes no SSP at ``eps``: the paper's tables have a column for it."""
    there = ", ".join(map(str, session.sizes.scene_eps))
    reason = f"suite {session.recorder.suite} attacks scenes at eps {there} alone"
    scenario = session.surrogate.threat(named(session, "SSP", eps)).scenario
    for victim in arena.victims:
        for defence in defences:
            session.recorder.lack(Place(table), arena.task, scenario, victim.name, defence, reason)


def _known_victims(session: Session, arena: Arena, defences: Sequence[Defence], table: str) -> list[Observation]:
    """PGD on the victim by itself, judged behind every defence, and through each purifier."""
    found: list[Observation] = []
    attack = PGD(PAPER_EPS)
    for victim in arena.victims:
        if isinstance(victim, Detector) and not hasattr(victim.module, "losses"):
            continue  # a program has no gradient to follow
        trial = session.attack(arena, white_box(attack, victim), (victim,))
        found += session.measure(arena, trial, defences, Place(table))
        for defence in session.purified:
            trial = session.attack(arena, aware(attack, defence, victim, "full-gradient"), (victim,))
            found += session.measure(arena, trial, (defence,), Place(table))
    return found


def features_attacked(session: Session, arena: Arena, eps: int, layer: str | None = None) -> Trial:
    """SSP on the surrogate's features, the paper's or those of ``layer`` (a submodule's name)."""
    surrogate = session.surrogate if layer is None else session.surrogate_at(layer)
    return session.attack(arena, surrogate.threat(named(session, "SSP", eps)), arena.victims)


TABLE_OF: tuple[tuple[Task, str], ...] = (("segmentation", "T6"), ("detection", "T7"))
