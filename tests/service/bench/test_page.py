from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from service.bench.page import page, spread, table
from service.bench.plots import plot_all, series
from service.bench.rows import Report, Row

ReportOf = Callable[..., Report]


def full(report_of: ReportOf) -> Report:
    figures = {
        "goodput_per_s": 9.5,
        "p50_ms": 100.0,
        "p99_ms": 200.0,
        "rejected": 0.0,
        "rss_peak_mib": 500.0,
        "rss_end_mib": 480.0,
    }
    rows = [
        Row(
            measure="load",
            subject=arm,
            setting=setting,
            round=number,
            figures=figures | {"goodput_per_s": 9.0 + number},
        )
        for arm in ("nrp", "mosec")
        for setting in ("closed 1 client", "closed 32 clients", "open 200 %")
        for number in range(2)
    ]
    figures = {"ms": 12.0, "least_ms": 11.0, "most_ms": 13.0, "runs": 3.0}
    soak = {
        "good": 99.0,
        "requests": 100.0,
        "errors": 1.0,
        "rss_first_mib": 400.0,
        "rss_end_mib": 410.0,
        "growth": 1.025,
    }
    return report_of(
        *rows,
        Row(measure="loop", subject="loop", setting="batch 8", figures={"goodput_per_s": 10.0, "p50_ms": 800.0}),
        Row(measure="single", subject="nrp", setting="authors", figures=figures),
        Row(measure="single", subject="nrp", setting="ours, batch", figures={"ms": 5.0, "share_of_matmul": 0.61}),
        Row(measure="soak", subject="nrp", setting="mixed sizes", figures=soak),
        Row(measure="absent", subject="ray", note="not installed: pip install"),
    )


def test_a_table_has_a_line_a_row() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(("values", "text"), [([], "-"), ([1234.5], "1,234.5"), ([3.0, 1.0, 2.0], "2.0 (1.0 to 3.0)")])
def test_a_figure_of_several_rounds_has_its_range(values: list[float], text: str) -> None:
    assert spread(values, 1) == text


def test_the_page_says_all_that_was_measured_and_what_was_not(report_of: ReportOf) -> None:
    text = page(full(report_of), [("serving-clients.png", "By clients")])
    assert "| this service | 9.50 (9.00 to 10.00) | 100 (100 to 100) | 200 (200 to 200) |" in text
    assert "### Closed loop, clients: 32" in text
    assert "### Open loop, 200 % of the arm's capacity" in text
    assert "| >= 0.9 | 0.95 | met |" in text
    assert "| >= 50x | - | not measured |" in text
    assert "![By clients](plots/serving-clients.png)" in text
    assert "| Ray Serve | not installed: pip install |" in text
    assert "| mosec | 1.00 |" in text
    assert "| mosec | 1.000 (1.000 to 1.000) |" in text
    assert "Best: batch 8" in text
    assert "| nrp | authors | 12.0 | 11.0 to 13.0 | 3 | - |" in text
    assert "| nrp | ours, batch | 5.0 | - | 1 | 61% |" in text
    assert "99 of 100 requests" in text
    assert "1.025" in text
    assert "does not compute in bfloat16" in text


def test_a_run_of_one_part_has_a_page_too(report_of: ReportOf) -> None:
    text = page(report_of(Row(measure="absent", subject="ray", note="why")), [])
    assert "## Bars" in text
    assert "## Under load" not in text
    assert "## Soak" not in text


def test_a_series_is_in_order_of_its_level(report_of: ReportOf) -> None:
    assert series(full(report_of), "nrp", "closed", "goodput_per_s") == [(1, 9.5, 9.0, 10.0), (32, 9.5, 9.0, 10.0)]


def test_equal_rows_make_equal_plots(report_of: ReportOf, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = (plot_all(full(report_of), tmp_path / name) for name in ("one", "two"))
    assert first == second
    assert len(first) == 4
    for name, _ in first:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        with Image.open(tmp_path / "one" / name) as image:
            assert image.size == (1200, 520)


def test_without_load_there_is_nothing_to_plot(report_of: ReportOf, tmp_path: Path) -> None:
    assert plot_all(report_of(), tmp_path) == []
