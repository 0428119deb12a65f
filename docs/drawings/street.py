"""A drawn street, seen from a car as CamVid's are, with the class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from drawings.surface import FINE, Colour, Point, finished, grained, shade, sky

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, _FENCE, CAR = range(9)  # CamVid's numbers
HEIGHT, WIDTH = 180, 240
SEED = 11

# Metres: where the camera is, and what lies how far to its left and right.
EYE, KERB, WALL, END = 1.5, 3.6, 6.2, 90.0
FOCAL = 0.95  # in picture widths
HORIZON = 0.47  # from the top, in picture heights

BRICKS: tuple[Colour, ...] = ((112, 84, 70), (150, 138, 120), (98, 72, 62), (170, 160, 146), (124, 104, 86))


@dataclass(frozen=True)
class Canvas:
    """A picture and its mask of class numbers, painted together; places are metres right, up and ahead."""

    picture: Image.Image
    mask: Image.Image

    def seen(self, right: float, up: float, ahead: float) -> Point:
        """Where a place is in the picture."""
        scale = FOCAL * self.picture.width / ahead
        return self.picture.width / 2 + right * scale, HORIZON * self.picture.height + (EYE - up) * scale

    def area(self, places: Sequence[tuple[float, float, float]], colour: Colour, kind: int) -> None:
        """A polygon."""
        self.flat([self.seen(*place) for place in places], colour, kind)

    def flat(self, points: Sequence[Point], colour: Colour, kind: int) -> None:
        """A polygon given in the picture."""
        ImageDraw.Draw(self.picture).polygon(points, fill=colour)
        ImageDraw.Draw(self.mask).polygon(points, fill=kind)

    def line(self, start: tuple[float, float, float], end: tuple[float, float, float], wide: float, kind: int) -> None:
        """A dark bar, ``wide`` metres where it starts."""
        thick = max(1, round(wide * FOCAL * self.picture.width / start[2]))
        for image, colour in ((self.picture, (62, 62, 60)), (self.mask, kind)):
            ImageDraw.Draw(image).line([self.seen(*start), self.seen(*end)], fill=colour, width=thick)

    def blob(self, place: tuple[float, float, float], radius: float, colour: Colour, kind: int) -> None:
        """A disc."""
        x, y = self.seen(*place)
        r = radius * FOCAL * self.picture.width / place[2]
        for image, fill in ((self.picture, colour), (self.mask, kind)):
            ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=fill)


def street() -> tuple[Image.Image, Image.Image]:
    """The scene, RGB 240 x 180, and its mask of CamVid's class numbers, of the same size."""
    random = np.random.default_rng(SEED)
    height, width = FINE * HEIGHT, FINE * WIDTH
    above = sky((width, height), random, top=(206, 214, 224), low=(236, 238, 240), clouds=0.6)
    canvas = Canvas(above, Image.new("L", above.size, SKY))
    _far(canvas, random)
    for side in (-1, 1):
        _houses(canvas, side, random)
    _ground(canvas)
    _things(canvas, random)
    picture = grained(grained(canvas.picture, 26, 4, random), 18, 64, random)
    return finished(picture), canvas.mask.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def _far(canvas: Canvas, random: np.random.Generator) -> None:
    """Trees at the end of the street."""
    for _ in range(160):
        right, up = random.normal(0, 6), random.uniform(0, 6)
        canvas.blob((right, up, END), random.uniform(0.6, 1.4), _leaf(random), TREE)


def _houses(canvas: Canvas, side: int, random: np.random.Generator) -> None:
    """A terrace along the pavement, painted from its far end."""
    wall = side * WALL
    for number, ahead in enumerate(np.arange(END - 6, 1.4, -6.0)):
        near, far, top = float(max(ahead, 1.4)), float(ahead) + 6, 6.6 + random.uniform(-0.6, 0.9)
        brick = BRICKS[(number + side) % len(BRICKS)]
        brick = shade(brick, 0.78 if side > 0 else 1.0)
        ridge = [(wall + side * 3, top + 2.4, near), (wall + side * 3, top + 2.4, far)]
        canvas.area([(wall, top, near), (wall, top, far), *ridge[::-1]], (84, 78, 76), BUILDING)
        gable = [(wall, 0, near), (wall, top, near), ridge[0], (wall + side * 6, top, near), (wall + side * 6, 0, near)]
        canvas.area(gable, shade(brick, 0.9), BUILDING)
        canvas.area([(wall, 0, near), (wall, top, near), (wall, top, far), (wall, 0, far)], brick, BUILDING)
        chimney = [(wall + side * x, top + up, near) for x, up in ((1.8, 1.2), (1.8, 3.2), (2.8, 3.2), (2.8, 1.2))]
        canvas.area(chimney, shade(brick, 0.8), BUILDING)
        for floor in (1.0, 4.0):
            for along in (0.9, 3.6):
                _window(canvas, wall, near + along, floor, brick)


def _window(canvas: Canvas, wall: float, near: float, floor: float, brick: Colour) -> None:
    for edge, colour in ((0.12, shade(brick, 1.45)), (0.0, (46, 50, 56))):
        low, high, start, end = floor - edge, floor + 1.7 + edge, near - edge, near + 1.3 + edge
        canvas.area([(wall, low, start), (wall, high, start), (wall, high, end), (wall, low, end)], colour, BUILDING)


def _ground(canvas: Canvas) -> None:
    near = 1.2
    edge = KERB + 0.3  # the road goes on beneath the kerb, so that no gap shows
    canvas.area([(-edge, 0, near), (-edge, 0, END), (edge, 0, END), (edge, 0, near)], (94, 95, 98), ROAD)
    for side in (-1, 1):
        for inner, outer, colour in ((KERB, WALL, (124, 119, 114)), (KERB, KERB + 0.25, (152, 150, 146))):
            edges = [(side * inner, near), (side * inner, END), (side * outer, END), (side * outer, near)]
            canvas.area([(right, 0.06, ahead) for right, ahead in edges], colour, PAVEMENT)
        for inset in (0.25, 0.5):
            right = side * (KERB - inset)
            stripe = [(right, near), (right, END), (right + 0.1, END), (right + 0.1, near)]
            canvas.area([(x, 0, ahead) for x, ahead in stripe], (168, 148, 78), ROAD)
    for ahead in np.arange(3.0, END, 6.0):
        dash = [(-0.08, ahead), (-0.08, ahead + 3), (0.08, ahead + 3), (0.08, ahead)]
        canvas.area([(x, 0, float(z)) for x, z in dash], (206, 206, 202), ROAD)


def _things(canvas: Canvas, random: np.random.Generator) -> None:
    """Trees, lamp posts, cars and a sign, each kind from the far ones to the near ones."""
    for right, ahead in ((-5.2, 46.0), (5.2, 42.0), (-5.2, 30.0), (4.9, 17.0)):
        _tree(canvas, right, ahead, random)
    for right, ahead in ((4.2, 34.0), (-4.2, 24.0), (4.1, 12.5)):
        canvas.line((right, 0, ahead), (right, 6.6, ahead), 0.13, POLE)
        canvas.line((right, 6.6, ahead), (right - np.sign(right) * 1.3, 6.9, ahead), 0.1, POLE)
    _car(canvas, 2.5, 26.0, (150, 30, 30))
    _car(canvas, -1.7, 11.5, (52, 66, 96))
    _sign(canvas, -4.4, 10.0)


def _tree(canvas: Canvas, right: float, ahead: float, random: np.random.Generator) -> None:
    canvas.line((right, 0, ahead), (right, 5.4, ahead), 0.3, TREE)
    for _ in range(650):
        turn, far = random.uniform(0, 2 * np.pi), random.rayleigh(1) % 2.2
        x, y = 0.95 * far * np.cos(turn), 1.15 * far * np.sin(turn)
        canvas.blob((right + x, 5.6 + y, ahead), random.uniform(0.08, 0.21), _leaf(random), TREE)


def _leaf(random: np.random.Generator) -> Colour:
    return shade((74, 82, 48), random.uniform(0.5, 1.15))


def _car(canvas: Canvas, right: float, ahead: float, paint: Colour) -> None:
    """Seen from behind."""

    def part(left: float, low: float, wide: float, high: float, colour: Colour, taper: float = 0.0) -> None:
        corners = ((left, low), (left + taper, low + high), (left + wide - taper, low + high), (left + wide, low))
        canvas.area([(right + x, y, ahead) for x, y in corners], colour, CAR)

    canvas.area(
        [(right + x, 0, ahead + z) for x, z in ((-1.0, -0.5), (-1.0, 2.0), (1.0, 2.0), (1.0, -0.5))], (46, 46, 48), ROAD
    )
    for left in (-0.82, 0.56):
        part(left, 0.0, 0.26, 0.5, (24, 24, 26))
    part(-0.9, 0.25, 1.8, 0.75, paint)
    part(-0.86, 0.98, 1.72, 0.52, shade(paint, 1.15), 0.2)
    part(-0.68, 1.02, 1.36, 0.4, (40, 46, 54), 0.14)
    part(-0.9, 0.28, 1.8, 0.16, shade(paint, 0.6))
    for left in (-0.86, 0.62):
        part(left, 0.66, 0.24, 0.2, (190, 40, 34))
    part(-0.26, 0.5, 0.52, 0.14, (214, 200, 120))


def _sign(canvas: Canvas, right: float, ahead: float) -> None:
    canvas.line((right, 0, ahead), (right, 2.2, ahead), 0.08, POLE)
    canvas.blob((right, 2.5, ahead), 0.36, (178, 40, 40), SIGN)
    canvas.blob((right, 2.5, ahead), 0.26, (230, 230, 226), SIGN)
