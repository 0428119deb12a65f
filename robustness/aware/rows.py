"""Rows: the protocol's figures as a suite records them, and as observations for whoever goes on with them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from model_store.folding import fold_batch_norms
from robustness.aware.defended import Defended, Mode
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.aware.protocol import Figure, measure
from robustness.defences import Purification
from robustness.observations import CLEAN, Observation, Scenario
from robustness.suite.recorder import Evidence, Place
from robustness.suite.session import Arena, Session
from robustness.victims.classification import Classifier


def defended_by(purification: Purification, victim: Classifier) -> Defended:
    """``victim`` behind ``purification``, with the mode's own number of draws."""
    return Defended(
        purification.name,
        victim.name,
        Mode(**purification.mode.model_dump()),
        purification.weights,
        victim.identity,
        purification.module.purifier,
        fold_batch_norms(victim.module),
    )


def measure_aware(
    session: Session,
    arena: Arena,
    victim: Classifier,
    purification: Purification,
    plan: AwarePlan,
    *,
    sources: Sequence[Purification] = (),
    table: str = "aware",
) -> list[Observation]:
    """Every figure of ``victim`` behind ``purification`` on the arena's first photos, recorded as soon as it is there.

    Rows have attacker "aware" (the clean ones "none"), the attack's full name, and "single draw", "vote", "worst of R"
    or the check ("EOT curve", with the draws as x; "known noise") as their series; ``sources`` are other purifiers,
    named as the surrogate of what was made through them. Doubts go to the session's warnings. An observation's ``each``
    is a photo's share of right decisions, so use ``each`` of these and not ``correct``. Run again, it goes on
    from the last batch that was kept.
    """
    bench = arena.bench
    conditions = bench.conditions
    material = Material(bench.examples, bench.cache, bench.progress, conditions.device, conditions.seed)
    defended = defended_by(purification, victim)
    others = [defended_by(source, victim) for source in sources]
    weights = {purification.name: purification.weights, victim.name: victim.identity}
    weights |= {source.name: source.weights for source in sources}
    data = {arena.source: bench.examples.digest}
    found, began = [], time.monotonic()
    for figure in measure(material, defended, plan, session.warnings.append, others):
        seen = Observation(_scenario(figure), victim.name, purification.name, purification.role, figure.score)
        settings = {**figure.settings, **_twin(figure), "purifier": purification.purifier or session.purifier}
        evidence = Evidence(settings, weights, data, time.monotonic() - began)
        session.recorder.add(Place(table, figure.series, figure.x), arena.task, seen, evidence)
        found.append(seen)
        began = time.monotonic()
    return found


def _scenario(figure: Figure) -> Scenario:
    return Scenario(figure.attack, figure.eps, "aware", figure.source) if figure.eps else CLEAN


def _twin(figure: Figure) -> dict[str, object]:
    """The same photos and series without an attack."""
    low, high = figure.clean.interval
    return {"clean_percent": round(figure.clean.percent, 3), "clean_interval": [round(low, 3), round(high, 3)]}
