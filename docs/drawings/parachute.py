"""A drawn parachute in the sky."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from drawings.surface import FINE, Colour, Grid, Point, finished, image, sky

SIDE = 256
SEED = 1

# In parts of the side: the canopy's centre and half axes, its sag at the middle, and where the lines meet.
CENTRE: Point = (0.5, 0.42)
AXES: Point = (0.36, 0.30)
SAG = 0.30
HARNESS = 0.81
GORES = 9
CLOTH: tuple[Colour, ...] = ((200, 40, 35), (240, 240, 235), (30, 70, 160))


def parachute(side: int = SIDE) -> Image.Image:
    """The drawing, RGB (side, side)."""
    fine = FINE * side
    random = np.random.default_rng(SEED)
    above = sky((fine, fine), random, top=(70, 125, 195), low=(170, 200, 225), clouds=0.5)
    picture = image(_canopy(np.asarray(above, dtype=np.float64)))
    draw = ImageDraw.Draw(picture)
    _lines(draw, fine)
    _jumper(draw, fine)
    return finished(picture)


def _canopy(air: Grid) -> Grid:
    """Half an ellipsoid of gores, seen from the side, its hem scalloped and its inside dark."""
    fine = len(air)
    y, x = (np.mgrid[0:fine, 0:fine] + 0.5) / fine
    u, v = (x - CENTRE[0]) / AXES[0], (y - CENTRE[1]) / AXES[1]
    turn = np.arcsin(np.clip(u / np.sqrt(np.clip(1 - v**2, 1e-6, None)), -1, 1)) / np.pi + 0.5
    gore = np.clip((turn * GORES).astype(int), 0, GORES - 1)
    bulge = np.sin(np.pi * (turn * GORES - gore))
    dome, hem = u**2 + v**2 < 1, SAG * (1 - u**2)
    outside = dome & (v < hem - 0.10 * bulge)
    inside = dome & (v >= -0.02) & (v < hem) & ~outside
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    light = np.clip(0.45 + 0.5 * (-0.35 * u - 0.75 * v + 0.5 * depth) + 0.10 * bulge, 0.15, 1.1)
    cloth = np.array(CLOTH, dtype=np.float64)[gore % len(CLOTH)]
    shown = np.where(inside[..., None], 0.35 * cloth, air)
    covered: Grid = np.where(outside[..., None], cloth * light[..., None], shown)
    return covered


def _lines(draw: ImageDraw.ImageDraw, fine: int) -> None:
    for seam in range(GORES + 1):
        u = float(np.sin((seam / GORES - 0.5) * np.pi))
        hem = (CENTRE[0] + AXES[0] * u) * fine, (CENTRE[1] + AXES[1] * SAG * (1 - u * u)) * fine
        draw.line([hem, ((CENTRE[0] + 0.02 * u) * fine, HARNESS * fine)], fill=(60, 60, 65), width=1)


def _jumper(draw: ImageDraw.ImageDraw, fine: int) -> None:
    """Head, body, raised arms and legs, from the harness down."""
    middle = CENTRE[0]

    def scaled(*places: Point) -> list[Point]:
        return [((middle + right) * fine, (HARNESS + below) * fine) for right, below in places]

    draw.ellipse(scaled((-0.012, -0.012), (0.012, 0.016)), fill=(70, 50, 40))
    draw.rounded_rectangle(scaled((-0.018, 0.014), (0.018, 0.07)), radius=0.008 * fine, fill=(50, 55, 40))
    for side in (-1, 1):
        arm, leg = (
            scaled((side * 0.015, 0.02), (side * 0.02, -0.03)),
            scaled((side * 0.008, 0.06), (side * 0.013, 0.115)),
        )
        draw.line(arm, fill=(50, 55, 40), width=round(0.008 * fine))
        draw.line(leg, fill=(40, 45, 60), width=round(0.012 * fine))
