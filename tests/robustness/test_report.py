from __future__ import annotations

import pytest
import torch

from model_store.inference import PUBLISHED, STATIC, InferenceMode
from robustness.defences import Role
from robustness.observations import CLEAN, Measurements, Observation, Scenario
from robustness.rendering import FigureMaker, mode_note, report_text
from robustness.report import AVERAGE, LEAST, Report, summarise
from robustness.scores import accuracy

TARGETED, UNTARGETED = Scenario("PGD-10 targeted", 4), Scenario("PGD-10 untargeted", 4)


def seen(scenario: Scenario, victim: str, defence: str, role: Role, correct: str) -> Observation:
    return Observation(scenario, victim, defence, role, accuracy(torch.tensor([c == "1" for c in correct])))


def measurements() -> Measurements:
    """Two victims and four photos; every number below can be counted by hand."""
    rows: list[tuple[Scenario, str, Role, str, str]] = [
        (CLEAN, "none", "none", "1111", "1110"),
        (CLEAN, "JPEG", "baseline", "1110", "1100"),
        (CLEAN, "TV", "baseline", "1000", "1000"),
        (CLEAN, "purifier heavy", "purifier", "1101", "1110"),
        (TARGETED, "none", "none", "0000", "0001"),
        (TARGETED, "JPEG", "baseline", "1100", "1000"),
        (TARGETED, "TV", "baseline", "1000", "0000"),
        (TARGETED, "purifier heavy", "purifier", "1110", "1111"),
        (UNTARGETED, "none", "none", "0000", "0000"),
        (UNTARGETED, "JPEG", "baseline", "0000", "0000"),
        (UNTARGETED, "TV", "baseline", "1000", "1000"),
        (UNTARGETED, "purifier heavy", "purifier", "0100", "1100"),
    ]
    observations = [
        seen(scenario, victim, defence, role, correct)
        for scenario, defence, role, *each in rows
        for victim, correct in zip("ab", each, strict=True)
    ]
    aware = [
        seen(Scenario(attack, 4, "aware"), victim, "purifier heavy", "purifier", correct)
        for attack, victim, correct in (
            ("BPDA PGD-20", "a", "10"),
            ("BPDA PGD-20", "b", "11"),
            ("full-gradient PGD-20", "a", "01"),
            ("full-gradient PGD-20", "b", "01"),
        )
    ]
    return Measurements(tuple(observations), tuple(aware), ("a doubt",))


@pytest.fixture
def report() -> Report:
    return summarise(measurements())


def test_averages_count_photos_once_and_intervals_are_wilsons(report: Report) -> None:
    (found,) = [a for a in report.accuracies if (a.victim, a.scenario, a.defence) == (AVERAGE, TARGETED, "JPEG")]
    assert (found.correct, found.count, found.percent) == (1.5, 4, 37.5)
    (single,) = [a for a in report.accuracies if (a.victim, a.scenario, a.defence) == ("a", TARGETED, "JPEG")]
    assert (single.correct, single.count, single.percent) == (2, 4, 50)
    assert list(single.interval) == pytest.approx([15.0, 85.0], abs=0.05)
    assert len(report.accuracies) == 12 * 3


def test_clean_accuracy_kept_is_defended_over_undefended(report: Report) -> None:
    kept = {(k.victim, k.defence): k.percent for k in report.kept}
    assert kept["a", "purifier heavy"] == 75
    assert kept["b", "purifier heavy"] == 100
    assert kept[AVERAGE, "purifier heavy"] == pytest.approx(100 * 6 / 7)
    assert kept[AVERAGE, "JPEG"] == pytest.approx(100 * 5 / 7)


def test_the_margin_is_over_the_baseline_that_is_best_at_that_attack(report: Report) -> None:
    margins = {m.attack: m for m in report.margins}
    assert (margins["PGD-10 targeted"].baseline, margins["PGD-10 targeted"].points) == ("JPEG", 50.0)
    assert (margins["PGD-10 untargeted"].baseline, margins["PGD-10 untargeted"].points) == ("TV", 12.5)
    assert margins["average of attacks"].points == 31.25
    assert len(report.margins) == 3
    low, high = margins["PGD-10 targeted"].interval
    assert low < 50 < high


def test_a_photo_is_robust_only_if_every_adaptive_attack_fails(report: Report) -> None:
    least = {a.victim: a for a in report.adaptive if a.attack == LEAST}
    assert {victim: a.correct for victim, a in least.items()} == {"a": 0, "b": 1, AVERAGE: 0.5}
    assert least["a"].count == 2
    assert len(report.adaptive) == 9


def test_a_victim_that_knows_nothing_is_said_not_divided_by() -> None:
    bare = [seen(CLEAN, "a", "none", "none", "00"), seen(CLEAN, "a", "JPEG", "baseline", "01")]
    report = summarise(Measurements(tuple(bare), (), ()))
    assert report.kept == ()
    assert "not one clean photo" in report.warnings[0]


def test_every_number_becomes_a_figure_with_its_command_and_count(report: Report) -> None:
    figures = FigureMaker("nrp evaluate", 3, {"purifier heavy": "noisy"}).figures(report)
    assert len(figures) == len(report.accuracies) + len(report.kept) + len(report.margins) + len(report.adaptive)
    assert len({figure.name for figure in figures}) == len(figures)
    assert {(figure.command, figure.seed) for figure in figures} == {("nrp evaluate", 3)}
    by_name = {figure.name: figure for figure in figures}
    kept = by_name[f"clean accuracy kept, purifier heavy, {AVERAGE}"]
    assert (kept.value, kept.unit, kept.count, kept.interval, kept.note) == (85.71, "%", 4, None, "noisy")
    margin = by_name["margin over the best baseline (JPEG), PGD-10 targeted, eps 4/255, purifier heavy"]
    assert (margin.value, margin.unit) == (50, "points")
    aware = by_name[f"accuracy, {LEAST}, eps 4/255, purifier heavy, {AVERAGE}"]
    assert (aware.value, aware.count, aware.note) == (25, 2, "noisy; attacker knows the purifier")
    assert by_name["accuracy, PGD-10 targeted, eps 4/255, undefended, b"].value == 25


def test_the_text_shows_all_and_warns_loudly(report: Report) -> None:
    text = report_text(report)
    assert "Accuracy in %, average of victims (4 photos, 95 % interval)" in text
    assert "37.5 (" in text
    assert "purifier heavy, PGD-10 targeted, eps 4/255: +50.0 points over JPEG" in text
    assert "average of victims, purifier heavy: 85.7 %" in text
    assert "WARNING: a doubt" in text


def test_a_mode_is_described_in_words() -> None:
    assert mode_note(STATIC, default=False) == "static"
    assert mode_note(PUBLISHED, default=False) == "noise std 0.05 inside the 16/255 ball"
    heavy = InferenceMode(noise_std=0.3, draws=4)
    assert mode_note(heavy, default=True) == "noise std 0.3, mean probability of 4 draws, the default"
