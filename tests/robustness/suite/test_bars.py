"""Figures against the bars, on tiny networks, and what the page says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from model_store.store import ModelStore
from robustness.evaluation import purifications
from robustness.observations import Observation, Scenario
from robustness.report import LEAST
from robustness.results.averages import MEAN
from robustness.results.row import Row
from robustness.results.verdicts import bars_section
from robustness.suite.bars import judge_photos, judge_scenes
from robustness.suite.ladder import climb
from robustness.suite.overview import unaware
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from tests.robustness.suite.conftest import MakeSession

CPU = torch.device("cpu")
PLACE = Place("overview")


@pytest.fixture
def several(make_session: MakeSession, store: ModelStore) -> Session:
    """Two purifiers that change nothing, one of them noisy, in a suite that compares."""
    session = make_session(eps=(8, 16), aware_eps=(4,))
    purified = tuple(
        each for name in ("noisy", "plain") for each in purifications(store.load(name), (), CPU, named=True)
    )
    return replace(session, purified=purified)


def rows_of(session: Session, table: str, **wanted: object) -> list[Row]:
    return [
        row
        for row in session.recorder.rows
        if row.table == table and all(getattr(row, key) == value for key, value in wanted.items())
    ]


def measure(session: Session, photos: Arena) -> None:
    seen = unaware(session, photos)
    few = photos.first(session.sizes.aware_photos)
    known = [
        one
        for victim in photos.classifiers()
        for defence in session.purified
        for one in climb(session, few, victim, defence, 4).observations
    ]
    judge_photos(session, photos, (*seen, *known), scenarios((*seen, *known)))


def scenarios(seen: Sequence[Observation]) -> list[Scenario]:
    """All, but of the attackers who know the defence what all of them leave."""
    found = dict.fromkeys(one.scenario for one in seen)
    return [each for each in found if each.attacker != "aware" or each.attack == LEAST]


def test_purifiers_go_by_their_own_names_with_their_own_weights(several: Session, photos: Arena) -> None:
    assert [purified.name for purified in several.purified] == ["noisy heavy", "plain static"]
    trial = several.clean(photos)
    weights = several.evidence(photos, trial, several.purified[1], "victim-a", {}, 0.0).weights
    assert weights == {"victim-a": photos.victims[0].identity, "plain": several.purified[1].weights}


def test_a_purifier_that_changes_nothing_is_no_better_than_nothing(several: Session, photos: Arena) -> None:
    measure(several, photos)
    (clean,) = rows_of(several, "bars", defence="plain static", attack="clean")
    assert (clean.victim, clean.metric, clean.percent, clean.count) == (MEAN, "% of clean", 100.0, 9)
    (hit,) = rows_of(several, "bars", defence="plain static", attack="FGSM", eps=8)
    assert hit.metric == "points over the best baseline"
    facts = hit.settings
    assert facts["undefended"] == facts["defended"]
    means = {
        name: sum(row.percent or 0 for row in rows_of(several, "overview", defence=name, attack="FGSM", eps=8)) / 2
        for name in ("JPEG 20", "bit depth 4", "plain static")
    }
    assert facts["baseline_percent"] == pytest.approx(max(means["JPEG 20"], means["bit depth 4"]), abs=1e-2)
    assert means[str(facts["baseline"])] == pytest.approx(facts["baseline_percent"], abs=1e-2)
    assert hit.percent == pytest.approx(means["plain static"] - facts["baseline_percent"], abs=1e-2)
    assert hit.interval is not None
    assert hit.interval[0] <= hit.percent <= hit.interval[1]


def test_who_knows_is_judged_by_what_all_attacks_leave_of_the_same_photos(several: Session, photos: Arena) -> None:
    measure(several, photos)
    (known,) = rows_of(several, "bars", defence="plain static", attacker="aware")
    assert (known.attack, known.eps, known.count, known.metric) == (LEAST, 4, 6, "% of clean")
    rows = rows_of(several, "overview", defence="plain static", attack=LEAST)
    left = sum(row.percent or 0 for row in rows) / len(rows)
    assert known.settings["defended"] == pytest.approx(left, abs=1e-2)
    clean = [
        float((victim.logits(photos.bench.examples.pixels[:6] / 255).argmax(1) == torch.arange(6) % 3).double().mean())
        for victim in photos.classifiers()
    ]
    assert known.percent == pytest.approx(100 * left / (100 * sum(clean) / 2), abs=1e-2)
    assert known.settings["baseline"] is None


def test_no_clean_photo_right_leaves_nothing_to_take_a_share_of(several: Session, photos: Arena) -> None:
    victim = photos.classifiers()[0]
    examples = photos.bench.examples
    wrong = victim.logits(examples.pixels / 255).argmin(1)
    lost = replace(
        photos, victims=(victim,), bench=replace(photos.bench, examples=replace(examples, truths={"labels": wrong}))
    )
    seen = several.measure(lost, several.clean(lost), several.defences + several.purified, PLACE)
    judge_photos(several, lost, seen, scenarios(seen))
    for row in rows_of(several, "bars"):
        assert row.missing == "there is no clean photo that is classified right"
        assert row.victim == "victim-a"


def test_scenes_are_judged_by_the_share_of_the_loss_that_is_recovered(several: Session, scenes: Arena) -> None:
    judge_scenes(several, scenes)
    assert {row.table for row in several.recorder.rows} == {"bars"}  # what defences leave stands in tables 6 and 7
    assert {row.series for row in several.recorder.rows} == {"conv3-3", "relu2-2"}
    assert any(row.percent is not None for row in rows_of(several, "bars", defence="noisy heavy"))
    for judged in rows_of(several, "bars", defence="noisy heavy"):
        if judged.missing:
            assert "costs this victim nothing" in judged.missing
            continue
        facts = judged.settings
        lost = facts["clean"] - facts["undefended"]
        assert judged.percent == pytest.approx(100 * (facts["defended"] - facts["undefended"]) / lost, rel=1e-3)
    still = rows_of(several, "bars", defence="plain static")
    assert {row.percent for row in still if not row.missing} <= {0.0}
    assert len(still) == 2


def test_the_verdicts_are_those_of_the_bars(several: Session, photos: Arena) -> None:
    measure(several, photos)
    rows = several.recorder.rows
    before = "\n".join(bars_section(rows, ()))
    assert "| clean | 0 | 9 |" in before
    good = [
        row.model_copy(update={"percent": 10.0}) if row.metric.startswith("points") and row.eps == 8 else row
        for row in rows
    ]
    bad = [row.model_copy(update={"percent": 9.9}) if row.metric.startswith("points") else row for row in rows]
    (met,) = lines(good, "FGSM", "8", "plain static")
    assert met.endswith("| ≥ 10 | met |")
    (missed,) = lines(bad, "FGSM", "8", "plain static")
    assert missed.endswith("| ≥ 10 | missed |")
    (known,) = lines(rows, LEAST, "4", "plain static")
    assert "| ≥ 35 |" in known


def test_a_certificate_of_the_same_weights_closes_its_line(several: Session, photos: Arena) -> None:
    measure(several, photos)
    (clean,) = rows_of(several, "bars", defence="plain static", attack="clean")
    certified = clean.model_copy(
        update={
            "suite": "certified",
            "table": "certified",
            "metric": "certified accuracy",
            "series": "sigma 0.25",
            "victim": "victim-a",
            "x": 0.5,
            "percent": 30.0,
            "interval": (5.0, 60.0),
        }
    )
    text = "\n".join(bars_section(several.recorder.rows, [certified]))
    assert "| certified, sigma 0.25, victim-a | 0.5 | 9 |" in text
    assert "30.0 % certified | 5.0 to 60.0 | ≥ 30 | met |" in text
    other = certified.model_copy(update={"weights": {"plain": "0" * 64}})
    assert "30.0 % certified" not in "\n".join(bars_section(several.recorder.rows, [other]))


def lines(rows: list[Row], attack: str, eps: str, defence: str) -> list[str]:
    mine = [row for row in rows if row.defence == defence or row.table == "overview"]
    text = "\n".join(bars_section(mine, ()))
    return [line for line in text.splitlines() if line.startswith(f"| {attack} | {eps} |") and ("≥" in line)]


def replace_seconds(row: Row) -> dict[str, object]:
    return {**row.model_dump(), "seconds": 0}
