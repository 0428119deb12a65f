"""What the drawings share: mottled surfaces, skies, and the way from a fine canvas to the final size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Grid = NDArray[np.float64]
Colour = tuple[int, int, int]
Point = tuple[float, float]

FINE = 2  # drawings are made this many times as large as they end up, for smooth edges


def mottled(height: int, width: int, coarse: int, random: np.random.Generator) -> Grid:
    """Cloudy noise (height, width) in [0,1]: octaves of random values, the first ``coarse`` pixels apart."""
    total = np.zeros((height, width))
    weight = 1.0
    while coarse >= 2:
        values = random.random((height // coarse + 2, width // coarse + 2)).astype(np.float32)
        octave = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(octave, dtype=np.float64)
        coarse, weight = coarse // 2, 0.55 * weight
    stretched: Grid = (total - total.min()) / np.ptp(total)
    return stretched


def sky(size: Point, random: np.random.Generator, *, top: Colour, low: Colour, clouds: float) -> Image.Image:
    """``size`` (width, height) of a gradient from ``top`` to ``low`` under white clouds of opacity ``clouds``."""
    width, height = (round(side) for side in size)
    down = np.linspace(0, 1, height)[:, None, None]
    blue = np.array(top) * (1 - down) + np.array(low) * down + np.zeros((1, width, 1))
    white = np.clip(2.5 * mottled(height, width, height // 2, random) - 1.25, 0, 1)[..., None] * clouds
    return image(blue * (1 - white) + white * np.array((240, 243, 247)))


def shade(colour: Colour, factor: float) -> Colour:
    """A lighter (over 1) or darker colour."""
    red, green, blue = (min(255, round(factor * channel)) for channel in colour)
    return red, green, blue


def grained(picture: Image.Image, amount: float, coarse: int, random: np.random.Generator) -> Image.Image:
    """The picture, lighter and darker by up to half of ``amount`` levels in patches of ``coarse`` pixels."""
    patches = mottled(picture.height, picture.width, coarse, random)[..., None] - 0.5
    return image(np.asarray(picture, dtype=np.float64) + amount * patches)


def finished(picture: Image.Image) -> Image.Image:
    """A fine canvas at its final size, about as soft as a photo."""
    soft = picture.filter(ImageFilter.GaussianBlur(FINE / 2))
    return soft.resize((picture.width // FINE, picture.height // FINE), Image.Resampling.LANCZOS)


def image(values: Grid) -> Image.Image:
    """Values (H, W, 3) in [0,255], clipped, as a picture."""
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
