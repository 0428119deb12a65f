from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.bench.errors import BenchError
from service.bench.rows import Report, Row, read_report, write_report

ROWS = (
    Row(measure="load", subject="nrp", setting="closed 1 client", round=1, figures={"p50_ms": 1.5}),
    Row(measure="absent", subject="ray", note="not installed"),
)


def test_a_report_is_read_back_as_it_was_written(report_of: Callable[..., Report], tmp_path: Path) -> None:
    report = report_of(*ROWS)
    write_report(report, tmp_path / "new" / "serving.jsonl")
    assert read_report(tmp_path / "new" / "serving.jsonl") == report
    assert len((tmp_path / "new" / "serving.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_damaged_line_is_named(report_of: Callable[..., Report], tmp_path: Path, line: int) -> None:
    path = tmp_path / "serving.jsonl"
    write_report(report_of(*ROWS), path)
    lines = path.read_text().splitlines()
    lines[line - 1] = lines[line - 1].replace('"', "'", 3)
    path.write_text("\n".join(lines))
    with pytest.raises(BenchError, match=f"line {line} is damaged"):
        read_report(path)


def test_no_file_and_no_folder_are_said_in_one_line(report_of: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="run `nrp bench` first"):
        read_report(tmp_path / "serving.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="give another folder"):
        write_report(report_of(), tmp_path / "file" / "serving.jsonl")


def test_figures_of_all_rounds_are_found_by_what_was_measured(report_of: Callable[..., Report]) -> None:
    again = ROWS[0].model_copy(update={"round": 2, "figures": {"p50_ms": 2.5}})
    report = report_of(*ROWS, again)
    assert report.by_round("load", "nrp", "closed 1 client", "p50_ms") == [(1, 1.5), (2, 2.5)]
    assert report.values("load", "nrp", "closed 1 client", "p99_ms") == []
