from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_store.architectures import build
from model_store.card import Card
from robustness.attacks.ssp import SSP
from robustness.defences import BASELINES, NoDefence
from robustness.results.tables import table_of
from robustness.suite.session import Arena, Session
from robustness.suite.tables import table_4, table_5, transformations
from robustness.victims.classification import Classifier


def row_of(session: Session, **wanted: object) -> float:
    """The figure of the one row with these fields."""
    (row,) = [r for r in session.recorder.rows if all(getattr(r, key) == value for key, value in wanted.items())]
    assert row.percent is not None
    return row.percent


def publish_perturbers(session: Session, *names: str) -> None:
    arguments = {"width": 4, "blocks": 1}
    for name in names:
        card = Card(name=name, summary="s", task="perturber", architecture="cda_generator", arguments=arguments)
        session.store.publish(card, build("cda_generator", arguments))


def test_table_4_sets_ssp_against_every_generator(session: Session, scenes: Arena) -> None:
    publish_perturbers(session, "cda-imagenette", "cda-camvid")
    table_4(replace(session, sizes=replace(session.sizes, ssp_iterations=100)), scenes)
    found = [(row.attack, row.eps) for row in session.recorder.rows]
    assert found == [(a, eps) for eps in (8, 16) for a in ("SSP", "CDA imagenette", "CDA camvid")]
    assert "Not measured" not in table_of("T4", session.recorder.rows)


def test_table_4_says_which_generator_is_lacking(session: Session, scenes: Arena) -> None:
    publish_perturbers(session, "cda-imagenette")
    table_4(replace(session, sizes=replace(session.sizes, ssp_iterations=100)), scenes)
    lacking = [(row.attack, row.eps, row.metric) for row in session.recorder.rows if row.missing]
    assert lacking == [("CDA camvid", eps, "pixel accuracy") for eps in (8, 16)]
    assert "the store holds no generator cda-camvid" in table_of("T4", session.recorder.rows)


def test_table_5_counts_the_first_and_the_first_five(session: Session, photos: Arena) -> None:
    few = replace(photos, victims=tuple(five(v) for v in session.classifiers()))
    table_5(session, few)
    assert len(session.recorder.rows) == 4
    for victim in few.victims:
        said = victim.answer((photos.bench.examples.pixels / 255).unsqueeze(1))["log_probabilities"]
        right = (said.argmax(1) == photos.bench.examples.truths["labels"]).double().mean()
        assert row_of(session, metric="top-1", victim=victim.name) == pytest.approx(100 * float(right), abs=1e-3)
        assert row_of(session, metric="top-5", victim=victim.name) == 100
    assert "| top-5 | 9 | 100.0" in table_of("T5", session.recorder.rows)


def five(victim: Classifier) -> Classifier:
    """The same victim with two classes more, that it never gives a chance."""

    class Padded(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(victim.module(images), (0, 2), value=-50.0)

    return replace(victim, module=Padded(), identity=f"{victim.identity} and two")


def test_tables_6_and_7_meet_every_defence_clean_and_attacked(session: Session, scenes: Arena) -> None:
    sizes = replace(session.sizes, ssp_iterations=100)
    whole = replace(session, sizes=sizes, defences=(NoDefence(), *BASELINES))
    transformations(whole, scenes, "T6")
    columns = {(row.attack, row.eps, row.series) for row in session.recorder.rows if row.attacker != "aware"}
    assert columns == {
        ("clean", 0, ""),
        *(("SSP", eps, series) for eps in (8, 16) for series in ("", "relu2-2")),
        ("PGD-10 untargeted", 16, ""),
    }
    clean = row_of(session, attack="clean", defence="none")
    assert clean > 95
    assert row_of(session, attack="SSP", eps=16, defence="none", series="") < clean
    text = table_of("T6", session.recorder.rows)
    assert all(f"| {d.name} |" in text for d in (*BASELINES, *session.purified))


def test_tables_6_and_7_show_who_knows_the_purifier_beside_who_does_not(session: Session, scenes: Arena) -> None:
    transformations(session, scenes, "T6")
    aware = [row for row in session.recorder.rows if row.attacker == "aware"]
    assert [row.defence for row in aware] == [purifier.name for purifier in session.purified]
    assert {(row.attack, row.eps) for row in aware} == {("full-gradient PGD-10 untargeted", 16)}
    assert all(row.percent is not None and row.percent < 60 for row in aware)


def test_the_shallower_layer_is_another_attack(session: Session, scenes: Arena) -> None:
    transformations(session, scenes, "T6")
    shallow = [row for row in session.recorder.rows if row.series == "relu2-2"]
    assert {row.settings["layer"] for row in shallow} == {"features.8"}
    deep = session.attack(scenes, session.surrogate.threat(SSP(16, iterations=2)), scenes.victims)
    other = session.attack(scenes, session.surrogate_at("features.8").threat(SSP(16, iterations=2)), scenes.victims)
    assert not deep.examples.pixels.equal(other.examples.pixels)


def test_a_quick_suites_table_6_has_a_cell_for_each_of_its_rows(session: Session, scenes: Arena) -> None:
    whole = replace(session, defences=(NoDefence(), *BASELINES))
    transformations(whole, scenes, "T6")
    assert "purifier heavy" in table_of("T6", session.recorder.rows)


def test_a_budget_that_the_suite_leaves_out_of_table_6_is_a_column_that_says_why(
    session: Session, scenes: Arena
) -> None:
    sizes = replace(session.sizes, scene_eps=(16,))
    transformations(replace(session, sizes=sizes, defences=(NoDefence(), *BASELINES)), scenes, "T6")
    lacking = [row for row in session.recorder.rows if row.eps == 8]
    assert {row.defence for row in lacking} == {row.defence for row in session.recorder.rows}
    assert all(row.percent is None for row in lacking)
    assert "suite quick attacks scenes at eps 16 alone" in table_of("T6", session.recorder.rows)


def test_every_row_of_a_table_is_on_disk(session: Session, photos: Arena) -> None:
    table_5(session, photos.first(3))
    files: list[Path] = list(session.recorder.folder.glob("*.json"))
    assert len(files) == 4
