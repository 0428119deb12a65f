from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_store.architectures import build
from robustness.attacks.ssp import SSP
from robustness.features import layers_of
from robustness.results.plots import plot_all
from robustness.suite import figures
from robustness.suite.figures import LAYERS, iterations, layers, outsider
from robustness.suite.session import Arena, Session
from robustness.surrogates import load_surrogate


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        figures,
        "LAYERS",
        (("victim-b", ("stem", "stages.0")), ("absent", ("stem",)), ("victim-a", ("stem",))),
    )
    monkeypatch.setattr(figures, "LAYER_ITERATIONS", 3)


@pytest.mark.usefixtures("few_layers")
def test_figure_1_attacks_each_layer_of_the_other_networks_there_are(session: Session, photos: Arena) -> None:
    layers(session, photos, photos.victims[0])
    rows = session.recorder.rows
    assert [(row.series, row.x, row.settings["layer"]) for row in rows] == [
        ("victim-b", 0, "stem"),
        ("victim-b", 1, "stages.0"),
    ]
    assert {(row.table, row.victim, row.surrogate, row.eps) for row in rows} == {("F1", "victim-a", "victim-b", 16)}
    assert {(row.metric, row.attacker, row.count) for row in rows} == {("fooling rate", "transfer", 9)}


@pytest.mark.usefixtures("few_layers")
def test_the_fooling_rate_is_the_share_of_changed_answers(
    session: Session, photos: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = session.classifiers()[0]
    layers(session, photos, victim)
    found = [row.percent for row in session.recorder.rows]
    expected = []
    for layer in ("stem", "stages.0"):
        surrogate = load_surrogate(session.store, "victim-b", torch.device("cpu"), layer)
        hit = session.attack(photos, surrogate.threat(SSP(16, iterations=3)), (victim,)).examples
        before, after = (victim.logits(e.pixels / 255).argmax(1) for e in (photos.bench.examples, hit))
        expected.append(100 * float((before != after).double().mean()))
    assert found == pytest.approx(expected, abs=1e-3)
    assert max(expected) > 0
    monkeypatch.setattr(figures, "EPS", 0)
    session.recorder.rows.clear()
    layers(session, photos, victim)
    assert [row.percent for row in session.recorder.rows] == [0, 0]


def test_figure_1_judges_one_whose_own_layers_are_not_attacked(photos: Arena) -> None:
    first, second = photos.victims
    attacked = tuple(replace(first, name=name) for name, _ in LAYERS)
    assert outsider((*attacked, first)) is first
    assert outsider((first, second, *attacked)) is second
    assert outsider(attacked) is attacked[-1]


@pytest.mark.parametrize(("network", "names"), LAYERS, ids=lambda part: part if isinstance(part, str) else "")
def test_the_layers_of_figure_1_are_layers_of_those_networks(network: str, names: tuple[str, ...]) -> None:
    architecture = "vgg_small" if network.endswith("vgg") else "resnet_small"
    assert set(names) <= set(layers_of(build(architecture, {"classes": 10})))


def test_figure_6_counts_iterations_of_each_attack_on_the_surrogate(
    session: Session, photos: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "ITERATIONS", (1, 3))
    monkeypatch.setattr(figures, "COUNT", 6)
    iterations(session, photos, photos.victims[1])
    rows = session.recorder.rows
    assert [(row.series, row.x) for row in rows] == [
        (series, count) for count in (1, 3) for series in ("I-FGSM", "MI-FGSM", "DIM", "SSP")
    ]
    assert {(row.table, row.victim, row.surrogate, row.eps, row.count) for row in rows} == {
        ("F6", "victim-b", "features", 16, 6)
    }
    assert all(row.settings["iterations"] == row.x for row in rows)
    assert all(f"iterations={row.x:g}" in str(row.settings["attack"]) for row in rows)


@pytest.mark.usefixtures("few_layers")
def test_the_rows_can_be_drawn(
    session: Session, photos: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(figures, "ITERATIONS", (1, 2))
    layers(session, photos.first(3), photos.victims[0])
    iterations(session, photos.first(3), photos.victims[0])
    drawn = plot_all(session.recorder.rows, tmp_path)
    assert [picture.section for picture in drawn] == ["F1", "F6"]
    assert all(picture.file.stat().st_size > 1000 for picture in drawn)
