from __future__ import annotations

import math

import pytest

from model_store.card import Card, Inference, Source
from model_store.inference import STATIC
from robustness.errors import EvaluationError
from robustness.results.averages import MEAN
from robustness.results.defence_card import Cost, Harm, defence_card
from robustness.results.overview import Overview
from robustness.results.row import Row

CARD = Card(
    name="tiny-purifier",
    summary="a purifier made up for a test",
    task="purifier",
    architecture="identity",
    sha256="cd" * 32,
    inference=Inference(default="static", modes={"static": STATIC}),
    training_data=(Source(name="photos/train", images=12, terms="none"),),
    limits=("Grey images were never seen.",),
)
HARM = (
    Harm("purifier static", "tiny-resnet", 31.25, 0.912, 94.0, 100),
    Harm("purifier static", "tiny-vgg", math.inf, 1.0, 100.0, 100),
)
COST = (Cost("purifier static", 12.34, 128, 1, "cpu", 2, "bfloat16"),)


@pytest.fixture
def overview(rows: tuple[Row, ...]) -> list[Row]:
    return [row for row in rows if row.table == "overview"]


def lines_of(text: str, *begin: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {' | '.join(begin)} |")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_clean_harm_is_told_by_victim(overview: list[Row]) -> None:
    text = defence_card(CARD, overview, HARM, COST)
    clean = {(row.victim, row.defence): row.percent for row in overview if row.attack == "clean"}
    ((_, _, bare, behind, lost, alike, psnr, ssim, _, count),) = lines_of(text, "purifier static", "tiny-resnet")
    assert bare.startswith(f"{clean['tiny-resnet', 'none']:.1f} (")
    assert behind.startswith(f"{clean['tiny-resnet', 'purifier static']:.1f} (")
    assert lost == "+3.0"
    assert alike.startswith("94.0 (87.5")
    assert (psnr, ssim, count) == ("31.2 dB", "0.912", "100")
    assert lines_of(text, "purifier static", "tiny-vgg")[0][6] == "unchanged"


def test_robustness_stands_beside_the_undefended_and_the_best_baseline(overview: list[Row]) -> None:
    text = defence_card(CARD, overview, HARM, COST)
    whole = Overview(overview)
    for eps in (2, 4, 8, 16):
        for kind in ("white box", "transfer", "aware"):
            ((_, _, bare, best, *modes, _),) = lines_of(text, str(eps), kind)
            assert len(modes) == 2
            assert all("(" in cell for cell in (bare, *modes))
            if kind == "aware":
                assert best == "\N{MIDDLE DOT}"
                assert bare == lines_of(text, str(eps), "white box")[0][2]
                continue
            baselines = {
                name: whole.least(kind, eps, MEAN, name)  # type: ignore[arg-type]
                for name, role in whole.defences
                if role == "baseline"
            }
            figures = {name: row.percent for name, row in baselines.items() if row is not None and row.percent}
            assert best.endswith(f", {max(figures, key=lambda name: figures[name])}")


def test_cost_and_limits_are_told(overview: list[Row]) -> None:
    text = defence_card(CARD, overview, HARM, COST)
    assert "| purifier static | cpu | bfloat16 | 2 | 128 x 128 | 1 | 12.3 |" in text
    assert "* Grey images were never seen." in text
    assert "No figure here is a guarantee" in text
    assert "At eps 16, BPDA PGD-100 leaves" in text
    assert "Default mode: static." in text


def test_a_purifier_nobody_attacked_knowingly_says_so(overview: list[Row]) -> None:
    gone = {"percent": None, "interval": None, "missing": "no time"}
    rows = [row.model_copy(update=gone) if row.attacker == "aware" else row for row in overview]
    text = defence_card(CARD, rows, HARM, COST)
    assert "Not one figure was measured: expect none of the protection above." in text
    assert "\N{EN DASH} (no time)" in text


def test_other_weights_and_other_purifiers(overview: list[Row]) -> None:
    with pytest.raises(EvaluationError, match="other weights"):
        defence_card(CARD.model_copy(update={"sha256": "00" * 32}), overview, HARM, COST)
    with pytest.raises(EvaluationError, match="no row is of another"):
        defence_card(CARD.model_copy(update={"name": "another"}), overview, HARM, COST)


def test_what_is_lacking_is_named(overview: list[Row]) -> None:
    with pytest.raises(EvaluationError, match="its harm and its cost"):
        defence_card(CARD, overview, (), COST)
    stranger = Harm("purifier static", "unknown", 30.0, 0.9, 94.0, 100)
    with pytest.raises(EvaluationError, match="victim unknown"):
        defence_card(CARD, overview, (stranger,), COST)
