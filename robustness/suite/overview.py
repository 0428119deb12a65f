"""The overview: every attack on every classifier behind every defence, and what an attacker who knows leaves."""

from __future__ import annotations

from collections.abc import Sequence

from robustness.defences import Defence, Jpeg
from robustness.observations import Observation, Scenario
from robustness.report import LEAST
from robustness.suite.ladder import TABLE, Ladder, climb
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.suite.threats import named, transfers, unknowable, white_boxes


def unaware(session: Session, arena: Arena) -> list[Observation]:
    """Clean, white-box and transfer rows, all defences."""
    defences, place = (*session.defences, *session.purified), Place(TABLE)
    found = session.measure(arena, session.clean(arena), defences, place)
    for victim, threat in white_boxes(session, arena.victims):
        found += session.measure(arena, session.attack(arena, threat, (victim,)), defences, place)
    for threat in transfers(session, arena):
        others = tuple(victim for victim in arena.victims if victim.name != threat.target)
        found += session.measure(arena, session.attack(arena, threat, others), defences, place)
    _lack_labels(session, arena, defences)
    return found


def _lack_labels(session: Session, arena: Arena, defences: Sequence[Defence]) -> None:
    reason = f"{session.surrogate.name} tells other classes apart than the victims, so it has no loss to follow"
    for key in unknowable(session, arena):
        for eps in session.sizes.eps:
            scenario = Scenario(named(session, key, eps).name, eps, "transfer", session.surrogate.name)
            for victim in arena.classifiers():
                for defence in defences:
                    session.recorder.lack(Place(TABLE), arena.task, scenario, victim.name, defence, reason)


def knowing(session: Session, arena: Arena, seen: Sequence[Observation]) -> list[Observation]:
    """Attackers who know the defence, on the purifier's default mode and on JPEG 20, as a measure of what is usual.

    ``seen`` are the observations under unaware attackers; a minimum counts those as well.
    """
    few = arena.first(session.sizes.aware_photos)
    defences = (session.purified[0], Jpeg(20))
    found: list[Observation] = []
    for victim in arena.classifiers():
        for defence in defences:
            below: Ladder | None = None
            for eps in sorted(session.sizes.aware_eps):
                unaware = [o for o in seen if _is(o, victim.name, defence.name, eps)]
                below = climb(session, few, victim, defence, eps, unaware=unaware, below=below)
                found += below.observations
    _unclimbed(session, arena)
    return found


def _is(seen: Observation, victim: str, defence: str, eps: int) -> bool:
    """Whether this is of that victim and defence, attacked at ``eps`` or not at all."""
    return (seen.victim, seen.defence) == (victim, defence) and seen.scenario.eps in (0, eps)


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
                    session.recorder.lack(Place(TABLE), arena.task, scenario, victim.name, defence, reason, weights)
