from __future__ import annotations

import dataclasses

import pytest

from robustness.results.published import FIGURES, PUBLISHED, T1, T2, T3, T5, T6, T7, PublishedFigure


def test_every_line_has_a_figure_for_every_column() -> None:
    for table in PUBLISHED.values():
        assert {len(figures) for figures in table.lines.values()} == {len(table.columns)}
        assert all(0 <= figure.percent <= 100 for figures in table.lines.values() for figure in figures)


@pytest.mark.parametrize(
    ("shown", "figure"),
    [
        ("0.66", T1.at("Original", "PGD-10 targeted")),
        ("~73.5 ± 1.5", T1.at("NRP", "clean")),
        ("~63.0 ± 2.0", T1.at("NRP", "PGD-10 targeted")),
        ("~5.3", T3.at("SSP", "Inc-v3")),
        ("25.9", T3.at("SSP", "Adv-v3")),
        ("100.0", T5.at("top-5", "IncRes-v2")),
        ("32.59", T6.at("none", "SSP 16")),
        ("~4.7", T7.at("JPEG 75", "SSP 16")),
        ("9.56", T7.at("TV 10", "SSP 16")),
        ("None", T6.at("purifier static", "clean")),
        ("None", T6.at("none", "SSP 32")),
    ],
)
def test_the_papers_figures(shown: str, figure: PublishedFigure | None) -> None:
    assert str(figure) == shown


def test_nobody_can_change_them() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        T1.lines["Original"][0].percent = 100.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        PUBLISHED["T1"] = T3  # type: ignore[index]
    with pytest.raises(TypeError):
        T1.lines["NRP"] = T1.lines["Original"]  # type: ignore[index]


def test_training_cost_and_figures() -> None:
    assert [(cost.devices, cost.hours, cost.needs_labels) for cost in T2] == [(128, 52, True), (4, 28, False)]
    assert sorted(FIGURES) == list(range(1, 10))
