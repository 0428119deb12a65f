"""README.md states no accuracy that docs/results/imagenet.jsonl does not."""

import re
from pathlib import Path

import pytest

from robustness.results.files import read_lines
from robustness.results.real_networks import unseen_mean
from robustness.results.row import Attacker, Row

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs/results/imagenet.jsonl"
HEAD = "| accuracy in % |"
# How a column of the table is called: the least that attackers of this kind leave at this budget.
COLUMN = re.compile(r"(clean|unaware|transfer) ?(\d*)")
KINDS: dict[str, Attacker] = {"clean": "none", "unaware": "white box", "transfer": "transfer"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    if not RESULTS.is_file():
        pytest.skip("docs/results/imagenet.jsonl is not there yet: make suite writes it")
    return read_lines(RESULTS)


def cells(line: str) -> list[str]:
    return [cell.strip(" *`") for cell in line.strip("|").split("|")]


def test_every_accuracy_in_the_readme_is_measured(rows: list[Row]) -> None:
    """Each cell is the mean of the networks that no training has seen."""
    if HEAD not in README:
        pytest.skip(f"README.md has no table that begins with {HEAD}")
    head, _, *lines = README[README.index(HEAD) :].split("\n\n")[0].splitlines()
    for line in lines:
        name, *figures = cells(line)
        for column, cell in zip(cells(head)[1:], figures, strict=True):
            known = COLUMN.fullmatch(column)
            if known is None:
                continue
            defence = "none" if name == "undefended" else name
            row = unseen_mean(rows, defence, KINDS[known[1]], int(known[2] or 0))
            assert row is not None, f"{defence}, {column}: not measured"
            assert row.percent == pytest.approx(float(cell), abs=0.051), f"{defence}, {column}"
