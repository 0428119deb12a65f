"""Class masks as PNG files: one byte a pixel, the class's number, with a palette so that people can look at them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from PIL import Image

from service.findings import ClassMask

COLOURS = 256


@dataclass(frozen=True)
class MaskFile:
    """``file``: the PNG. ``shares``: of all pixels, by class number up to the highest that has any."""

    file: bytes
    shares: tuple[float, ...]


def encode_mask(mask: ClassMask) -> MaskFile:
    """A palette PNG of the mask's size; pixel values are class numbers."""
    image = Image.fromarray(mask.classes.numpy())
    image.putpalette(_palette())
    out = io.BytesIO()
    image.save(out, "PNG")
    counts = torch.bincount(mask.classes.flatten()).double() / mask.classes.numel()
    return MaskFile(out.getvalue(), tuple(counts.tolist()))


def _palette() -> list[int]:
    """Red, green and blue of 256 classes: a number's lowest bits become its colour's highest, so neighbours differ.

    Pascal VOC's masks have the same colours (class 0 black, 1 dark red, 2 dark green), and viewers know them.
    """
    levels = []
    for number in range(COLOURS):
        for channel in range(3):
            bits = [number >> (3 * place + channel) & 1 for place in range(8)]
            levels.append(sum(bit << (7 - place) for place, bit in enumerate(bits)))
    return levels
