from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from robustness.errors import EvaluationError
from robustness.results.files import file_name, read_lines, read_rows, replace_section, write_lines, write_row
from robustness.results.row import Row

ROW = Row(
    suite="paper",
    table="T4",
    task="detection",
    attacker="transfer",
    attack="CDA imagenette",
    eps=16,
    surrogate="vgg16",
    victim="tiny-retinanet",
    defence="JPEG 75",
    role="baseline",
    metric="mAP@0.5",
    percent=12.5,
    interval=(10.0, 15.0),
    count=60,
    settings={"iterations": 100, "layers": ["conv3-3"]},
)


def changed(**fields: object) -> Row:
    return Row.model_validate(ROW.model_dump() | fields)


def test_a_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    other = changed(victim="tiny-segnet", percent=None, interval=None, missing="it takes a week", count=0)
    for row in (ROW, other):
        write_row(row, tmp_path / "rows")
    assert sorted(read_rows(tmp_path / "rows"), key=lambda r: r.victim) == [ROW, other]


def test_a_file_can_be_found_by_a_person(tmp_path: Path) -> None:
    name = write_row(ROW, tmp_path).name
    assert name.startswith("t4-detection-cda-imagenette-eps16-vgg16-tiny-retinanet-jpeg-75-map-0.5-")
    assert name.endswith(".json")


def test_a_row_measured_again_replaces_the_first(tmp_path: Path) -> None:
    again = changed(percent=13.0, seed=4, seconds=3.5)
    write_row(ROW, tmp_path)
    write_row(again, tmp_path)
    assert read_rows(tmp_path) == [again]


@pytest.mark.parametrize(
    "fields",
    [
        {"suite": "quick"},
        {"attacker": "aware"},
        {"eps": 8},
        {"surrogate": None},
        {"series": "SSP"},
        {"x": 3.0},
        {"defence": "jpeg-75"},
        {"metric": "mAP 0.5"},
    ],
    ids=str,
)
def test_rows_of_different_things_have_different_files(fields: dict[str, object]) -> None:
    assert file_name(changed(**fields)).casefold() != file_name(ROW).casefold()


def test_a_name_stays_short_enough_for_any_file_system() -> None:
    assert len(file_name(changed(victim="v" * 300, defence="d" * 300))) < 200


def test_no_folder_holds_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "not-there") == []


def test_a_write_that_was_cut_short_is_not_read(tmp_path: Path) -> None:
    path = write_row(ROW, tmp_path)
    (tmp_path / f".{path.name}.new").write_text("{")
    assert read_rows(tmp_path) == [ROW]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"suite": "paper"}', "\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = write_row(ROW, tmp_path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EvaluationError, match=path.name):
        read_rows(tmp_path)


def test_a_row_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    path = write_row(ROW, tmp_path)
    path.write_text(changed(eps=8).model_dump_json())
    with pytest.raises(EvaluationError, match="holds the row of"):
        read_rows(tmp_path)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_row(ROW, tmp_path / "file")


def test_a_figure_is_a_number() -> None:
    with pytest.raises(ValidationError):
        changed(percent=math.nan)
    with pytest.raises(ValidationError):
        changed(interval=(0.0, math.inf))


def test_lines_come_back_and_do_not_depend_on_the_order_of_rows(tmp_path: Path, rows: tuple[Row, ...]) -> None:
    forth, back = tmp_path / "forth.jsonl", tmp_path / "back.jsonl"
    write_lines(rows, forth)
    write_lines(reversed(rows), back)
    assert forth.read_bytes() == back.read_bytes()
    found = read_lines(forth)
    assert {row.identity: row for row in found} == {row.identity: row for row in rows}
    assert len(found) == len(rows)


def test_lines_are_json_with_sorted_keys(tmp_path: Path) -> None:
    write_lines([ROW, changed(eps=8)], tmp_path / "some.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert [line["eps"] for line in lines] == [8, 16]
    assert all(list(line) == sorted(line) for line in lines)


def test_two_figures_of_one_thing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    with pytest.raises(EvaluationError, match="two rows of one thing"):
        write_lines([ROW, changed(percent=13.0)], path)
    assert not path.exists()
    write_lines([ROW], path)
    path.write_text(path.read_text() * 2)
    with pytest.raises(EvaluationError, match="two rows of one thing"):
        read_lines(path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write_lines([ROW, changed(eps=8)], path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(EvaluationError, match=r"some\.jsonl, line 2"):
        read_lines(path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_lines(tmp_path / "not-there.jsonl")


def test_a_section_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    old = [changed(section="a", eps=8), changed(section="a"), changed(section="b", victim="other")]
    for section in ("a", "b"):
        replace_section([row for row in old if row.section == section], section, path)
    fresh = changed(section="a", percent=11.0)
    replace_section([fresh], "a", path)
    assert sorted(read_lines(path), key=lambda row: row.section) == [fresh, old[2]]
