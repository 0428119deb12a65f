"""`nrp evaluate --suite` and `--card` from the command line to the pages, on tiny models."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from PIL import Image

from model_store.store import ModelStore
from robustness.commands import configure_evaluate, run_evaluate
from robustness.errors import EvaluationError
from robustness.results.files import read_lines
from robustness.suite import assembly, checks, commands, pages
from tests.robustness.suite.conftest import TINY


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "QUICK", TINY)
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


def test_only_bars_are_written_into_cards(usual: list[str]) -> None:
    with pytest.raises(EvaluationError, match="--suite imagenet"):
        run("--suite", "quick", "--write-card", *usual)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--suite imagenet or quick"),
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
