from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustness.errors import EvaluationError
from robustness.results.costs import CostLine
from robustness.results.files import read_lines, write_lines
from robustness.results.page import render, render_folder
from robustness.results.picture import Picture
from robustness.results.row import Row

COSTS = (CostLine("NRP (here)", 2, 9.0, "CPU cores", needs_labels=False, dataset_specific=False),)


@pytest.fixture(scope="module")
def folder(rows: tuple[Row, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the paper suite, and of a quick one that has only the overview and table 5."""
    folder = tmp_path_factory.mktemp("results")
    write_lines(rows, folder / "paper.jsonl")
    quick = [
        row.model_copy(update={"suite": "quick", "command": "nrp evaluate --suite quick"})
        for row in rows
        if row.table in ("overview", "T5")
    ]
    write_lines(quick, folder / "quick.jsonl")
    grids = folder.parent / "images" / "grid.png"
    picture = Picture(grids, "grids", "clean and purified", "A drawn ball.")
    render_folder(folder, COSTS, [picture], warnings=["loss fell with more steps"], notes={"T6": "Half resolution."})
    return folder


@pytest.fixture
def page(folder: Path) -> str:
    return (folder / "RESULTS.md").read_text(encoding="utf-8")


def test_the_page_has_every_table_and_figure(page: str) -> None:
    for number in range(1, 8):
        assert page.count(f"### Table {number}:") == 1
    for number in (1, 6):
        assert f"### Figure {number}" in page
    assert "suite paper measured" in page
    assert page.count("| top-1 | 500 |") == 2


def test_each_table_says_what_differs_from_the_paper(page: str) -> None:
    assert page.count("so compare the pattern, not the level.") == 7
    assert "The paper measured SegNet-Basic on the CamVid test set" in page
    assert "tiny-segnet on photos/val (20\N{EN DASH}60 images)" in page
    assert "Half resolution." in page


def test_the_page_says_what_was_run(page: str) -> None:
    for words in (
        "`nrp evaluate --suite paper --data photos/val`",
        "`nrp evaluate --suite quick`",
        "tiny-vgg `abababababab`",
        "photos/val `efefefefefef`",
        "torch 2.15.0",
        "classification 32",
    ):
        assert words in page


def test_the_headline_comes_first_and_names_the_suite(page: str) -> None:
    heads = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert heads[:2] == ["In one table: accuracy at eps 8, suite paper", "In one table: accuracy at eps 8, suite quick"]
    assert heads[-2:] == ["Self-checks", "What was not measured"]


def test_pictures_are_linked_relatively_and_are_there(page: str, folder: Path) -> None:
    links = re.findall(r"!\[[^]]*]\(([^)]*)\)", page)
    assert len(links) == 7
    assert "../images/grid.png" in links
    assert all((folder / link).is_file() for link in links if link.startswith("plots/"))


def test_doubts_and_gaps_are_told(page: str) -> None:
    assert "**Warning:** loss fell with more steps." in page
    assert "* T4 of suite paper, 1 cell: it takes a week." in page
    assert "no suite shown here has" not in page


def test_rendering_again_needs_the_files_alone(folder: Path, page: str, tmp_path: Path) -> None:
    found = [row for name in ("quick", "paper") for row in read_lines(folder / f"{name}.jsonl")]
    again = render(found, COSTS, (), tmp_path).read_text(encoding="utf-8").splitlines()
    assert [line for line in again if line not in page.splitlines()] == [
        "This rendering was not told what the self-checks found."
    ]


def test_a_quick_suite_alone_says_what_it_lacks(rows: tuple[Row, ...], tmp_path: Path) -> None:
    quick = [row.model_copy(update={"suite": "quick"}) for row in rows if row.table == "overview"]
    text = render(quick, (), (), tmp_path, warnings=()).read_text(encoding="utf-8")
    assert "### Table" not in text
    assert "No self-check raised a warning." in text
    assert "table 1, table 2, table 3, table 4, table 5, table 6, table 7, figure 1, figure 6" in text


def test_nothing_and_unknown_tables_are_errors(rows: tuple[Row, ...], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no row to render"):
        render((), (), (), tmp_path)
    with pytest.raises(EvaluationError, match="no such table"):
        render([rows[0].model_copy(update={"table": "T9"})], (), (), tmp_path)


def test_the_serving_benchmarks_lines_are_passed_over(rows: tuple[Row, ...], tmp_path: Path) -> None:
    write_lines(rows, tmp_path / "imagenet.jsonl")
    (tmp_path / "serving.jsonl").write_text('{"arm": "nrp"}\n')
    assert render_folder(tmp_path, ()).is_file()


def test_a_hole_in_a_table_stops_the_page(rows: tuple[Row, ...], tmp_path: Path) -> None:
    holed = [row for row in rows if (row.table, row.victim) != ("T5", "tiny-vgg") or row.metric == "top-1"]
    with pytest.raises(EvaluationError, match="metric 'top-5', victim 'tiny-vgg'"):
        render(holed, (), (), tmp_path)
    assert not (tmp_path / "RESULTS.md").exists()
