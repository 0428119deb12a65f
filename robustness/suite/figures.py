"""The paper's figure 1 as rows: how many answers an attack on one layer of another network changes."""

from __future__ import annotations

from dataclasses import replace

from robustness.adversaries import Threat
from robustness.defences import NoDefence
from robustness.judgement import judge
from robustness.observations import Observation
from robustness.scores import accuracy
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.victims.victim import Victim


def record_fooling(
    session: Session, arena: Arena, threat: Threat, victim: Victim, place: Place, *, layer: str, before: Observation
) -> None:
    """Record the share of the victim's answers, those ``before`` the attack, that ``threat`` changes."""
    trial = session.attack(arena, threat, (victim,))
    (after,) = judge(arena.bench, trial, NoDefence())
    said, says = (seen.answers["log_probabilities"].argmax(1) for seen in (before, after))
    fooled = replace(after, score=replace(accuracy(said != says), metric="fooling rate"))
    evidence = session.evidence(arena, trial, NoDefence(), victim.name, {"layer": layer}, 0.0)
    session.recorder.add(place, arena.task, fooled, evidence)
