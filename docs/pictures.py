"""Make the pictures of the README: a drawn photo, its adversary, what the purifier makes of it, and the residuals.

    python docs/pictures.py

The photo is drawn here (a golf ball on grass), so that the project ships no one else's picture. The adversary is
untargeted PGD on the shipped classifier at 8/255, rounded to 8 bits as any upload is; the attacker does not know of
the purifier. Seeds are fixed: the same weights give the same pictures.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor
from torch.nn import functional as F

from model_store.inference import PurifierDraws
from model_store.pixels import bytes_to_image, fit, image_to_bytes, to_8bit, to_bytes, to_float
from model_store.store import LoadedModel, ModelStore
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD

IMAGES = Path(__file__).parent / "images"
SIDE = 256
EPS = 8.0
SEED = 0

Grid = NDArray[np.float64]


def dimples(count: int) -> Grid:
    """``count`` directions spread evenly over the sphere (a Fibonacci lattice), (count, 3)."""
    number = np.arange(count) + 0.5
    height = 1 - 2 * number / count
    turn = np.pi * (1 + math.sqrt(5)) * number
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)


def grass(side: int, random: np.random.Generator) -> Image.Image:
    """Blades of many greens, sharper towards the viewer."""
    picture = Image.new("RGB", (side, side), (58, 96, 38))
    draw = ImageDraw.Draw(picture)
    for row in np.sort(random.uniform(0, side * 1.1, 5000)):
        left, length, lean = random.uniform(0, side), 6 + 22 * row / side, random.normal(0, 4)
        green = random.uniform(0.55, 1.1)
        colour = (int(86 * green), int(138 * green), int(48 * green))
        draw.line([(left, row), (left + lean, row - length)], fill=colour, width=1 if row < side / 2 else 2)
    blurred = picture.filter(ImageFilter.GaussianBlur(4))
    sharpness = Image.linear_gradient("L").resize((side, side))
    return Image.composite(picture.filter(ImageFilter.GaussianBlur(0.7)), blurred, sharpness)


def golf_ball(side: int = SIDE) -> Image.Image:
    """The drawn photo, RGB (side, side)."""
    random = np.random.default_rng(SEED)
    ground = np.asarray(grass(side, random), dtype=np.float64) / 255
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis, axis - 0.04)
    radius = 0.6
    u, v = x / radius, y / radius
    inside = u**2 + v**2 < 1
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
    normal = np.stack([u, v, depth], axis=-1)
    centres = dimples(340)
    nearest = np.einsum("hwk,nk->hwn", normal, centres).argmax(axis=-1)
    offset = normal - centres[nearest]
    distance = np.linalg.norm(offset, axis=-1)
    slope = np.where(distance < 0.088, 4.2 * distance / 0.088 * (1 - (distance / 0.088) ** 4), 0)
    bent = normal + offset * slope[..., None]
    bent /= np.linalg.norm(bent, axis=-1, keepdims=True)
    light = np.array([-0.45, -0.65, 0.62])
    shade = np.clip(bent @ (light / np.linalg.norm(light)), 0, 1)
    ball = np.clip(0.30 + 0.70 * shade, 0, 1)[..., None] * np.array([0.99, 0.99, 0.96])
    shadow = 1 - 0.6 * np.exp(-(((x - 0.16) / 0.62) ** 2 + ((y - 0.58) / 0.16) ** 2))
    picture = np.where(inside[..., None], ball, ground * shadow[..., None])
    return Image.fromarray((picture * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


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
    """Write golf-ball.png, golf-ball-adversarial.png and before-after.png."""
    store = ModelStore()
    classifier, purifier = store.load("imagenette-resnet"), store.load("nrp-lite")
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


if __name__ == "__main__":
    main()
