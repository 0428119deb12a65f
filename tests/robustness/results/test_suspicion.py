from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from robustness.results.row import Row
from robustness.results.suspicion import LEAST, plot_roc, suspicion_section
from tests.robustness.results.conftest import made_up

CURVE = [[0.0, 10.0], [1.0, 40.0], [100.0, 100.0]]


def row(percent: float | None, metric: str, series: str, **given: Any) -> Row:
    fields: dict[str, Any] = {"suite": "suspicion", "table": "suspicion", "defence": "purifier noise", "eps": 8}
    fields |= {"attacker": "white box", "attack": "DIM"}
    return made_up(percent, **{**fields, **given, "metric": metric, "series": series})


def rows() -> list[Row]:
    clean = {"attacker": "none", "attack": "clean", "eps": 0}
    return [
        row(1.0, "false positives", "score", **clean),
        row(75.0, "accuracy", "policy suspicious", **clean),
        row(90.0, "AUC", "score", settings={"threshold": 3.0, "roc": CURVE, "clean": 979}),
        row(40.0, "detected", "score"),
        row(30.0, "accuracy", "policy suspicious"),
        row(None, "detected where fooled", "score", eps=4),
        row(20.0, "accuracy", "policy suspicious", eps=4),
        row(5.0, "accuracy", "policy suspicious", attacker="aware", attack=LEAST),
        row(50.0, "AUC", "score", attacker="aware", attack="PGD hiding", settings={"roc": CURVE, "clean": 979}),
        row(15.0, "accuracy", "policy suspicious", attacker="aware", attack="PGD hiding"),
    ]


def test_without_rows_there_is_no_section() -> None:
    assert suspicion_section([]) == []


def test_clean_photos_have_a_table_of_their_own_and_the_least_comes_last() -> None:
    heading, _, name, clean, attacked = suspicion_section(rows())
    assert heading == "## Suspicion"
    assert name == "### purifier noise"
    assert "| clean | 0 | 100 | 1.0 (" in clean
    lines = [line.split(" | ")[2:4] for line in attacked.splitlines() if line.startswith("| tiny")]
    assert lines == [["DIM", "4"], ["DIM", "8"], ["PGD hiding", "8"], [LEAST, "8"]]
    assert "Not measured: it takes a week." in attacked


def test_the_curves_are_drawn_once_for_all_attacks(tmp_path: Path) -> None:
    (picture,) = plot_roc(rows(), tmp_path)
    with Image.open(tmp_path / "suspicion-roc.png") as image:
        assert image.size == (1200, 680)
    assert picture.section == "suspicion"
    assert "100 attacked photos against 979 clean ones" in picture.caption
    assert list(plot_roc([made_up(50.0)], tmp_path)) == []
