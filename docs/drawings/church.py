"""A drawn church on a lawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from drawings.surface import FINE, Colour, Point, finished, grained, shade, sky

SIDE = 256
SEED = 2

STONE: Colour = (214, 205, 190)
SLATE: Colour = (96, 84, 80)
GLASS: Colour = (48, 52, 66)
OAK: Colour = (84, 54, 34)
IRON: Colour = (60, 55, 40)
LAWN = 0.80  # where the lawn begins, in parts of the side


class _Pen:
    """Draws in parts of the picture's side."""

    def __init__(self, picture: Image.Image) -> None:
        self.side = picture.width
        self.draw = ImageDraw.Draw(picture)

    def area(self, colour: Colour, *points: Point) -> None:
        self.draw.polygon(self._scaled(points), fill=colour)

    def line(self, colour: Colour, width: int, *points: Point) -> None:
        self.draw.line(self._scaled(points), fill=colour, width=width)

    def arch(self, colour: Colour, top: Point, wide: float, high: float) -> None:
        """A rectangle under half a disc, whose centre is ``top``."""
        (x, y), half = top, wide / 2
        self.draw.ellipse(self._scaled(((x - half, y - half), (x + half, y + half))), fill=colour)
        self.draw.rectangle(self._scaled(((x - half, y), (x + half, y + high))), fill=colour)

    def _scaled(self, points: tuple[Point, ...]) -> list[Point]:
        return [(x * self.side, y * self.side) for x, y in points]


def church(side: int = SIDE) -> Image.Image:
    """The drawing, RGB (side, side)."""
    random = np.random.default_rng(SEED)
    picture = sky((FINE * side, FINE * side), random, top=(70, 125, 195), low=(170, 200, 225), clouds=0.7)
    pen = _Pen(picture)
    _garden(pen, random)
    _nave(pen)
    _tower(pen)
    return finished(grained(picture, 26, 8, random))


def _garden(pen: _Pen, random: np.random.Generator) -> None:
    for _ in range(400):
        x, y, radius = random.uniform(-0.05, 1.05), random.normal(0.74, 0.04), random.uniform(0.01, 0.03)
        pen.arch(shade((52, 84, 40), random.uniform(0.5, 1)), (x, y), 2 * radius, radius)
    pen.area((88, 122, 58), (0, LAWN), (1, LAWN), (1, 1), (0, 1))
    for _ in range(3000):
        x, y = random.uniform(0, 1), random.uniform(LAWN - 0.01, 1)
        green = shade((86, 122, 56), random.uniform(0.7, 1.15))
        pen.line(green, 1, (x, y), (x + random.normal(0, 0.005), y - 0.012))


def _nave(pen: _Pen) -> None:
    pen.area(STONE, (0.42, 0.50), (0.92, 0.50), (0.92, 0.84), (0.42, 0.84))
    pen.area(SLATE, (0.40, 0.51), (0.47, 0.34), (0.89, 0.34), (0.95, 0.51))
    for course in range(14):
        down = course / 14
        y = 0.34 + 0.17 * down
        pen.line(shade(SLATE, 0.85), 1, (0.47 - 0.07 * down, y), (0.89 + 0.06 * down, y))
    for x in (0.53, 0.65, 0.77, 0.87):
        _window(pen, (x, 0.60), 0.055, 0.14)


def _tower(pen: _Pen) -> None:
    pen.area(shade(STONE, 1.06), (0.20, 0.36), (0.44, 0.36), (0.44, 0.85), (0.20, 0.85))
    pen.area(shade(STONE, 0.90), (0.36, 0.36), (0.44, 0.36), (0.44, 0.85), (0.36, 0.85))
    pen.area(SLATE, (0.18, 0.37), (0.32, 0.12), (0.46, 0.37))
    pen.area(shade(SLATE, 0.80), (0.32, 0.12), (0.46, 0.37), (0.36, 0.37))
    pen.line(IRON, 4, (0.32, 0.125), (0.32, 0.065))
    pen.line(IRON, 4, (0.30, 0.085), (0.34, 0.085))
    _window(pen, (0.28, 0.44), 0.05, 0.08)
    _window(pen, (0.28, 0.60), 0.04, 0.07)
    pen.arch(OAK, (0.28, 0.74), 0.08, 0.11)


def _window(pen: _Pen, top: Point, wide: float, high: float) -> None:
    (x, y), half, frame = top, wide / 2, shade(STONE, 0.75)
    pen.arch(frame, top, wide + 0.012, high + 0.006)
    pen.arch(GLASS, top, wide, high)
    pen.line(frame, 2, (x, y - half), (x, y + high))
    pen.line(frame, 2, (x - half, y + high / 2), (x + half, y + high / 2))
