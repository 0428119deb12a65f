from __future__ import annotations

import pytest

from robustness.results.bars import BARS, WORDS, bar_for, judged_in, kind_of, unmeasured, verdict
from tests.robustness.results.conftest import made_up


@pytest.mark.parametrize(
    ("kind", "at", "judged", "least"),
    [
        ("clean", 0, "share", 97),
        ("unaware", 2, "points", 5),
        ("unaware", 4, "points", 10),
        ("unaware", 8, "points", 10),
        ("unaware", 16, "points", 5),
        ("transfer", 16, "share", 80),
        ("aware", 4, "share", 35),
        ("scenes", 16, "recovered", 60),
        ("certified", 0.5, "certified", 30),
    ],
)
def test_the_bars_are_these(kind: str, at: float, judged: str, least: float) -> None:
    bar = bar_for(kind, at)  # type: ignore[arg-type]
    assert bar is not None
    assert (bar.judged, bar.least) == (judged, least)
    assert judged_in(kind, at) == judged  # type: ignore[arg-type]


def test_there_is_one_bar_for_a_figure_and_no_other() -> None:
    places = [(bar.kind, at) for bar in BARS for at in bar.at]
    assert len(places) == len(set(places)) == 9
    assert all(bar.judged in WORDS and bar.how for bar in BARS)


def test_what_has_no_bar_is_judged_as_its_kind_is() -> None:
    assert bar_for("aware", 8) is None
    assert judged_in("aware", 8) == "share"
    assert judged_in("unaware", 3) == "points"


@pytest.mark.parametrize(("percent", "says"), [(10.0, "met"), (9.999, "missed"), (-3.0, "missed"), (40.0, "met")])
def test_a_bar_is_met_at_its_figure_and_missed_below(percent: float, says: str) -> None:
    row = made_up(50.0).model_copy(update={"percent": percent})
    assert verdict(bar_for("unaware", 8), row) == says
    assert verdict(None, row) == "no bar"


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert verdict(bar_for("unaware", 8), made_up(None)) == "not measured"
    absent = unmeasured([("clean", 0.0), ("unaware", 8.0), ("scenes", 16.0)])
    assert [(bar.kind, at) for bar, at in absent] == [
        ("unaware", 4),
        ("unaware", 2),
        ("unaware", 16),
        ("transfer", 16),
        ("aware", 4),
        ("certified", 0.5),
    ]


def test_an_attacker_is_of_a_kind() -> None:
    assert [kind_of(attacker) for attacker in ("none", "white box", "transfer", "aware")] == [  # type: ignore[arg-type]
        "clean",
        "unaware",
        "transfer",
        "aware",
    ]
