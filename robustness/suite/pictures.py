"""Pictures: the paper's image figures on this run's own data, and figure 3's map of features.

Grids show photos, which may not be anyone's to publish: they go to the run's own folder, never beside the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from model_store.pixels import to_bytes
from robustness.adversaries import Threat
from robustness.attacks.ssp import SSP
from robustness.judgement import Trial
from robustness.results.files import write_text
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
from robustness.results.tsne import plot_tsne
from robustness.seeds import derive_seed
from robustness.suite.figures import LAYERS
from robustness.suite.session import Arena, Session
from robustness.suite.threats import generated, named
from robustness.surrogates import load_surrogate
from robustness.victims.classification import Classifier
from robustness.victims.detection import Detector
from robustness.victims.segmentation import Segmenter
from robustness.victims.victim import Victim

EPS = 16
EXAMPLES = 4
HEIGHT = 180
TSNE_PHOTOS = 200
FACTOR = 8.0
# The map and its caption, under the folder of results.
FIGURE_3 = ("plots/figure-3.png", "plots/figure-3.txt")


def draw_pictures(session: Session, results: Path, folder: Path) -> None:
    """Draw the grids into ``folder`` and what may stand on the results page into ``results``."""
    for arena in session.arenas.values():
        _write_grids(session, arena, folder)
    photos = session.arenas.get("classification")
    if photos is not None and session.sizes.paper_tables:
        _features(session, photos, results)


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
    for title, threat in _threats(session, arena):
        for victim in arena.victims[:1]:
            trial = session.attack(few, threat, (victim,))
            rows = [_row(session, few, trial, victim, place) for place in range(len(few.bench.examples))]
            heads = ("clean", f"{title}, {EPS}/255", f"perturbation x{FACTOR:g}", "purified")
            sheet = grid(rows, column_titles=heads, legend=_legend(victim))
            name = f"{numbers[arena.task]}-{title}".lower().replace(" ", "-")
            write_grid(sheet, folder / f"{name}.png")


def _threats(session: Session, arena: Arena) -> Iterator[tuple[str, Threat]]:
    """SSP; with the paper's tables, photos also under SSP on other networks' features, DIM, DIM-TI and CDA."""
    yield "SSP", session.surrogate.threat(named(session, "SSP", EPS))
    if arena.task != "classification" or not session.sizes.paper_tables:
        return
    for network, layers in LAYERS:
        if network in session.store.names():
            device = session.recorder.conditions.device
            surrogate = load_surrogate(session.store, network, device, layers[len(layers) // 2])
            yield f"SSP on {network}", surrogate.threat(SSP(EPS, iterations=session.sizes.ssp_iterations))
    for key in ("DIM", "DIM-TI"):
        yield key, session.surrogate.threat(named(session, key, EPS))
    for threat in generated(session, EPS):
        yield threat.attack.name, threat


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


@torch.inference_mode()
def _features(session: Session, arena: Arena, results: Path) -> None:
    """Figure 3: t-SNE of the surrogate's logits and of its features, by class."""
    few = arena.first(TSNE_PHOTOS)
    conditions, surrogate = few.bench.conditions, session.surrogate
    logits, features = [], []
    for start in range(0, len(few.bench.examples), conditions.batch):
        images = conditions.floats(few.bench.examples.pixels[start : start + conditions.batch])
        logits.append(surrogate.logits(images).float().cpu())
        features.append(surrogate.features(images).float().mean(dim=(2, 3)).cpu())
    labels = few.bench.examples.truths["labels"]
    classes = next(victim.classes for victim in session.classifiers())
    path, words = (results / name for name in FIGURE_3)
    plot_tsne(torch.cat(logits), torch.cat(features), labels, classes, path, layer="conv3-3")
    caption = (
        f"t-SNE of {len(labels)} photos' logits (left) and features (right) in {surrogate.name}: "
        "logits fall apart by class, features much less, which is why an attack on them needs no class."
    )
    write_text(words, f"Figure 3: logits and features by class\n{caption}\n")
