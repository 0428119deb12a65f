"""Rows: the protocol's figures as a suite records them, and as observations for whoever goes on with them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_store.folding import fold_batch_norms
from robustness.aware.defended import Defended, Mode
from robustness.aware.figure import Figure
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.aware.protocol import measure
from robustness.defences import Purification
from robustness.observations import CLEAN, Observation, Scenario
from robustness.suite.recorder import Evidence, Place, Recorder
from robustness.suite.session import Arena, Session
from robustness.victims.classification import Classifier

TABLE = "aware"


def defended_by(purification: Purification, victim: Classifier) -> Defended:
    """``victim`` behind ``purification``, with the mode's own number of draws; its batch norms are folded."""
    return Defended(
        purification.name,
        victim.name,
        Mode(**purification.mode.model_dump()),
        purification.weights,
        victim.identity,
        purification.module.purifier,
        fold_batch_norms(victim.module),
    )


@dataclass(frozen=True)
class Subject:
    """What figures are about: ``weights`` and ``data`` are sha256 by name, ``purifier`` its name in the store."""

    victim: str
    defence: str
    purifier: str
    weights: Mapping[str, str]
    data: Mapping[str, str]
    table: str = TABLE


def record(recorder: Recorder, subject: Subject, figure: Figure, seconds: float = 0.0) -> Observation:
    """Keep ``figure`` as a row, wherever it was measured: its device is that of the recorder's conditions.

    Attacker "aware" ("none" for the clean photos), the attack's full name, and the figure's series; a transferred
    attack has the defence it was made through as its surrogate. The clean twin stands in the settings.
    """
    scenario = Scenario(figure.attack, figure.eps, "aware", figure.source) if figure.eps else CLEAN
    seen = Observation(scenario, subject.victim, subject.defence, "purifier", figure.score)
    low, high = figure.clean.interval
    twin = {"clean_percent": round(figure.clean.percent, 3), "clean_interval": [round(low, 3), round(high, 3)]}
    settings = {**figure.settings, **twin, "purifier": subject.purifier}
    evidence = Evidence(settings, dict(subject.weights), dict(subject.data), seconds)
    recorder.add(Place(subject.table, figure.series, figure.x), "classification", seen, evidence)
    return seen


def measure_aware(
    session: Session,
    arena: Arena,
    victim: Classifier,
    purification: Purification,
    plan: AwarePlan,
    *,
    sources: Sequence[Purification] = (),
    deadline: float | None = None,
) -> list[Observation]:
    """Every figure of ``victim`` behind ``purification`` on the arena's first photos, recorded as soon as it is there.

    ``sources`` are other purifiers, whose adversaries are tried too. Doubts go to the session's warnings. An
    observation's ``each`` is a photo's share of right decisions, so use ``each`` of these and not ``correct``. Run
    again, it goes on from the last batch that was kept. Raises OutOfTimeError where a batch would begin after
    ``deadline``, in ``time.monotonic``'s seconds.
    """
    bench = arena.bench
    conditions = bench.conditions
    material = Material(bench.examples, bench.cache, bench.progress, conditions.device, conditions.seed, deadline)
    weights = {purification.name: purification.weights, victim.name: victim.identity}
    weights |= {source.name: source.weights for source in sources}
    subject = Subject(
        victim.name,
        purification.name,
        purification.purifier or session.purifier,
        weights,
        {arena.source: bench.examples.digest},
    )
    others = [defended_by(source, victim) for source in sources]
    found, began = [], time.monotonic()
    for figure in measure(material, defended_by(purification, victim), plan, session.warnings.append, others):
        found.append(record(session.recorder, subject, figure, time.monotonic() - began))
        began = time.monotonic()
    return found
