"""Make the picture of the README: what an attack does to a photo, and what the purifier makes of it.

    python docs/pictures.py

Reads ``images/photo.png`` and ``images/photo-adversarial.png`` (``images/README.md`` says whose they are and how the
second was made) and writes ``images/before-after.png``, the default classifier's answer below each panel. Behind the
purifier its probabilities are averaged over the draws of the purifier's default mode, as the service does it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from model_store.inference import PurifierDraws
from model_store.pixels import fit, image_to_bytes, to_bytes, to_float
from model_store.store import LoadedModel, ModelStore
from robustness.results.grids import Panel, grid, perturbation, write_grid

IMAGES = Path(__file__).parent / "images"
CLASSIFIER, PURIFIER = "efficientnet-lite0", "nrp-fast"
SEED = 1
FACTOR = 8.0


def read(name: str) -> Tensor:
    """A picture as uint8 (3, H, W)."""
    with Image.open(IMAGES / name) as picture:
        return image_to_bytes(picture)


def answered(pixels: Tensor, draws: Tensor, classifier: LoadedModel, truth: str) -> Panel:
    """``pixels``, with what the classifier says of ``draws`` (D, 3, H, W) in [0,1], right where it is ``truth``."""
    chances = classifier.module(fit(draws, classifier.card.input)).softmax(1).mean(0)
    label = classifier.card.labels[int(chances.argmax())]
    return Panel(pixels, f"{label} {chances.max().item():.0%}", "right" if label == truth else "wrong")


@torch.no_grad()
def main() -> None:
    """Write before-after.png."""
    store = ModelStore()
    classifier, purifier = store.load(CLASSIFIER), store.load(PURIFIER)
    if purifier.card.inference is None:
        raise SystemExit(f"the card of {PURIFIER} names no inference mode")
    mode = purifier.card.inference.modes[purifier.card.inference.default]
    clean, attacked = read("photo.png"), read("photo-adversarial.png")
    draws = PurifierDraws(purifier.module, mode).draws(to_float(attacked).unsqueeze(0), [SEED])[0]
    purified = to_bytes(draws.mean(0))
    truth = classifier.card.labels[
        int(classifier.module(fit(to_float(clean).unsqueeze(0), classifier.card.input)).argmax())
    ]
    row = [
        answered(clean, to_float(clean).unsqueeze(0), classifier, truth),
        answered(attacked, to_float(attacked).unsqueeze(0), classifier, truth),
        perturbation(attacked, clean, FACTOR),
        answered(purified, draws, classifier, truth),
        perturbation(attacked, purified, FACTOR),
    ]
    heads = (
        "photo",
        "attacked, 8/255",
        f"perturbation x{FACTOR:g}",
        f"purified by {PURIFIER}",
        f"taken out x{FACTOR:g}",
    )
    write_grid(grid([row], column_titles=heads), IMAGES / "before-after.png")


if __name__ == "__main__":
    main()
