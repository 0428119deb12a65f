"""Make the pictures of the README.

    python docs/pictures.py

``before-after.png``: a photo, its adversary, what the purifier makes of it, and the residuals. The photo is drawn
(``drawings``, a golf ball on grass), so that the project ships no one else's picture. The adversary is untargeted PGD
on the shipped classifier at 8/255, rounded to 8 bits as any upload is; the attacker does not know of the purifier.
``grid.png``: the same for three tasks, on other drawings (``showcase``). Seeds are fixed: the same weights give the
same pictures.
"""

from __future__ import annotations

from pathlib import Path

import torch
from drawings.golf import SEED, SIDE, golf_ball
from PIL import Image, ImageDraw, ImageFont
from showcase import showcase
from torch import Tensor
from torch.nn import functional as F

from model_store.inference import PurifierDraws
from model_store.pixels import bytes_to_image, fit, image_to_bytes, to_8bit, to_bytes, to_float
from model_store.store import LoadedModel, ModelStore
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.results.grids import write_grid

IMAGES = Path(__file__).parent / "images"
EPS = 8.0


def adversary(pixels: Tensor, classifier: LoadedModel) -> Tensor:
    """PGD at 8/255 on the whole resized pipeline, rounded to 8 bits: uint8 (3, H, W)."""

    def logits(images: Tensor) -> Tensor:
        out: Tensor = classifier.module(fit(images, classifier.card.input))
        return out

    images = to_float(pixels).unsqueeze(0)
    label = logits(images).argmax(1)

    def loss(candidates: Tensor) -> Tensor:
        return F.cross_entropy(logits(candidates), label, reduction="none")

    attack = PGD(EPS, step=2.0, iterations=10)
    attacked = attack(images, Knowledge(loss=loss), torch.Generator().manual_seed(SEED))
    return to_bytes(to_8bit(attacked))[0]


def probabilities(images: Tensor, classifier: LoadedModel) -> Tensor:
    """Mean class probabilities of draws (D, 3, H, W)."""
    return torch.as_tensor(classifier.module(fit(images, classifier.card.input)).softmax(1).mean(0))


def caption(values: Tensor, labels: tuple[str, ...]) -> str:
    """The winner and its probability."""
    return f"{labels[int(values.argmax())]} {values.max().item():.0%}"


def residual(one: Tensor, other: Tensor) -> Tensor:
    """Ten times the difference around mid-grey, uint8."""
    return to_bytes(0.5 + 10 * (to_float(one) - to_float(other)))


def strip(panels: list[tuple[str, str, Tensor]]) -> Image.Image:
    """Panels side by side, each under two lines of text."""
    font, margin, head = ImageFont.load_default(15), 10, 48
    width = len(panels) * (SIDE + margin) + margin
    sheet = Image.new("RGB", (width, SIDE + head + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, below, pixels) in enumerate(panels):
        left = margin + number * (SIDE + margin)
        draw.text((left, 5), title, fill="black", font=font)
        draw.text((left, 25), below, fill=(90, 90, 90), font=font)
        sheet.paste(bytes_to_image(pixels), (left, head))
    return sheet


@torch.no_grad()
def main() -> None:
    """Write golf-ball.png, golf-ball-adversarial.png, before-after.png and grid.png."""
    store = ModelStore()
    classifier, purifier = store.load("imagenette-resnet"), store.load("nrp-fast")
    if purifier.card.inference is None:
        raise SystemExit("the purifier's card names no inference mode")
    mode = purifier.card.inference.modes[purifier.card.inference.default]
    clean = image_to_bytes(golf_ball())
    attacked = adversary(clean, classifier)
    draws = PurifierDraws(purifier.module, mode).draws(to_float(attacked).unsqueeze(0), [SEED])[0]
    purified = to_bytes(draws.mean(0))
    labels = classifier.card.labels
    bytes_to_image(clean).save(IMAGES / "golf-ball.png", optimize=True)
    bytes_to_image(attacked).save(IMAGES / "golf-ball-adversarial.png", optimize=True)

    def alone(pixels: Tensor) -> str:
        return caption(probabilities(to_float(pixels).unsqueeze(0), classifier), labels)

    strip(
        [
            ("clean", alone(clean), clean),
            ("attacked, 8/255", alone(attacked), attacked),
            ("perturbation x 10", "attacked - clean", residual(attacked, clean)),
            ("purified", caption(probabilities(draws, classifier), labels), purified),
            ("what was taken out x 10", "attacked - purified", residual(attacked, purified)),
        ]
    ).save(IMAGES / "before-after.png", optimize=True)
    write_grid(showcase(store), IMAGES / "grid.png")


if __name__ == "__main__":
    main()
