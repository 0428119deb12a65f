from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustness.attacks.ssp import SSP
from robustness.defences import NoDefence
from robustness.judgement import judge
from robustness.suite.figures import record_fooling
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.surrogates import load_surrogate


@pytest.mark.parametrize("eps", [0, 16])
def test_the_fooling_rate_is_the_share_of_changed_answers(session: Session, photos: Arena, eps: int) -> None:
    victim = session.classifiers()[0]
    surrogate = load_surrogate(session.store, "victim-b", torch.device("cpu"), "stem")
    threat = surrogate.threat(SSP(eps, iterations=3))
    (before,) = judge(photos.bench, session.clean(photos, (victim,)), NoDefence())
    record_fooling(session, photos, threat, victim, Place("F1", "victim-b", 0), layer="stem", before=before)
    (row,) = session.recorder.rows
    assert (row.table, row.series, row.x, row.settings["layer"]) == ("F1", "victim-b", 0, "stem")
    assert (row.metric, row.attacker, row.surrogate, row.count) == ("fooling rate", "transfer", "victim-b", 9)
    hit = session.attack(photos, threat, (victim,)).examples
    said, says = (victim.logits(each.pixels / 255).argmax(1) for each in (photos.bench.examples, hit))
    assert row.percent == pytest.approx(100 * float((said != says).double().mean()), abs=1e-3)
    assert (row.percent == 0) == (eps == 0)


def test_another_answer_that_is_wrong_too_is_fooled_as_well(session: Session, photos: Arena) -> None:
    victim = session.classifiers()[0]
    examples = photos.bench.examples
    wrong = victim.logits(examples.pixels / 255).argmin(1)
    lost = replace(photos, bench=replace(photos.bench, examples=replace(examples, truths={"labels": wrong})))
    surrogate = load_surrogate(session.store, "victim-b", torch.device("cpu"), "stem")
    (before,) = judge(lost.bench, session.clean(lost, (victim,)), NoDefence())
    threat = surrogate.threat(SSP(16, iterations=3))
    record_fooling(session, lost, threat, victim, Place("F1", "victim-b", 0), layer="stem", before=before)
    assert session.recorder.rows[0].percent
