"""README.md states no figure that the shipped purifier's card does not."""

import re
from pathlib import Path

import pytest

from model_store.store import ModelStore

README = (Path(__file__).parents[1] / "README.md").read_text()
COLUMNS = (
    "clean",
    "PGD-10 targeted, eps 4/255",
    "PGD-10 untargeted, eps 4/255",
    "PGD-10 targeted, eps 8/255",
    "PGD-10 untargeted, eps 8/255",
)


def rows() -> list[list[str]]:
    """The cells of the accuracy table, without its head."""
    lines = [line for line in README.splitlines() if line.startswith("| ")]
    start = next(number for number, line in enumerate(lines) if line.startswith("| accuracy in %"))
    table = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[start + 1 :]]
    return [row for row in table if len(row) == len(COLUMNS) + 1]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_accuracy_in_the_readme_is_the_card_s(row: list[str]) -> None:
    figures = {figure.name: figure.value for figure in ModelStore().card("nrp-lite").figures}
    defence = row[0].replace("`", "")
    for scenario, cell in zip(COLUMNS, row[1:], strict=True):
        assert float(cell) == round(figures[f"accuracy, {scenario}, {defence}, average of victims"], 1)


def test_the_readme_names_the_command_that_measured_it() -> None:
    command = ModelStore().card("nrp-lite").figures[0].command
    assert re.sub(r"\s+", " ", command) in re.sub(r"[\s\\]+", " ", README)


def test_the_table_has_every_baseline_and_the_purifier() -> None:
    names = {row[0].replace("`", "") for row in rows()}
    baselines = {"undefended", "JPEG 75", "JPEG 50", "JPEG 20", "TV 30", "TV 10", "median 3x3"}
    assert baselines <= names
    assert len(names - baselines) >= 3
