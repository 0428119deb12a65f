"""Pictures: the paper's image figures on this run's own data.

Grids show photos, which may not be anyone's to publish: they go to the run's own folder, never beside the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model_store.pixels import to_bytes
from robustness.judgement import Trial
from robustness.results.grids import (
    Panel,
    box_legend,
    grid,
    mask_legend,
    paint_boxes,
    paint_mask,
    perturbation,
    write_grid,
)
from robustness.results.order import natural
from robustness.results.picture import Picture
from robustness.seeds import derive_seed
from robustness.suite.session import Arena, Session
from robustness.suite.threats import named
from robustness.victims.classification import Classifier
from robustness.victims.detection import Detector
from robustness.victims.segmentation import Segmenter
from robustness.victims.victim import Victim

EPS = 16
EXAMPLES = 4
HEIGHT = 180
FACTOR = 8.0


def draw_pictures(session: Session, folder: Path) -> None:
    """Draw the grids into ``folder``."""
    for arena in session.arenas.values():
        _write_grids(session, arena, folder)


def kept_pictures(results: Path) -> list[Picture]:
    """What any suite drew into ``results`` for the page: each suite writes the page anew.

    A text file beside a picture holds its title, in a line of its own, and its caption.
    """
    found = []
    for words in sorted((results / "plots").glob("figure-*.txt"), key=lambda path: natural(path.name)):
        title, _, caption = words.read_text(encoding="utf-8").strip().partition("\n")
        if words.with_suffix(".png").is_file():
            found.append(Picture(words.with_suffix(".png"), "grids", title, caption))
    return found


def _write_grids(session: Session, arena: Arena, folder: Path) -> None:
    few = arena.first(EXAMPLES)
    numbers = {"classification": "figures-2-7-8-9", "segmentation": "figure-4", "detection": "figure-5"}
    threat, victim = session.surrogate.threat(named(session, "SSP", EPS)), arena.victims[0]
    trial = session.attack(few, threat, (victim,))
    rows = [_row(session, few, trial, victim, place) for place in range(len(few.bench.examples))]
    heads = ("clean", f"SSP, {EPS}/255", f"perturbation x{FACTOR:g}", "purified")
    write_grid(grid(rows, column_titles=heads, legend=_legend(victim)), folder / f"{numbers[arena.task]}-ssp.png")


@torch.inference_mode()
def _row(session: Session, arena: Arena, trial: Trial, victim: Victim, place: int) -> list[Panel | None]:
    clean, attacked = arena.bench.examples.pixels[place], trial.examples.pixels[place]
    conditions = arena.bench.conditions
    seed = derive_seed(conditions.seed, "defence", place)
    with conditions.autocast():
        versions = session.purified[0].draws(conditions.floats(attacked.unsqueeze(0)), [seed])
        purified = to_bytes(versions.float().mean(dim=1))[0].cpu()
        panels: list[Panel | None] = [
            _panel(arena, victim, conditions.floats(pixels.unsqueeze(0)).unsqueeze(1), pixels, place)
            for pixels in (clean, attacked)
        ]
        panels.append(perturbation(attacked, clean, FACTOR))
        panels.append(_panel(arena, victim, versions, purified, place))
    return panels


def _panel(arena: Arena, victim: Victim, versions: Tensor, pixels: Tensor, place: int) -> Panel:
    """What the victim makes of one image, painted on it or said below it."""
    answers = victim.answer(versions)
    if isinstance(victim, Segmenter):
        return Panel(paint_mask(pixels, answers["mask"][0], victim.classes))
    if isinstance(victim, Detector):
        boxes, labels, scores = (answers[key][0] for key in ("boxes", "labels", "scores"))
        return Panel(paint_boxes(pixels, boxes, labels, scores, height=HEIGHT))
    logs = answers["log_probabilities"][0]
    guess = int(logs.argmax())
    right = guess == int(arena.bench.examples.truths["labels"][place])
    words = f"{_class_name(victim, guess)} {float(logs[guess].exp()):.0%}"
    return Panel(pixels, words, "right" if right else "wrong")


def _class_name(victim: Victim, guess: int) -> str:
    names = victim.classes if isinstance(victim, Classifier) else ()
    return names[guess] if guess < len(names) else str(guess)


def _legend(victim: Victim) -> Sequence[tuple[str, tuple[int, int, int]]]:
    if isinstance(victim, Segmenter):
        return mask_legend(victim.classes)
    return box_legend(victim.classes) if isinstance(victim, Detector) else ()
