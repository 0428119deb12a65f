from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robustness.progress import Progress
from robustness.results.files import read_lines, read_rows, write_lines
from robustness.suite import checks
from robustness.suite.run import run_suite, sections_of
from robustness.suite.session import Session

QUICK = ["unaware attackers", "attackers who know", "self-checks", "T6"]


def titles(session: Session) -> list[str]:
    return [title for title, _ in sections_of(session)]


def test_a_suite_measures_what_there_are_models_and_data_for(session: Session) -> None:
    assert titles(session) == QUICK
    photos, scenes = session.arenas["classification"], session.arenas["segmentation"]
    assert titles(replace(session, arenas={"segmentation": scenes})) == ["T6"]
    assert titles(replace(session, arenas={"classification": photos})) == QUICK[:3]
    cells = replace(scenes, task="detection")
    assert titles(replace(session, arenas={"detection": cells})) == ["T7"]


def test_a_run_measures_each_thing_once_and_again_the_same(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attacks_run: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(checks, "ITERATIONS", (1, 2))
    run_suite(session, Progress(quiet=True))
    rows = list(session.recorder.rows)
    write_lines(rows, tmp_path / "quick.jsonl")  # refuses two rows of one thing
    assert len(read_lines(tmp_path / "quick.jsonl")) == len(read_rows(session.recorder.folder)) == len(rows)
    assert {row.table for row in rows} == {"overview", "checks", "T6"}
    assert {row.count for row in rows if row.table == "T6"} == {2}

    session.recorder.rows.clear()
    attacks_run.clear()
    run_suite(session, Progress(quiet=True))
    assert attacks_run == []
    assert [replace_seconds(row.model_dump()) for row in session.recorder.rows] == [
        replace_seconds(row.model_dump()) for row in rows
    ]


def replace_seconds(row: dict[str, object]) -> dict[str, object]:
    return {**row, "seconds": 0}
