from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from robustness.adversaries import Threat, white_box
from robustness.attacks.single_step import FGSM
from robustness.defences import Defence, Jpeg
from robustness.judgement import attacked, judge
from robustness.report import LEAST
from robustness.results.overview import Overview, overview_table
from robustness.suite import ladder as rungs
from robustness.suite.ladder import UNAWARE, climb, ladder
from robustness.suite.overview import knowing, unaware
from robustness.suite.session import Arena, Session
from robustness.victims.classification import Classifier

Made = list[tuple[str, int]]


def weak_and_strong(_: Session, __: Defence, victim: Classifier, eps: int) -> Iterator[Threat]:
    """FGSM at half, at all and at twice the budget."""
    for name, budget in (("a", eps // 2), ("b", eps), ("c", 2 * eps)):
        yield replace(white_box(FGSM(budget), victim), attacker="aware", target=f"{victim.name} {name}")


def test_unaware_attackers_meet_every_defence_and_only_whom_they_may(session: Session, photos: Arena) -> None:
    found = unaware(session, photos)
    rows = session.recorder.rows
    defences = ["none", "JPEG 20", "bit depth 4", "purifier heavy", "purifier static"]
    assert len(found) == len(rows) == len({row.identity for row in rows}) == 30
    assert {row.table for row in rows} == {"overview"}
    for attacker, attack in (("none", "clean"), ("white box", "FGSM"), ("transfer", "SSP (iterations 2)")):
        mine = [row for row in rows if row.attacker == attacker]
        assert {row.attack for row in mine} == {attack}
        assert {(row.victim, row.defence) for row in mine} == {
            (v, d) for v in ("victim-a", "victim-b") for d in defences
        }
    assert {row.surrogate for row in rows if row.attacker == "transfer"} == {"features"}


def test_a_white_box_is_judged_on_its_own_victim(session: Session, photos: Arena) -> None:
    found = [o for o in unaware(session, photos) if o.scenario.attack == "FGSM" and o.defence == "none"]
    for seen, victim in zip(found, photos.victims, strict=True):
        trial = attacked(photos.bench, white_box(FGSM(8), victim), (victim,))
        (alone,) = judge(photos.bench, trial, session.defences[0])
        assert (seen.victim, seen.score.percent) == (victim.name, alone.score.percent)


def test_a_transfer_is_not_judged_on_the_network_it_was_made_on(session: Session, photos: Arena) -> None:
    same = replace(session, surrogate=replace(session.surrogate, name="victim-b"))
    found = [o for o in unaware(same, photos) if o.scenario.attacker == "transfer"]
    assert {o.victim for o in found} == {"victim-a"}


def test_each_attack_of_the_ladder_is_made_on_those_that_still_stand(
    session: Session, photos: Arena, attacks_run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "ladder", weak_and_strong)
    found = climb(session, photos, session.classifiers()[0], session.purified[1], 4)
    standing = [int(o.correct.sum()) for o in found.observations]
    assert 9 > standing[0] > standing[1] >= standing[2] > 0
    assert [count for _, count in attacks_run] == [9, *standing[:2]]
    assert [row.settings["attacked"] for row in session.recorder.rows[:3]] == [9, *standing[:2]]


def test_the_ladder_is_a_minimum_image_by_image(session: Session, photos: Arena) -> None:
    victim, defence = session.classifiers()[0], session.purified[0]
    found = climb(session, photos, victim, defence, 4)
    each = [o.correct for o in found.observations]
    assert all((later <= earlier).all() for earlier, later in pairwise(each))
    assert torch.equal(found.standing, each[-1])
    first = next(iter(ladder(session, defence, victim, 4)))
    (alone,) = judge(photos.bench, session.attack(photos, first, (victim,)), defence)
    assert torch.equal(each[0], alone.correct)
    assert [o.score.count for o in found.observations] == [9] * len(each)
    assert [row.count for row in session.recorder.rows] == [9] * len(each)


def test_the_last_row_is_what_all_of_them_leave(session: Session, photos: Arena) -> None:
    victim = session.classifiers()[0]
    found = climb(session, photos, victim, session.purified[0], 4)
    before, last = session.recorder.rows[-2:]
    assert (last.attack, last.eps, last.attacker, last.victim) == (LEAST, 4, "aware", "victim-a")
    assert (last.percent, last.interval) == (before.percent, before.interval)
    assert last.percent == pytest.approx(100 * float(found.standing.double().mean()), abs=1e-3)
    assert last.settings["attacks"] == [row.attack for row in session.recorder.rows[:-1]]
    assert last.weights == {"victim-a": victim.identity, "noisy": session.purified[0].weights}


def test_an_attack_that_has_no_one_left_is_recorded_and_not_made(
    session: Session, photos: Arena, attacks_run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "ladder", weak_and_strong)
    victim = session.classifiers()[0]
    examples = photos.bench.examples
    wrong = victim.logits(examples.pixels / 255).argmin(1)
    lost = replace(photos, bench=replace(photos.bench, examples=replace(examples, truths={"labels": wrong})))
    found = climb(session, lost, victim, Jpeg(95), 8)
    assert attacks_run == [("FGSM", 9)]
    assert [o.score.percent for o in found.observations] == [0.0] * 4
    assert [row.settings.get("attacked") for row in session.recorder.rows] == [9, 0, 0, None]


def names(session: Session, defence: Defence, eps: int = 8) -> list[str]:
    return [threat.attack.name for threat in ladder(session, defence, session.classifiers()[0], eps)]


def test_a_quick_ladder_goes_from_bpda_to_the_full_gradient(session: Session) -> None:
    assert names(session, session.purified[0]) == ["BPDA PGD-2 untargeted", "full-gradient PGD-2 untargeted"]
    assert names(session, Jpeg(20)) == ["BPDA PGD-2 untargeted"]


def test_who_knows_meets_the_first_photos_the_default_mode_and_jpeg(session: Session, photos: Arena) -> None:
    found = knowing(session, photos, unaware(session, photos))
    assert {(o.victim, o.defence, o.scenario.eps) for o in found} == {
        (victim, defence, 8) for victim in ("victim-a", "victim-b") for defence in ("purifier heavy", "JPEG 20")
    }
    assert {o.score.count for o in found} == {6}
    assert sum(o.scenario.attack == UNAWARE for o in found) == 4
    lacking = [row for row in session.recorder.rows if row.missing]
    assert {(row.victim, row.defence, row.eps) for row in lacking} == {
        (victim, "purifier static", 8) for victim in ("victim-a", "victim-b")
    }


def test_the_least_counts_what_needs_no_knowledge(session: Session, photos: Arena) -> None:
    seen = unaware(session, photos)
    for one in knowing(session, photos, seen):
        if one.scenario.attack != LEAST:
            continue
        for other in seen:
            if (other.victim, other.defence) == (one.victim, one.defence):
                assert (one.correct <= other.correct[: len(one.correct)]).all()


def test_what_fell_at_a_small_budget_has_fallen_at_a_larger(session: Session, photos: Arena) -> None:
    wider = replace(session, sizes=replace(session.sizes, eps=(2, 16), aware_eps=(16, 2)))
    found = [o for o in knowing(wider, photos, unaware(wider, photos)) if o.scenario.attack == LEAST]
    for small, large in zip(found[::2], found[1::2], strict=True):
        assert (small.scenario.eps, large.scenario.eps) == (2, 16)
        assert (large.correct <= small.correct).all()


def test_the_rows_make_a_whole_overview(session: Session, photos: Arena) -> None:
    wider = replace(session, sizes=replace(session.sizes, eps=(4, 8)))
    knowing(wider, photos, unaware(wider, photos))
    whole = Overview(session.recorder.rows)
    for eps in (4, 8):
        for victim in whole.victims:
            text = overview_table(whole, eps, victim)
            assert "FGSM" in text
            assert "lets attackers who know the purifier loose on its default mode, at eps 8" in text
