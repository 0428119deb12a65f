"""The protocol's figures as rows of a suite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.store import ModelStore
from robustness.aware.plan import AwarePlan
from robustness.aware.rows import measure_aware
from robustness.defences import NoDefence
from robustness.evaluation import purifications
from robustness.judgement import Bench
from robustness.suite.recorder import Recorder
from robustness.suite.session import Arena, Session
from robustness.suite.sizes import QUICK
from robustness.surrogates import Surrogate
from robustness.victims.classification import Classifier
from tests.robustness.conftest import CPU

FEW = AwarePlan(eps=8, photos=4, steps=2, eot=2, decisions=2, few=2, eot_curve=(1, 2), square_photos=0, batch=2)


@pytest.fixture
def session(
    store: ModelStore, bench: Bench, victims: tuple[Classifier, ...], surrogate: Surrogate, tmp_path: Path
) -> Session:
    arena = Arena("classification", bench, victims, "photos")
    purified = purifications(store.load("noisy"), ("default",), CPU)
    recorder = Recorder("imagenet", tmp_path / "rows", "make suite", bench.conditions, {"torch": "2"})
    return Session(QUICK, store, {"classification": arena}, (NoDefence(),), purified, surrogate, recorder)


def test_each_figure_is_an_observation_and_a_row_with_its_clean_twin(
    session: Session, store: ModelStore, tmp_path: Path
) -> None:
    arena, victim = session.arenas["classification"], session.classifiers()[0]
    (source,) = purifications(store.load("plain"), ("default",), CPU, named=True)[:1]
    seen = measure_aware(session, arena, victim, session.purified[0], FEW, sources=(source,))
    rows = session.recorder.rows
    assert len(rows) == len(seen) == len(list((tmp_path / "rows").rglob("*.json")))
    assert len({row.identity for row in rows}) == len(rows)
    clean = [row for row in rows if row.attacker == "none"]
    assert {(row.attack, row.eps) for row in clean} == {("clean", 0)}
    assert {row.series for row in clean} == {"vote", "single draw", "worst of 2"}
    aware = [row for row in rows if row.attacker == "aware"]
    assert len(aware) + len(clean) == len(rows)
    assert {row.table for row in rows} == {"aware"}
    assert {row.surrogate for row in aware} == {None, source.name}
    assert {row.x for row in aware if row.series == "EOT curve"} == {1.0, 2.0}
    first = next(row for row in aware if row.attack == "exact PGD-2 CE EOT-2" and row.series == "vote")
    assert (first.eps, first.count, first.victim, first.role) == (8, 4, victim.name, "purifier")
    twin = next(row for row in clean if row.series == "vote")
    assert first.settings["clean_percent"] == twin.percent
    assert first.weights[victim.name] == victim.identity
    assert json.dumps(first.settings)


def test_doubts_go_to_the_session_and_a_second_run_makes_the_same_rows(session: Session) -> None:
    arena, victim = session.arenas["classification"], session.classifiers()[0]
    weak = replace(FEW, steps=1, unbounded_eps=1, few=4)
    first = measure_aware(session, arena, victim, session.purified[0], weak)
    assert any("eps 1/255" in warning for warning in session.warnings)
    again = measure_aware(session, arena, victim, session.purified[0], weak)
    assert [one.score.percent for one in again] == [one.score.percent for one in first]
