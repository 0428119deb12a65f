"""Pages: what a finished suite leaves for people, RESULTS.md and a purifier's defence card."""

from __future__ import annotations

from pathlib import Path

from model_store.card import Card
from model_store.store import ModelStore
from robustness.harm import measure_cost, measure_harm
from robustness.results.costs import CostLine
from robustness.results.defence_card import defence_card
from robustness.results.files import write_text
from robustness.results.page import render_folder
from robustness.suite.pictures import draw_pictures, kept_pictures
from robustness.suite.session import Session
from robustness.victims.classification import Classifier

SECONDS_AN_HOUR = 3600
CARD_SIZES = (128, 224)
REPEATS = 10


def render_page(session: Session, results: Path, pictures: Path) -> Path:
    """Write RESULTS.md in ``results`` from the rows of all suites there; pictures of the data go to ``pictures``."""
    warnings = results / f"{session.recorder.suite}.warnings.txt"
    write_text(warnings, "".join(f"{warning}\n" for warning in session.warnings))
    draw_pictures(session, pictures)
    return refresh_page(session.store, results)


def refresh_page(store: ModelStore, results: Path) -> Path:
    """Write RESULTS.md again from what lies in ``results``, with the warnings that its suites gave."""
    told = [line for path in sorted(results.glob("*.warnings.txt")) for line in path.read_text().splitlines()]
    return render_folder(results, training_costs(store), kept_pictures(results), warnings=told)


def render_card(session: Session, results: Path) -> Path:
    """Write the purifier's defence card from the session's rows, with its harm and its cost measured now."""
    arena = session.arenas["classification"]
    victims = tuple(victim for victim in arena.victims if isinstance(victim, Classifier))
    purified = session.purified[0]
    card = session.store.card(session.purifier)
    harm = measure_harm(purified, arena.bench.examples, victims, arena.bench.conditions)
    cost = [measure_cost(purified, size, REPEATS, precision=arena.bench.conditions.precision) for size in CARD_SIZES]
    overview = [row for row in session.recorder.rows if row.table == "overview"]
    path = results / f"card-{card.name}.md"
    write_text(path, defence_card(card, overview, harm, cost))
    return path


def training_costs(store: ModelStore) -> list[CostLine]:
    """Table 2: what the purifiers and the adversarially trained classifiers of the store took to train."""
    return [line for card in store.cards() if (line := _line(card)) is not None]


def _line(card: Card) -> CostLine | None:
    robust = bool(card.recipe.get("adversarial_eps"))
    if card.training_cost is None or not (robust or card.task == "purifier"):
        return None
    hours = card.training_cost.seconds / SECONDS_AN_HOUR
    return CostLine(card.name, 1, hours, card.training_cost.hardware, needs_labels=robust, dataset_specific=robust)
