"""`nrp evaluate --suite` and `--card` from the command line to the pages, on tiny models."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from PIL import Image

from model_store.card import Figure
from model_store.store import ModelStore
from robustness.commands import configure_evaluate, run_evaluate
from robustness.errors import EvaluationError
from robustness.results.files import read_lines
from robustness.suite import assembly, checks, commands, pages
from tests.robustness.suite.conftest import TINY

JUDGED = replace(TINY, table="purifier", transfer_eps=(16,), aware_eps=(4,))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        assembly,
        "SUITES",
        MappingProxyType({"quick": TINY, "paper": replace(TINY, paper_tables=True), "purifier": JUDGED}),
    )
    monkeypatch.setattr(checks, "ITERATIONS", (1, 2))
    monkeypatch.setattr(pages, "CARD_SIZES", (16,))
    monkeypatch.setattr(pages, "REPEATS", 1)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    configure_evaluate(parser)
    return run_evaluate(parser.parse_args(words))


@pytest.fixture
def usual(data: Path, store: ModelStore, tmp_path: Path) -> list[str]:
    places = ["--data", str(data), "--store", str(store.root), "--device", "cpu", "--precision", "float32"]
    models = ["--purifier", "noisy", "--surrogate", "features", "--selection-fraction", "0"]
    return [*places, *models, "--output", str(tmp_path / "out"), "--results", str(tmp_path / "results")]


def test_a_suite_ends_in_lines_a_page_and_pictures(
    usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--suite", "quick", *usual) == 0
    rows = read_lines(tmp_path / "results" / "quick.jsonl")
    assert {row.table for row in rows} == {"overview", "checks"}
    page = (tmp_path / "results" / "RESULTS.md").read_text()
    assert "purifier heavy" in page
    assert f"{len(rows)} rows" in capsys.readouterr().out
    for row in rows:
        assert row.command.startswith("nrp evaluate --suite quick --purifier noisy --surrogate features")
        assert str(tmp_path) not in row.command
    with Image.open(tmp_path / "out" / "pictures" / "figures-2-7-8-9-ssp.png") as grid:
        assert grid.width > grid.height > 0 or grid.height > grid.width
    assert not list((tmp_path / "results").rglob("figures-*"))


def test_the_hardware_s_precision_is_written_into_the_command(
    usual: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "computes_in_bfloat16", lambda _: False)
    unsaid = [word for word in usual if word not in ("--precision", "float32")]
    assert run("--suite", "quick", *unsaid) == 0
    rows = read_lines(tmp_path / "results" / "quick.jsonl")
    assert {row.precision for row in rows} == {"float32"}
    assert all("--precision float32" in row.command for row in rows)


def test_the_page_shows_every_suite_there_whichever_came_last(usual: list[str], tmp_path: Path) -> None:
    assert run("--suite", "paper", *usual) == 0
    assert run("--suite", "quick", *usual) == 0
    page = (tmp_path / "results" / "RESULTS.md").read_text()
    assert "suite quick" in page
    assert "### Table 5" in page
    assert "](plots/figure-3.png)" in page
    assert "t-SNE of" in page


def test_a_warning_of_an_earlier_suite_stays_on_the_page(usual: list[str], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "paper.warnings.txt").write_text("the sky has fallen\n")
    assert run("--suite", "quick", *usual) == 0
    assert "the sky has fallen" in (tmp_path / "results" / "RESULTS.md").read_text()


def test_a_card_is_one_page_of_harm_attacks_and_cost(usual: list[str], tmp_path: Path) -> None:
    assert run("--card", *usual) == 0
    assert not (tmp_path / "results" / "RESULTS.md").exists()
    card = (tmp_path / "results" / "card-noisy.md").read_text()
    for part in ("PSNR", "SSIM", "aware", "ms an image", "does not protect"):
        assert part in card


def test_purifiers_are_judged_side_by_side(usual: list[str], tmp_path: Path) -> None:
    words = ["--suite", "purifier", *usual, "--purifier", "noisy,plain"]
    assert run(*words) == 0
    rows = read_lines(tmp_path / "results" / "purifier.jsonl")
    assert {row.table for row in rows} == {"purifier", "bars", "checks"}
    assert {row.defence for row in rows if row.table == "bars"} == {"noisy heavy", "plain static"}
    assert rows[0].command.startswith(
        "nrp evaluate --suite purifier --purifier noisy,plain --surrogate features --data"
    )
    assert "--modes" not in rows[0].command
    assert "**plain static**" in (tmp_path / "results" / "RESULTS.md").read_text()


def test_each_purifier_s_bars_go_into_its_own_card_beside_what_was_there(usual: list[str], store: ModelStore) -> None:
    old = Figure(name="of before", value=1.0, unit="%", count=1, command="nrp", seed=0)
    store.rewrite_card(store.card("noisy").model_copy(update={"figures": (old,)}))
    for _ in range(2):
        assert run("--suite", "purifier", *usual, "--purifier", "noisy,plain", "--write-card") == 0
    for name, defence in (("noisy", "noisy heavy"), ("plain", "plain static")):
        figures = store.card(name).figures
        assert ("of before" in {each.name for each in figures}) == (name == "noisy")
        fresh = [each for each in figures if each.name != "of before"]
        assert len({each.name for each in fresh}) == len(fresh) >= 4
        assert all(f", {defence}, " in each.name for each in fresh)
        assert all("clean and undefended" in each.note and each.command.startswith("nrp evaluate") for each in fresh)
        kept = next(each for each in fresh if ", clean, " in each.name)
        assert kept.note.endswith(f"bar 97: {'met' if kept.value >= 97 else 'missed'}")


def test_only_bars_are_written_into_cards(usual: list[str]) -> None:
    with pytest.raises(EvaluationError, match="--suite purifier"):
        run("--suite", "quick", "--write-card", *usual)


def test_a_defence_card_stands_on_an_overview(usual: list[str]) -> None:
    with pytest.raises(EvaluationError, match="--suite quick or paper"):
        run("--suite", "purifier", "--card", *usual)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--suite quick"),
        (("--suite", "quick"), "--data"),
        (("--suite", "quick", "--data", "/nowhere"), "/nowhere"),
    ],
)
def test_a_useless_command_line_is_refused_with_the_next_step(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        run(*words)


@pytest.mark.parametrize("words", [("--limit", "0"), ("--batch", "x"), ("--selection-fraction", "1"), ("--model", ",")])
def test_an_option_out_of_range_is_refused_before_anything_runs(words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        run("--suite", "quick", *words)
