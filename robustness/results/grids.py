"""Image grids: photos, adversaries, perturbations, masks and boxes side by side, with titles and captions, as one PNG.

Images are uint8 tensors (3, H, W), as everywhere outside networks.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from model_store.pixels import bytes_to_image, image_to_bytes, to_bytes, to_float
from robustness.errors import EvaluationError

Colour = tuple[int, int, int]
Tone = Literal["plain", "right", "wrong"]
Legend = Sequence[tuple[str, Colour]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# The colours in which CamVid's own annotation shows its eleven classes, sky to bicyclist.
CAMVID: tuple[Colour, ...] = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
VOID: Colour = (0, 0, 0)
# Okabe and Ito's, which colour-blind readers tell apart.
BOXES: tuple[Colour, ...] = ((213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167))
INK: Colour = (34, 34, 34)
QUIET: Colour = (90, 90, 90)
RIGHT: Colour = (0, 100, 160)
WRONG: Colour = (190, 60, 0)
MARGIN, GAP, LINE = 10, 8, 18
MOST_LINES = 3
SWATCH = 13


@dataclass(frozen=True)
class Panel:
    """One image uint8 (3, H, W) and what stands below it; ``tone`` colours the caption of an answer."""

    image: Tensor
    caption: str = ""
    tone: Tone = "plain"


def perturbation(changed: Tensor, original: Tensor, factor: float = 10.0) -> Panel:
    """The difference of two images uint8 (3, H, W), ``factor`` times as large around mid-grey; the caption says so."""
    return Panel(to_bytes(0.5 + factor * (to_float(changed) - to_float(original))), f"difference x {factor:g}")


def paint_mask(image: Tensor, mask: Tensor, classes: Sequence[str], opacity: float = 0.6) -> Tensor:
    """``image`` under the colours of ``mask`` (H, W), class numbers; from ``len(classes)`` on it is void, black.

    ``mask_legend`` tells the colours. Raises EvaluationError for a mask of another size.
    """
    if mask.shape != image.shape[1:]:
        raise EvaluationError(f"a mask of {tuple(mask.shape)} does not fit an image of {tuple(image.shape[1:])}")
    colours = torch.tensor([colour for _, colour in mask_legend(classes)])
    painted = colours[mask.cpu().long().clamp(0, len(classes))].permute(2, 0, 1)
    return to_bytes((1 - opacity) * to_float(image.cpu()) + opacity * to_float(painted))


def mask_legend(classes: Sequence[str]) -> Legend:
    """Each class with its colour in ``paint_mask``, CamVid's own for the first eleven; void comes last."""
    return (*((name, _colour(number, CAMVID)) for number, name in enumerate(classes)), ("void", VOID))


def paint_boxes(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None = None,
    *,
    classes: Sequence[str] = (),
    least: float = 0.5,
    height: int | None = None,
) -> Tensor:
    """``image`` with ``boxes`` (K, 4) x1 y1 x2 y2 of ``labels`` (K,) upon it, in the colours of ``box_legend``.

    Boxes of a negative label, or scored (K,) below ``least``, are left out. ``classes`` are written at the boxes, with
    the scores, if given. ``height`` brings the image to a grid's height first, so that lines and words stay sharp.
    """
    picture = bytes_to_image(image) if height is None else _scaled(image, height)
    scale = picture.height / image.shape[1]
    chances = torch.ones(len(labels)) if scores is None else scores
    for box, label, chance in zip(boxes.tolist(), labels.tolist(), chances.tolist(), strict=True):
        if label >= 0 and chance >= least:
            name = classes[label] if classes else ""
            words = f"{name} {chance:.2f}" if name and scores is not None else name
            _paint_box(picture, [scale * side for side in box], _colour(label, BOXES), words)
    return image_to_bytes(picture)


def box_legend(classes: Sequence[str]) -> Legend:
    """Each class with its colour in ``paint_boxes``."""
    return tuple((name, _colour(number, BOXES)) for number, name in enumerate(classes))


def grid(
    rows: Sequence[Sequence[Panel | None]],
    *,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    legend: Legend = (),
    height: int = 180,
) -> Image.Image:
    """Rows of panels, every image ``height`` high; None leaves a place empty, and titles may be left out.

    Raises EvaluationError for rows of different lengths, titles that do not match them, or no panel at all.
    """
    _check(rows, row_titles, column_titles)
    font = ImageFont.load_default(13)
    pictures = [[_scaled(panel.image, height) if panel else None for panel in row] for row in rows]
    columns = list(zip(*pictures, strict=True))
    widths = [max((picture.width for picture in column if picture), default=height) for column in columns]
    lefts = [MARGIN + (LINE + GAP) * bool(row_titles) + sum(widths[:c]) + GAP * c for c in range(len(widths))]
    right = lefts[-1] + widths[-1]
    heads = [_wrapped(title, width, font) for title, width in zip(column_titles, widths, strict=False)]
    captions = [[_wrapped(p.caption if p else "", w, font) for p, w in zip(row, widths, strict=True)] for row in rows]
    tops = [MARGIN + _deep(heads)]
    for lines in captions:
        tops.append(tops[-1] + height + _deep(lines) + GAP)
    keys = _legend_lines(legend, right - MARGIN, font)
    sheet = Image.new("RGB", (right + MARGIN, tops[-1] + len(keys) * (LINE + 4) + MARGIN), "white")
    for words, left in zip(heads, lefts, strict=False):
        _write(sheet, words, (left, MARGIN), INK, font)
    for title, top in zip(row_titles, tops, strict=False):
        _write_upwards(sheet, title, (MARGIN, top), height)
    for row, line, lines, top in zip(rows, pictures, captions, tops, strict=False):
        for panel, picture, words, left in zip(row, line, lines, lefts, strict=True):
            if panel and picture:
                sheet.paste(picture, (left, top))
                _write(sheet, words, (left, top + height + 3), _tone(panel.tone), font)
    for number, names in enumerate(keys):
        _write_keys(sheet, names, (MARGIN, tops[-1] + number * (LINE + 4)), font)
    return sheet


def write_grid(picture: Image.Image, path: Path) -> Path:
    """Write a grid as PNG, complete or not at all, and return its path. Raises EvaluationError."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(scratch, "PNG", optimize=True)
        scratch.replace(path)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror}); give another folder") from error
    return path


def _check(rows: Sequence[Sequence[Panel | None]], row_titles: Sequence[str], column_titles: Sequence[str]) -> None:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or not any(panel for row in rows for panel in row):
        raise EvaluationError("a grid needs panels in rows of one length; fill the gaps with None")
    for titles, wanted, what in ((row_titles, len(rows), "row"), (column_titles, len(rows[0]), "column")):
        if titles and len(titles) != wanted:
            raise EvaluationError(f"{len(titles)} {what} titles for {wanted} {what}s; give one each, or none")


def _deep(texts: Sequence[Sequence[str]]) -> int:
    """How high the longest of several texts is, side by side."""
    most = max(map(len, texts), default=0)
    return LINE * most + 4 * bool(most)


def _paint_box(picture: Image.Image, box: Sequence[float], colour: Colour, words: str) -> None:
    left, top, right, bottom = box
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
    if words:
        place = (left + 3, top - 15 if top >= 15 else top + 3)
        west, north, east, south = draw.textbbox(place, words, font=font)
        draw.rectangle((west - 2, north - 2, east + 2, south + 2), fill=colour)
        draw.text(place, words, fill=INK, font=font)


def _scaled(image: Tensor, height: int) -> Image.Image:
    picture = bytes_to_image(image)
    if picture.height == height:
        return picture
    size = max(1, round(picture.width * height / picture.height)), height
    # Pixels are shown as they are where they are enlarged much: a blur would hide a perturbation.
    enlarged = height >= 2 * picture.height
    return picture.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _colour(number: int, palette: Sequence[Colour]) -> Colour:
    """From the palette, and from hues a golden angle apart beyond it."""
    if number < len(palette):
        return palette[number]
    red, green, blue = colorsys.hsv_to_rgb((number * 0.618034) % 1, 0.65, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tone(tone: Tone) -> Colour:
    return {"plain": QUIET, "right": RIGHT, "wrong": WRONG}[tone]


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Lines that fit ``width``; what does not fit into three is cut, with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > MOST_LINES
    lines = lines[:MOST_LINES]
    return [_shortened(line, width, font, cut and number == MOST_LINES - 1) for number, line in enumerate(lines)]


def _shortened(line: str, width: int, font: Font, cut: bool) -> str:
    if not cut and font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line}..."


def _write(sheet: Image.Image, lines: Sequence[str], place: tuple[int, int], colour: Colour, font: Font) -> None:
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * LINE), line, fill=colour, font=font)


def _write_upwards(sheet: Image.Image, text: str, place: tuple[int, int], length: int) -> None:
    font = ImageFont.load_default(14)
    strip = Image.new("RGB", (length, LINE + 2), "white")
    fitting = _shortened(text, length, font, cut=False)
    ImageDraw.Draw(strip).text(((length - font.getlength(fitting)) / 2, 1), fitting, fill=INK, font=font)
    sheet.paste(strip.rotate(90, expand=True), place)


def _legend_lines(legend: Legend, width: int, font: Font) -> list[list[tuple[str, Colour]]]:
    lines: list[list[tuple[str, Colour]]] = []
    used = float(width)
    for name, colour in legend:
        needed = _key_width(name, font)
        if used + needed > width:
            lines.append([])
            used = 0.0
        lines[-1].append((name, colour))
        used += needed
    return lines


def _key_width(name: str, font: Font) -> float:
    return SWATCH + 5 + font.getlength(name) + 16


def _write_keys(sheet: Image.Image, keys: Legend, place: tuple[int, int], font: Font) -> None:
    draw = ImageDraw.Draw(sheet)
    left, top = float(place[0]), place[1]
    for name, colour in keys:
        draw.rectangle((left, top + 3, left + SWATCH, top + 3 + SWATCH), fill=colour, outline=INK)
        draw.text((left + SWATCH + 5, top + 1), name, fill=INK, font=font)
        left += _key_width(name, font)
