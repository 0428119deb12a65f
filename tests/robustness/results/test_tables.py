from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from robustness.errors import EvaluationError
from robustness.results.costs import CostLine
from robustness.results.published import PUBLISHED
from robustness.results.row import Row
from robustness.results.tables import TABLES, cost_table, table_of


def parsed(markdown: str) -> list[dict[str, str]]:
    """Every line of every Markdown table in a text, by the table's heads."""
    found: list[dict[str, str]] = []
    heads: list[str] = []
    for line in markdown.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")] if line.startswith("|") else []
        if not parts:
            heads = []
        elif not heads:
            heads = parts
        elif not set(parts) <= {"---", "---:"}:
            found.append(dict(zip(heads, parts, strict=True)))
    return found


def of(rows: Sequence[Row], table: str) -> list[Row]:
    return [row for row in rows if row.table == table]


def shown(row: Row) -> str:
    assert row.percent is not None
    assert row.interval is not None
    return f"{row.percent:.1f} ({row.interval[0]:.1f}\N{EN DASH}{row.interval[1]:.1f})"


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_is_shown_with_its_interval(name: str, rows: tuple[Row, ...]) -> None:
    text = table_of(name, rows)
    for row in of(rows, name):
        if not row.missing:
            assert shown(row) in text


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_of_the_paper_is_beside_or_below(name: str, rows: tuple[Row, ...]) -> None:
    parts = {part for line in parsed(table_of(name, rows)) for part in line.values()}
    for figures in PUBLISHED[name].lines.values():
        assert {str(figure) for figure in figures} <= parts


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_that_lacks_its_row_is_an_error(name: str, rows: tuple[Row, ...]) -> None:
    mine = of(rows, name)
    needed = [row for row in mine if not (name == "T4" and row.attack == "clean")]
    for gone in needed:
        with pytest.raises(EvaluationError, match="no row for"):
            table_of(name, [row for row in mine if row is not gone])


@pytest.mark.parametrize("name", TABLES)
def test_a_suite_without_the_table_leaves_it_out(name: str, rows: tuple[Row, ...]) -> None:
    assert table_of(name, [row for row in rows if row.table != name]) == ""


@pytest.mark.parametrize("name", TABLES)
def test_two_rows_for_one_cell_are_an_error(name: str, rows: tuple[Row, ...]) -> None:
    mine = of(rows, name)
    with pytest.raises(EvaluationError, match="two rows for one cell"):
        table_of(name, [*mine, mine[0].model_copy(update={"seed": 1})])


def test_an_error_names_the_cell(rows: tuple[Row, ...]) -> None:
    mine = [row for row in of(rows, "T6") if (row.defence, row.eps) != ("TV 10", 8)]
    with pytest.raises(EvaluationError, match=r"T6 of suite paper .* attack 'SSP', eps 8, .* defence 'TV 10'"):
        table_of("T6", mine)


def test_two_suites_are_not_mixed(rows: tuple[Row, ...]) -> None:
    mine = of(rows, "T5")
    with pytest.raises(EvaluationError, match="one suite in table T5"):
        table_of("T5", [*mine, mine[0].model_copy(update={"suite": "quick"})])


def test_a_row_without_a_place_is_an_error_not_left_out(rows: tuple[Row, ...]) -> None:
    mine = of(rows, "T5")
    stray = mine[0].model_copy(update={"attack": "FGSM", "eps": 4})
    with pytest.raises(EvaluationError, match="no cell for the row attack 'FGSM', eps 4"):
        table_of("T5", [*mine, stray])


def test_a_figure_without_interval_is_an_error(rows: tuple[Row, ...]) -> None:
    mine = of(rows, "T5")
    with pytest.raises(EvaluationError, match="has no interval"):
        table_of("T5", [mine[0].model_copy(update={"interval": None}), *mine[1:]])


def test_a_missing_cell_is_a_dash_with_its_reason(rows: tuple[Row, ...]) -> None:
    text = table_of("T4", rows)
    (line,) = [line for line in parsed(text) if line["attack"] == "CDA camvid"]
    assert line["eps 16"] == "\N{EN DASH} <sup>1</sup>"
    assert "<sup>1</sup> Not measured: it takes a week." in text


def test_footnotes_are_numbered_by_reason(rows: tuple[Row, ...]) -> None:
    gone = {"percent": None, "interval": None, "count": 0}
    mine = [
        row.model_copy(update={**gone, "missing": "why not?" if row.metric == "top-1" else "no time"})
        for row in of(rows, "T5")
    ]
    text = table_of("T5", mine)
    assert re.findall(r"<sup>(\d)</sup> Not measured: ([^<\n]*)", text) == [("1", "why not?"), ("2", "no time.")]
    assert {part for part in parsed(text)[0].values() if "sup" in part} == {"\N{EN DASH} <sup>1</sup>"}


def test_table_1_sets_the_papers_nrp_beside_the_aware_attacker(rows: tuple[Row, ...]) -> None:
    lines = {line["defence"]: line for line in parsed(table_of("T1", rows))}
    assert list(lines) == [
        "original",
        "adversarial training",
        "NRP dynamic",
        "NRP dynamic, purifier-aware",
        "NRP static",
    ]
    assert lines["NRP dynamic, purifier-aware"]["paper: attacked"] == "~63.0 ± 2.0"
    assert lines["NRP dynamic"]["paper: attacked"] == "\N{MIDDLE DOT}"
    assert lines["adversarial training"]["victim"] == "tiny-robust"
    assert lines["adversarial training"]["paper: clean"] == "65.3"


def test_table_2_has_the_papers_lines_and_ours() -> None:
    ours = CostLine("NRP (here)", 2, 9.25, "CPU cores", needs_labels=False, dataset_specific=False)
    lines = parsed(cost_table([ours]))
    assert [(line["source"], line["devices"], line["hours"]) for line in lines] == [
        ("paper", "128", "52"),
        ("paper", "4", "28"),
        ("ours", "2", "9.2"),
    ]


def test_table_3_has_no_figure_of_a_model_attacked_through_itself(rows: tuple[Row, ...]) -> None:
    lines = [line for line in parsed(table_of("T3", rows)) if line.get("surrogate") == "tiny-vgg"]
    assert [line["tiny-vgg"] for line in lines] == ["\N{MIDDLE DOT}"]
    assert "(" in lines[0]["tiny-resnet"]


def test_table_6_has_the_purifiers_that_the_paper_lacks_and_who_knows_them(rows: tuple[Row, ...]) -> None:
    lines = {line["defence"]: line for line in parsed(table_of("T6", rows))}
    assert lines["none"]["paper: SSP 16"] == "32.59"
    assert lines["purifier static"]["paper: SSP 16"] == "\N{MIDDLE DOT}"
    assert "(" in lines["purifier static"]["BPDA PGD 16, aware"]
    assert lines["JPEG 75"]["BPDA PGD 16, aware"] == "\N{MIDDLE DOT}"
