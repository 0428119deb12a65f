from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robustness.adaptive import aware
from robustness.adversaries import Threat, white_box
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.attacks.single_step import FGSM
from robustness.attacks.ssp import SSP
from robustness.defences import Jpeg, NoDefence
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.surrogates import load_surrogate


def test_an_arena_can_be_cut_to_its_first_examples(photos: Arena) -> None:
    assert len(photos.first(4).bench.examples) == 4
    assert photos.first(4).bench.examples.names == photos.bench.examples.names[:4]
    assert photos.first(99) is photos


def test_an_arena_knows_its_victims_by_name(photos: Arena) -> None:
    assert photos.victim("victim-b") is photos.victims[1]
    with pytest.raises(VictimError, match=r"no classification victim 'nobody'.*victim-a, victim-b"):
        photos.victim("nobody")


def test_the_classifiers_are_those_of_the_photos(session: Session) -> None:
    assert [victim.name for victim in session.classifiers()] == ["victim-a", "victim-b"]
    without = replace(session, arenas={"segmentation": session.arenas["segmentation"]})
    assert without.classifiers() == ()


def test_who_is_not_named_is_judged_on_clean_photos_too(session: Session, photos: Arena) -> None:
    assert session.clean(photos).victims == photos.victims
    assert session.clean(photos, photos.victims[:1]).victims == photos.victims[:1]


def test_only_a_white_box_is_made_in_the_attackers_precision(session: Session, photos: Arena) -> None:
    conditions = replace(photos.bench.conditions, attack_precision="float32", precision="bfloat16")
    arena = replace(photos, bench=replace(photos.bench, conditions=conditions))
    victim = session.classifiers()[0]
    threats = (
        white_box(FGSM(8), victim),
        session.surrogate.threat(SSP(8, iterations=1)),
        aware(PGD(8, iterations=1), Jpeg(20), victim, "BPDA"),
    )
    used = [session.attack(arena, threat, (victim,)).fingerprint["precision"] for threat in threats]
    assert used == ["float32", "bfloat16", "bfloat16"]


def test_an_attack_that_sees_no_gradient_becomes_a_warning(session: Session, photos: Arena) -> None:
    def learn(_: Truths, __: torch.Generator) -> Knowledge:
        def flat(images: Tensor) -> Tensor:
            return 0 * images.flatten(1).sum(1)

        return Knowledge(loss=flat)

    session.attack(photos, white_box(FGSM(8), photos.victims[0]), photos.victims[:1])
    assert session.warnings == []
    session.attack(photos, Threat(FGSM(8), "masked", "m" * 64, learn), photos.victims[:1])
    (warning,) = session.warnings
    assert "FGSM, eps 8/255 on masked: the gradient vanished or was not finite for 9 of 9 images" in warning


def test_measuring_judges_behind_each_defence_and_records_it(session: Session, photos: Arena) -> None:
    trial = session.clean(photos)
    found = session.measure(photos, trial, (NoDefence(), Jpeg(20)), Place("T9", "line", 3), why="a test")
    rows = session.recorder.rows
    assert [(o.victim, o.defence) for o in found] == [(row.victim, row.defence) for row in rows]
    assert len(rows) == 4
    assert [row.percent for row in rows] == [round(o.score.percent, 3) for o in found]
    assert {(row.table, row.series, row.x, row.settings["why"]) for row in rows} == {("T9", "line", 3, "a test")}


def test_a_figure_says_whose_weights_and_which_data_it_stands_on(session: Session, photos: Arena) -> None:
    victim, dynamic = photos.victims[0], session.purified[0]
    trial = session.attack(photos, session.surrogate.threat(SSP(8, iterations=1)), photos.victims)
    evidence = session.evidence(photos, trial, dynamic, "victim-a", {"more": 1}, 2.0)
    assert evidence.weights == {
        "victim-a": victim.identity,
        "features": session.surrogate.identity,
        "noisy": session.store.card("noisy").sha256,
    }
    assert evidence.data == {photos.source: photos.bench.examples.digest}
    assert evidence.settings == {"attack": repr(SSP(8, iterations=1)), "precision": "float32", "more": 1}
    clean = session.evidence(photos, session.clean(photos), NoDefence(), "victim-a", {}, 0.0)
    assert set(clean.weights) == {"victim-a"}


def test_another_surrogate_than_the_suites_is_named_with_its_weights(session: Session, photos: Arena) -> None:
    other = load_surrogate(session.store, "victim-b", torch.device("cpu"), "stages.0")
    trial = session.attack(photos, other.threat(SSP(8, iterations=1)), photos.victims[:1])
    weights = session.evidence(photos, trial, NoDefence(), "victim-a", {}, 0.0).weights
    assert weights["victim-b"] == other.identity
