"""Recognition: which task a folder of data is for, by how it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustness.datasets.nips17 import is_nips17
from robustness.datasets.yolo import is_yolo
from robustness.errors import PhotoFolderError
from robustness.results.row import Task

LAYOUTS = (
    "one folder of photos a class (also one with a val/ of these in it), the NeurIPS 2017 set's images.csv and "
    "images/, CamVid's test/images and test/labels, Pascal VOC's ImageSets/Main, COCO's annotations/ or YOLO's images/ "
    "and labels/"
)


def recognise(root: Path) -> Task | None:
    """The task that ``root`` itself is laid out for, or None."""
    if (root / "test" / "images").is_dir() and (root / "test" / "labels").is_dir():
        return "segmentation"
    if (root / "ImageSets" / "Main").is_dir() or (root / "annotations").is_dir() or is_yolo(root):
        return "detection"
    return "classification" if is_nips17(root) or class_root(root) is not None else None


def class_root(root: Path) -> Path | None:
    """Where the class folders of ``root`` are: in it, or in its ``val``; None where there are none.

    A class folder is one named by a WordNet id, as ImageNet's and Imagenette's are.
    """
    for place in (root, root / "val"):
        if place.is_dir() and any(_is_wordnet(entry.name) for entry in place.iterdir() if entry.is_dir()):
            return place
    return None


def find_data(roots: Sequence[Path]) -> dict[Task, Path]:
    """The folder of each task among ``roots``, or one level below them; the first found of each task.

    Raises PhotoFolderError for a root that is missing, and where nothing is recognised.
    """
    found: dict[Task, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise PhotoFolderError(f"no folder {root}; give --data folders laid out as: {LAYOUTS}")
        own = recognise(root)
        for place in (root,) if own else sorted(entry for entry in root.iterdir() if entry.is_dir()):
            task = recognise(place)
            if task is not None:
                found.setdefault(task, place)
    if not found:
        given = ", ".join(str(root) for root in roots)
        raise PhotoFolderError(f"nothing in {given} is laid out as evaluation data; known layouts: {LAYOUTS}")
    return found


def _is_wordnet(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()
