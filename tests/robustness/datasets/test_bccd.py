"""BCCD's reader, on folders in its layout that the tests write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustness.datasets.bccd import CLASSES, read_bccd
from robustness.errors import PhotoFolderError

Box = tuple[str, float, float, float, float]


def write_photo(root: Path, name: str, boxes: Sequence[Box], size: tuple[int, int] = (40, 20)) -> None:
    """A ramp of ``size`` (width, height) and its annotation."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    ramp = np.broadcast_to(np.linspace(0, 255, size[0])[None, :, None], (size[1], size[0], 3))
    Image.fromarray(ramp.astype(np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in boxes
    )
    text = f"<annotation><size><width>{size[0]}</width></size>{objects}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)


def write_split(root: Path, *names: str) -> None:
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bccd"
    write_photo(folder, "a", [("WBC", 4, 2, 20, 12), ("RBC", 1, 1, 9, 9)])
    write_photo(folder, "b", [("Platelets", 30, 10, 40, 20)])
    write_split(folder, "b", "a")
    return folder


def test_it_reads_photos_boxes_and_labels_in_the_splits_order(root: Path) -> None:
    examples = read_bccd(root, "test")
    assert examples.names == ("b", "a")
    assert examples.pixels.shape == (2, 3, 20, 40)
    assert examples.pixels.dtype == torch.uint8
    assert examples.truths["labels"].tolist() == [[2, -1], [1, 0]]
    assert examples.truths["boxes"].tolist() == [[[30, 10, 40, 20], [0, 0, 0, 0]], [[4, 2, 20, 12], [1, 1, 9, 9]]]
    assert CLASSES == ("RBC", "WBC", "Platelets")


def test_boxes_follow_the_photo_to_another_size(root: Path) -> None:
    examples = read_bccd(root, "test", (10, 80))
    assert examples.pixels.shape == (2, 3, 10, 80)
    assert examples.truths["boxes"][1].tolist() == [[8, 1, 40, 6], [2, 0.5, 18, 4.5]]
    brightness = examples.pixels[0, 0, 5].float()
    assert brightness[-1] > brightness[0] + 200


def test_boxes_are_cut_at_the_edge_and_empty_ones_dropped(root: Path) -> None:
    write_photo(root, "c", [("RBC", -3, 2, 12, 30), ("RBC", 5, 5, 5, 9), ("WBC", 50, 2, 60, 9), ("WBC", 1, 1, 2, 2)])
    write_split(root, "c")
    truths = read_bccd(root, "test").truths
    assert truths["boxes"].tolist() == [[[0, 2, 12, 20], [1, 1, 2, 2]]]
    assert truths["labels"].tolist() == [[0, 1]]


def test_a_photo_without_a_box_is_kept(root: Path) -> None:
    write_photo(root, "c", [])
    write_split(root, "c", "b")
    examples = read_bccd(root, "test")
    assert examples.truths["labels"].tolist() == [[-1], [2]]
    write_split(root, "c")
    assert read_bccd(root, "test").truths["boxes"].shape == (1, 0, 4)


def test_photos_of_different_sizes_need_a_size(root: Path) -> None:
    write_photo(root, "c", [], size=(41, 20))
    write_split(root, "a", "c")
    with pytest.raises(PhotoFolderError, match="give a size"):
        read_bccd(root, "test")
    assert len(read_bccd(root, "test", (20, 40))) == 2


def test_a_folder_that_is_not_there_or_lacks_the_split_is_refused(root: Path) -> None:
    with pytest.raises(PhotoFolderError, match="no folder"):
        read_bccd(root / "elsewhere", "test")
    with pytest.raises(PhotoFolderError, match=r"no split 'val' \(splits: test\)"):
        read_bccd(root, "val")


def test_a_split_that_names_nothing_or_leaves_the_folder_is_refused(root: Path) -> None:
    write_split(root)
    with pytest.raises(PhotoFolderError, match="names no photo"):
        read_bccd(root, "test")
    write_split(root, "../a")
    with pytest.raises(PhotoFolderError, match="no file name"):
        read_bccd(root, "test")


def test_missing_and_damaged_files_are_named(root: Path) -> None:
    photo, annotation = root / "JPEGImages" / "b.jpg", root / "Annotations" / "b.xml"
    kept = photo.read_bytes()
    photo.write_bytes(kept[:40])
    with pytest.raises(PhotoFolderError, match=r"b\.jpg cannot be decoded"):
        read_bccd(root, "test")
    photo.unlink()
    with pytest.raises(PhotoFolderError, match=r"b\.jpg is missing"):
        read_bccd(root, "test")
    photo.write_bytes(kept)
    annotation.unlink()
    with pytest.raises(PhotoFolderError, match=r"b\.xml cannot be read"):
        read_bccd(root, "test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation><object>", "not XML"),
        ('<!DOCTYPE x [<!ENTITY e "eeee">]><annotation>&e;</annotation>', "document type"),
        ("<annotation><object><name>RBC</name></object></annotation>", "lacks a corner"),
        ("<annotation><object><name>cat</name></object></annotation>", "'cat' is none of the classes"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_refused(root: Path, text: str, said: str) -> None:
    (root / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(PhotoFolderError, match=said):
        read_bccd(root, "test")


@pytest.mark.parametrize(
    ("box", "said"),
    [((9, 1, 3, 5), "swapped"), ((float("nan"), 1, 3, 5), "no number"), ((1, 1, float("inf"), 5), "no")],
)
def test_a_box_that_is_none_is_refused(root: Path, box: tuple[float, float, float, float], said: str) -> None:
    write_photo(root, "b", [("RBC", *box)])
    with pytest.raises(PhotoFolderError, match=said):
        read_bccd(root, "test")
