"""A drawn golf ball on grass."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from drawings.surface import Grid

SIDE = 256
SEED = 0


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
