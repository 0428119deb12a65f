"""BCCD: blood-smear photos with a box round every cell, in the layout of Pascal VOC."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from model_store.pixels import image_to_bytes
from robustness.datasets.photos import open_photo
from robustness.errors import PhotoFolderError
from robustness.examples import Examples

CLASSES = ("RBC", "WBC", "Platelets")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LAYOUT = "it must hold ImageSets/Main, Annotations and JPEGImages"


@dataclass(frozen=True)
class _Scene:
    """One photo (3, H, W) uint8 with its boxes (K, 4), in the photo's pixels, and labels (K,)."""

    pixels: Tensor
    boxes: Tensor
    labels: Tensor


def read_bccd(root: Path, split: str, size: tuple[int, int] | None = None) -> Examples:
    """The photos that ``ImageSets/Main/SPLIT.txt`` names, in its order, brought to ``size`` (H, W); None keeps theirs.

    Truths: ``boxes`` (N, K, 4) float32 x1 y1 x2 y2 in pixels of the resized photo, ``labels`` (N, K) int64 into
    CLASSES, both padded to the fullest photo's K, with 0 and -1. Boxes are cut at the photo's edge; one that has no
    width or no height left is dropped, because nothing can match it (BCCD has two of them, slips of the mouse, both
    in its training split); one whose edges are swapped is damage. "difficult" objects are kept: BCCD has none.
    Raises PhotoFolderError, naming the file, for anything missing or damaged.
    """
    scenes = [_read(root, name, size) for name in _names(root, split)]
    shapes = {tuple(scene.pixels.shape) for scene in scenes}
    if len(shapes) > 1:
        raise PhotoFolderError(f"the photos of {root} differ in size; give a size to bring them to")
    most = max(len(scene.labels) for scene in scenes)
    boxes = torch.zeros(len(scenes), most, 4)
    labels = torch.full((len(scenes), most), -1, dtype=torch.int64)
    for place, scene in enumerate(scenes):
        boxes[place, : len(scene.labels)] = scene.boxes
        labels[place, : len(scene.labels)] = scene.labels
    pixels = torch.stack([scene.pixels for scene in scenes])
    return Examples(pixels, {"boxes": boxes, "labels": labels}, tuple(_names(root, split)))


def _names(root: Path, split: str) -> list[str]:
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if not root.is_dir():
        raise PhotoFolderError(f"no folder {root}; give the folder of BCCD: {LAYOUT}")
    if not listing.is_file():
        known = ", ".join(sorted(path.stem for path in listing.parent.glob("*.txt"))) or "none"
        raise PhotoFolderError(f"{root} has no split {split!r} (splits: {known}); {LAYOUT}")
    try:
        names = listing.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise PhotoFolderError(f"{listing} cannot be read ({error}); restore it") from error
    if not names:
        raise PhotoFolderError(f"{listing} names no photo; restore it")
    strange = [name for name in names if Path(name).name != name]
    if strange:
        raise PhotoFolderError(f"{listing} names {strange[0]!r}, which is no file name; restore it")
    return names


def _read(root: Path, name: str, size: tuple[int, int] | None) -> _Scene:
    path = root / "JPEGImages" / f"{name}.jpg"
    if not path.is_file():
        raise PhotoFolderError(f"{path} is missing though a split names it; restore it")
    image = open_photo(path)
    boxes, labels = _annotation(root / "Annotations" / f"{name}.xml", image.size)
    if size is None:
        return _Scene(image_to_bytes(image), boxes, labels)
    scale = torch.tensor([size[1] / image.width, size[0] / image.height]).repeat(2)
    resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return _Scene(image_to_bytes(resized), boxes * scale, labels)


def _annotation(path: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (K, 4) within a photo of ``size`` (width, height) and labels (K,)."""
    boxes: list[list[float]] = []
    labels: list[int] = []
    for item in _tree(path).iter("object"):
        label = item.findtext("name", "").strip()
        if label not in CLASSES:
            raise PhotoFolderError(f"{path}: {label!r} is none of the classes ({', '.join(CLASSES)}); mend it")
        low_x, low_y, high_x, high_y = _corners(item, path)
        if high_x < low_x or high_y < low_y:
            raise PhotoFolderError(f"{path}: a box of {label} has its edges swapped; mend it")
        low_x, high_x = (min(max(x, 0.0), float(size[0])) for x in (low_x, high_x))
        low_y, high_y = (min(max(y, 0.0), float(size[1])) for y in (low_y, high_y))
        if high_x > low_x and high_y > low_y:
            boxes.append([low_x, low_y, high_x, high_y])
            labels.append(CLASSES.index(label))
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.tensor(labels, dtype=torch.int64)


def _corners(item: ET.Element, path: Path) -> list[float]:
    try:
        corners = [float(item.findtext(f"bndbox/{corner}", "")) for corner in CORNERS]
    except ValueError as error:
        raise PhotoFolderError(f"{path}: a box lacks a corner ({', '.join(CORNERS)}); mend it") from error
    if not all(abs(corner) < float("inf") for corner in corners):
        raise PhotoFolderError(f"{path}: a box has a corner that is no number; mend it")
    return corners


def _tree(path: Path) -> ET.Element:
    """The parsed file. One that declares a document type is refused: through its entities a parser can be exhausted."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PhotoFolderError(f"{path} cannot be read ({error}); restore it") from error
    if "<!DOCTYPE" in text:
        raise PhotoFolderError(f"{path} declares a document type, which no annotation needs; remove the declaration")
    try:
        return ET.fromstring(text)  # noqa: S314  (no document type, so no entity can expand)
    except ET.ParseError as error:
        raise PhotoFolderError(f"{path} is not XML ({error}); restore it") from error
