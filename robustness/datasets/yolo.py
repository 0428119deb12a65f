"""Photos with boxes as YOLO's text files: ``images/NAME.jpg`` and ``labels/NAME.txt``, as Darknet began it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from model_store.pixels import image_to_bytes
from robustness.datasets.photos import SUFFIXES, open_photo
from robustness.errors import PhotoFolderError
from robustness.examples import Examples

LAYOUT = "it must hold images/ and, for each photo, labels/NAME.txt with a line `class cx cy w h` for each box"
COCO_CLASSES = 80


def is_yolo(root: Path) -> bool:
    """Whether ``root`` is laid out so: CamVid's labels, say, are pictures and not text."""
    labels = root / "labels"
    return (root / "images").is_dir() and labels.is_dir() and any(labels.glob("*.txt"))


def read_yolo(root: Path, size: tuple[int, int], limit: int | None = None, *, classes: int = COCO_CLASSES) -> Examples:
    """The first ``limit`` photos of ``root/images`` by name, None for all, stretched to ``size`` (height, width).

    Truths: ``boxes`` (N, K, 4) float32 x1 y1 x2 y2 in pixels of the resized photo, ``labels`` (N, K) int64 in
    [0, classes), both padded to the fullest photo's K, with 0 and -1. An empty label file is a photo without objects.
    Boxes are cut at the photo's edge; one that has no width or no height left is dropped, because nothing can match
    it. Raises PhotoFolderError, naming the file (and the line), for anything missing or damaged.
    """
    photos = _photos(root)
    if not photos or (limit is not None and limit < 1):
        raise PhotoFolderError(f"{root / 'images'} holds no photo, or the limit is under 1; {LAYOUT}")
    photos = photos[:limit]
    scenes = [_labels(root / "labels" / f"{path.stem}.txt", path, classes) for path in photos]
    pixels = [image_to_bytes(open_photo(path).resize((size[1], size[0]), Image.Resampling.BICUBIC)) for path in photos]
    scale = torch.tensor([size[1], size[0]]).repeat(2)
    most = max(1, *(len(labels) for _, labels in scenes))
    boxes = torch.zeros(len(scenes), most, 4)
    labels = torch.full((len(scenes), most), -1, dtype=torch.int64)
    for place, (corners, kinds) in enumerate(scenes):
        boxes[place, : len(kinds)] = corners * scale
        labels[place, : len(kinds)] = kinds
    names = tuple(f"images/{path.name}" for path in photos)
    return Examples(torch.stack(pixels), {"boxes": boxes, "labels": labels}, names)


def _photos(root: Path) -> list[Path]:
    folder = root / "images"
    if not folder.is_dir() or not (root / "labels").is_dir():
        raise PhotoFolderError(f"{root} is not laid out as YOLO's photos: {LAYOUT}")
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    for one, other in pairwise(photos):
        if one.stem == other.stem:
            raise PhotoFolderError(f"{one} and {other.name} share labels/{one.stem}.txt; rename one of them")
    return photos


def _labels(path: Path, photo: Path, classes: int) -> tuple[Tensor, Tensor]:
    """Corners (K, 4) relative to the photo, in [0,1], and labels (K,)."""
    if not path.is_file():
        raise PhotoFolderError(f"{photo} has no {path}; write it (empty where the photo shows no object)")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PhotoFolderError(f"{path} cannot be read ({error}); restore it") from error
    corners: list[list[float]] = []
    labels: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, edges = _box(line, f"{path} line {number}", classes)
        if edges[2] > edges[0] and edges[3] > edges[1]:
            corners.append(edges)
            labels.append(label)
    return torch.tensor(corners, dtype=torch.float32).view(-1, 4), torch.tensor(labels, dtype=torch.int64)


def _box(line: str, place: str, classes: int) -> tuple[int, list[float]]:
    """The class and the corners x1 y1 x2 y2, cut at the photo's edge."""
    words = line.split()
    try:
        label, (across, down, width, height) = int(words[0]), (float(word) for word in words[1:])
    except ValueError as error:
        raise PhotoFolderError(f"{place}: {line.strip()[:60]!r} is not `class cx cy w h`; mend it") from error
    if not 0 <= label < classes:
        raise PhotoFolderError(f"{place}: class {label} is none of the {classes} classes, 0 to {classes - 1}; mend it")
    values = (across, down, width, height)
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
        raise PhotoFolderError(f"{place}: {line.strip()[:60]!r} leaves [0, 1], relative to the photo; mend it")
    edges = (across - width / 2, down - height / 2, across + width / 2, down + height / 2)
    return label, [min(max(edge, 0.0), 1.0) for edge in edges]
