"""A drawn blood smear, as under a microscope at the scale of BCCD's, with the box of every cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from drawings.surface import FINE, Grid, finished, image, mottled

RED, WHITE, PLATELET = range(3)
HEIGHT, WIDTH = 240, 320
SEED = 5
SPREAD = 400  # how many places are tried for red cells
PLACES: tuple[tuple[float, float, float, int], ...] = (
    (206, 98, 42, WHITE),
    (96, 62, 10, PLATELET),
    (142, 184, 11, PLATELET),
    (276, 206, 9.5, PLATELET),
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Cell:
    """Where a cell is, in pixels of the finished picture, how large, what, and how its outline wavers."""

    x: float
    y: float
    radius: float
    kind: int
    waves: Grid  # amplitude and phase of the outline's harmonics, (3, 2)
    pallor: float = 0.0  # how pale the middle of a red cell is

    def depth(self, across: Grid, down: Grid) -> Grid:
        """0 at the cell's middle, 1 at its outline, more outside."""
        right, below = across - self.x, down - self.y
        turn = np.arctan2(below, right)
        outline = np.ones_like(turn)
        for harmonic, (amplitude, phase) in enumerate(self.waves, start=2):
            outline += amplitude * np.cos(harmonic * turn + phase)
        distance: Grid = np.hypot(right, below) / (self.radius * outline)
        return distance


def smear() -> tuple[Image.Image, tuple[Box, ...], tuple[int, ...]]:
    """The picture, RGB 320 x 240, and the boxes x1 y1 x2 y2 and class numbers of its cells, in pixels of it."""
    random = np.random.default_rng(SEED)
    height, width = FINE * HEIGHT, FINE * WIDTH
    down, across = (np.mgrid[0:height, 0:width] + 0.5) / FINE
    light = 1 - 0.09 * (np.hypot(across / WIDTH - 0.45, down / HEIGHT - 0.45))
    film = np.array((200.0, 201.0, 196.0)) * light[..., None]
    film += 7 * (mottled(height, width, 128, random)[..., None] - 0.5)
    boxes: list[Box] = []
    cells = _cells(random)
    for cell in cells:
        depth = cell.depth(across, down)
        film = (_red, _white, _platelet)[cell.kind](film, depth, cell, across, down)
        rows, columns = np.nonzero(depth[::FINE, ::FINE] < 1)
        boxes.append((float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)))
    film += 5 * random.standard_normal((height, width, 1))
    return finished(image(film)), tuple(boxes), tuple(cell.kind for cell in cells)


def _cells(random: np.random.Generator) -> list[Cell]:
    """The placed cells and as many red ones as find room, a few of them touching."""
    found = [Cell(x, y, radius, kind, _waves(random, 0.04)) for x, y, radius, kind in PLACES]
    for _ in range(SPREAD):
        x, y, radius = random.uniform(4, WIDTH - 4), random.uniform(4, HEIGHT - 4), random.uniform(22, 27)
        if all(np.hypot(x - other.x, y - other.y) > 1.06 * (radius + other.radius) for other in found):
            found.append(Cell(x, y, radius, RED, _waves(random, 0.05), random.uniform(0.2, 1.0)))
    return found


def _waves(random: np.random.Generator, most: float) -> Grid:
    amplitude = random.uniform(0, most, 3) / (1, 2, 3)
    return np.stack([amplitude, random.uniform(0, 2 * np.pi, 3)], axis=1)


def _cover(film: Grid, colour: Grid, share: Grid) -> Grid:
    """``colour`` (3,) or (H, W, 3) over ``film``, ``share`` (H, W) of it."""
    return film * (1 - share[..., None]) + colour * share[..., None]


def _edge(depth: Grid, limit: float, soft: float) -> Grid:
    """1 inside ``limit``, 0 outside, ``soft`` wide between."""
    return np.clip((limit - depth) / soft + 0.5, 0, 1)


def _red(film: Grid, depth: Grid, cell: Cell, across: Grid, down: Grid) -> Grid:
    del across, down
    body = np.array((182.0, 140.0, 140.0)) - 14 * np.exp(-(((depth - 0.9) / 0.1) ** 2))[..., None]
    pale = cell.pallor * np.exp(-((depth / 0.52) ** 4))
    body = body * (1 - pale[..., None]) + np.array((200.0, 188.0, 180.0)) * pale[..., None]
    return _cover(film, body, 0.92 * _edge(depth, 1, 0.08))


def _white(film: Grid, depth: Grid, cell: Cell, across: Grid, down: Grid) -> Grid:
    grains = np.random.default_rng(SEED + 1)
    plasm = np.array((198.0, 176.0, 204.0)) + 34 * (mottled(FINE * HEIGHT, FINE * WIDTH, 8, grains)[..., None] - 0.5)
    film = _cover(film, plasm, 0.9 * _edge(depth, 1, 0.1))
    for right, below, radius in ((-17, -4, 15), (-6, -17, 13), (11, -14, 14), (18, 4, 13), (9, 17, 12)):
        lobe = Cell(cell.x + right, cell.y + below, radius, WHITE, _waves(grains, 0.12))
        inner = lobe.depth(across, down)
        tone = np.array((96.0, 74.0, 176.0)) + 40 * (mottled(FINE * HEIGHT, FINE * WIDTH, 16, grains)[..., None] - 0.5)
        film = _cover(film, tone, _edge(inner, 1, 0.14))
    return film


def _platelet(film: Grid, depth: Grid, cell: Cell, across: Grid, down: Grid) -> Grid:
    del cell, across, down
    tone = np.array((150.0, 134.0, 190.0)) - 34 * np.exp(-((depth / 0.6) ** 4))[..., None]
    return _cover(film, tone, 0.9 * _edge(depth, 1, 0.35))
