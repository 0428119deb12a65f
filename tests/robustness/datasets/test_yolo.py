from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from robustness.datasets.recognise import recognise
from robustness.datasets.yolo import is_yolo, read_yolo
from robustness.errors import PhotoFolderError

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data" / "coco-val128"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A wide red photo with two boxes, a tall green one with one, and an empty blue one."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name, size, colour, text in (
        ("a-wide.jpg", (40, 20), "red", "16 0.5 0.5 0.5 0.5\n0 0.1 0.2 0.4 0.2\n"),
        ("b-tall.png", (20, 40), "lime", "79 0.25 0.75 0.5 0.5"),
        ("c-empty.webp", (16, 16), "blue", ""),
    ):
        Image.new("RGB", size, colour).save(tmp_path / "images" / name)
        (tmp_path / "labels" / f"{name.split('.')[0]}.txt").write_text(text)
    return tmp_path


def test_photos_come_by_name_stretched_with_boxes_in_their_pixels(root: Path) -> None:
    examples = read_yolo(root, (10, 20))
    assert examples.names == ("images/a-wide.jpg", "images/b-tall.png", "images/c-empty.webp")
    assert examples.pixels.shape == (3, 3, 10, 20)
    assert examples.pixels[1, :, 9, 19].tolist() == [0, 255, 0]
    assert examples.truths["labels"].tolist() == [[16, 0], [79, -1], [-1, -1]]
    expected = [[[5, 2.5, 15, 7.5], [0, 1, 6, 3]], [[0, 5, 10, 10], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    torch.testing.assert_close(examples.truths["boxes"], torch.tensor(expected, dtype=torch.float32))


def test_a_limit_keeps_the_first_by_name(root: Path) -> None:
    assert read_yolo(root, (10, 10), 1).names == ("images/a-wide.jpg",)
    assert read_yolo(root, (10, 10), 9).names == read_yolo(root, (10, 10)).names


def test_boxes_without_area_and_blank_lines_are_left_out(root: Path) -> None:
    (root / "labels" / "a-wide.txt").write_text("\n1 0.5 0.5 0 0.5\n2 0.5 0.5 1 1\n\n")
    assert read_yolo(root, (10, 10), 1).truths["labels"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("1 0.5 0.5 0.5", "line 2: '1 0.5 0.5 0.5' is not `class cx cy w h`"),
        ("1 0.5 0.5 0.5 0.5 0.5", "is not `class cx cy w h`"),
        ("dog 0.5 0.5 0.5 0.5", "is not `class cx cy w h`"),
        ("1.5 0.5 0.5 0.5 0.5", "is not `class cx cy w h`"),
        ("1 0.5 half 0.5 0.5", "is not `class cx cy w h`"),
        ("80 0.5 0.5 0.5 0.5", "line 2: class 80 is none of the 80 classes, 0 to 79"),
        ("-1 0.5 0.5 0.5 0.5", "class -1 is none"),
        ("1 0.5 0.5 nan 0.5", r"leaves \[0, 1\]"),
        ("1 120 44 60 20", r"leaves \[0, 1\]"),
    ],
)
def test_a_malformed_line_is_named_with_its_place(root: Path, line: str, named: str) -> None:
    (root / "labels" / "b-tall.txt").write_text(f"1 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(PhotoFolderError, match=named) as failure:
        read_yolo(root, (10, 10))
    assert "b-tall.txt" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_the_classes_may_be_fewer(root: Path) -> None:
    with pytest.raises(PhotoFolderError, match="class 16 is none of the 3 classes"):
        read_yolo(root, (10, 10), classes=3)


def without_label(root: Path) -> None:
    (root / "labels" / "c-empty.txt").unlink()


def with_bytes(root: Path) -> None:
    (root / "labels" / "c-empty.txt").write_bytes(b"\xff\xfe")


def without_photos(root: Path) -> None:
    for photo in (root / "images").iterdir():
        photo.unlink()


def with_a_twin(root: Path) -> None:
    (root / "images" / "c-empty.png").write_bytes((root / "images" / "c-empty.webp").read_bytes())


def with_a_broken_photo(root: Path) -> None:
    (root / "images" / "c-empty.webp").write_bytes(b"nothing")


def without_labels(root: Path) -> None:
    (root / "labels").rename(root / "others")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (without_label, r"c-empty\.webp has no .*c-empty\.txt; write it \(empty"),
        (with_bytes, "cannot be read"),
        (without_photos, "holds no photo"),
        (with_a_twin, "share labels/c-empty.txt"),
        (with_a_broken_photo, "cannot be decoded"),
        (without_labels, "is not laid out"),
    ],
)
def test_what_is_missing_or_damaged_is_named(root: Path, damage: Callable[[Path], None], named: str) -> None:
    damage(root)
    with pytest.raises(PhotoFolderError, match=named) as failure:
        read_yolo(root, (10, 10))
    assert "\n" not in str(failure.value)


def test_a_limit_of_none_at_all_is_refused(root: Path) -> None:
    with pytest.raises(PhotoFolderError, match="limit is under 1"):
        read_yolo(root, (10, 10), 0)


def test_the_layout_is_recognised_as_detection_and_masks_are_not(root: Path, tmp_path: Path) -> None:
    assert is_yolo(root)
    assert recognise(root) == "detection"
    for label in (root / "labels").iterdir():
        label.rename(label.with_suffix(".png"))
    assert not is_yolo(root)
    assert recognise(root) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data/coco-val128")
def test_coco_s_photos_are_read() -> None:
    examples = read_yolo(SHARED, (352, 352), 16)
    assert examples.pixels.shape == (16, 3, 352, 352)
    assert examples.truths["labels"].max() < 80
    assert (examples.truths["boxes"] <= 352).all()
