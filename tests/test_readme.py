"""README.md states no accuracy that docs/results/purifier.jsonl does not."""

import re
from pathlib import Path

import pytest

from robustness.defences import BASELINES
from robustness.results.averages import mean_of_victims
from robustness.results.files import read_lines
from robustness.results.row import Row

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = tuple(row for row in read_lines(ROOT / "docs/results/purifier.jsonl") if row.table == "purifier")
COLUMNS = (
    ("clean", 0),
    ("PGD-50 untargeted", 4),
    ("PGD-50 untargeted", 8),
    ("AutoAttack standard", 2),
    ("AutoAttack standard", 4),
    ("AutoAttack standard", 8),
    ("AutoAttack standard", 16),
)


def lines() -> list[list[str]]:
    """The cells of the accuracy table, without its head."""
    table = README[README.index("| accuracy in %") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in table]


def measured(attack: str, eps: int, defence: str) -> Row:
    found = [
        row
        for row in ROWS
        if (row.task, row.attack, row.eps, row.defence) == ("classification", attack, eps, defence)
        and row.attacker in ("none", "white box")
    ]
    return mean_of_victims(found)


@pytest.mark.parametrize("line", lines(), ids=lambda line: line[0])
def test_every_accuracy_in_the_readme_is_a_row_s(line: list[str]) -> None:
    defence = "none" if line[0] == "undefended" else line[0]
    assert [float(cell) for cell in line[1:]] == [
        pytest.approx(measured(attack, eps, defence).percent, abs=0.051) for attack, eps in COLUMNS
    ]


def test_the_readme_names_the_command_that_measured_it() -> None:
    (command,) = {row.command for row in ROWS}
    assert re.sub(r"\s+", " ", command) in re.sub(r"[\s\\]+", " ", README)


def test_the_table_has_every_baseline_and_both_shipped_purifiers() -> None:
    names = [line[0] for line in lines()]
    assert {"undefended", *(defence.name for defence in BASELINES)} - {"bit depth 4"} <= set(names)
    assert {name.split()[0] for name in names if name.startswith("nrp-")} == {"nrp-fast", "nrp-strong"}
