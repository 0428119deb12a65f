"""COCO's validation photos with their boxes (Lin et al., 2014)."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from model_store.pixels import image_to_bytes
from robustness.datasets.photos import open_photo
from robustness.errors import EvaluationError, PhotoFolderError
from robustness.examples import Examples

SPLIT = "val2017"
MEAN = (124, 116, 104)
LAYOUT = f"it must hold annotations/instances_{SPLIT}.json and {SPLIT}/"


def read_coco(root: Path, size: tuple[int, int], *, limit: int | None = None, split: str = SPLIT) -> Examples:
    """The first ``limit`` photos of ``root/val2017`` by their COCO number, None for all, as one tensor.

    COCO's photos differ in size. Each is letterboxed to ``size`` (height, width): scaled as a whole to fit, its top
    left corner in the tensor's, the rest filled with ImageNet's mean colour. An attack may perturb the filling too.
    Truths: ``boxes`` (N, K, 4) float32 x1 y1 x2 y2 in pixels of the tensor, ``labels`` (N, K) int64, COCO's category
    numbers (1 to 90, with gaps) as torchvision's detectors give them; padded with 0 and -1. Boxes of crowds are left
    out, which COCO would ignore rather than count, so a detection inside a crowd counts as wrong here. Photos
    without a box are kept. Raises PhotoFolderError for what is missing or damaged, EvaluationError without
    pycocotools.
    """
    index = _index(root, split)
    chosen = sorted(index.imgs)[:limit]
    if not chosen:
        raise PhotoFolderError(f"{root} lists no photo for {split}, or the limit is 0; give a limit of at least 1")
    pixels: list[Tensor] = []
    found: list[tuple[Tensor, Tensor]] = []
    names: list[str] = []
    for number in chosen:
        name = str(index.imgs[number]["file_name"])
        image, scale = _letterboxed(_photo(root / split, name), size)
        pixels.append(image_to_bytes(image))
        found.append(_boxes(index.imgToAnns.get(number, ()), scale))
        names.append(f"{split}/{name}")
    most = max(1, *(len(labels) for _, labels in found))
    boxes = torch.zeros(len(found), most, 4)
    labels = torch.full((len(found), most), -1, dtype=torch.int64)
    for place, (corners, kinds) in enumerate(found):
        boxes[place, : len(kinds)] = corners
        labels[place, : len(kinds)] = kinds
    return Examples(torch.stack(pixels), {"boxes": boxes, "labels": labels}, tuple(names))


def _index(root: Path, split: str) -> Any:
    """pycocotools' index of the annotations: ``imgs`` and ``imgToAnns`` by number."""
    path = root / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        raise PhotoFolderError(f"no {path}; give COCO's folder: {LAYOUT}")
    try:
        coco = importlib.import_module("pycocotools.coco")
    except ImportError as error:
        raise EvaluationError('COCO needs pycocotools; install the extra: pip install -e ".[evaluate]"') from error
    try:
        with redirect_stdout(io.StringIO()):
            return coco.COCO(str(path))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise PhotoFolderError(f"{path} is no file of COCO instances ({error}); download it again") from error


def _photo(folder: Path, name: str) -> Image.Image:
    if Path(name).name != name:
        raise PhotoFolderError(f"the annotations name {name!r}, which is no file name; download them again")
    if not (folder / name).is_file():
        raise PhotoFolderError(f"{folder / name} is missing though the annotations name it; restore it")
    return open_photo(folder / name)


def _letterboxed(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, tuple[float, float]]:
    """The image in the top left corner of ``size`` (height, width), and its scale (x, y)."""
    height, width = size
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    whole = Image.new("RGB", (width, height), MEAN)
    whole.paste(image.resize(inner, Image.Resampling.BICUBIC), (0, 0))
    return whole, (inner[0] / image.width, inner[1] / image.height)


def _boxes(annotations: Iterable[Mapping[str, Any]], scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Corners (K, 4) in pixels of the letterboxed photo and labels (K,); crowds and boxes without area are left out."""
    corners: list[list[float]] = []
    labels: list[int] = []
    for one in annotations:
        left, top, wide, high = (float(value) for value in one["bbox"])
        if one.get("iscrowd", 0) or wide <= 0 or high <= 0:
            continue
        corners.append([left * scale[0], top * scale[1], (left + wide) * scale[0], (top + high) * scale[1]])
        labels.append(int(one["category_id"]))
    return torch.tensor(corners, dtype=torch.float32).view(-1, 4), torch.tensor(labels, dtype=torch.int64)
