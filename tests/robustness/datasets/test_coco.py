"""COCO's folder: letterboxed photos, boxes in pixels of the tensor, and what damage is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from robustness.datasets.coco import MEAN, read_coco
from robustness.errors import EvaluationError, PhotoFolderError

pytest.importorskip("pycocotools", reason="the extra evaluate is not installed")

WIDE, TALL, EMPTY = 9, 30, 100


def annotation(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    area = box[2] * box[3]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": 0, **more}


def write(root: Path, annotations: list[dict[str, Any]], **names: str) -> None:
    images = [
        {"id": TALL, "file_name": names.get("tall", "tall.png"), "width": 20, "height": 40},
        {"id": WIDE, "file_name": "wide.png", "width": 40, "height": 20},
        {"id": EMPTY, "file_name": "empty.png", "width": 16, "height": 16},
    ]
    listing = {"images": images, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}]}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(listing))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A wide red photo with two boxes, a tall green one with a crowd and a box, and an empty blue one."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    for name, size, colour in (("wide", (40, 20), "red"), ("tall", (20, 40), "lime"), ("empty", (16, 16), "blue")):
        Image.new("RGB", size, colour).save(tmp_path / "val2017" / f"{name}.png")
    write(
        tmp_path,
        [
            annotation(1, TALL, 18, [0, 0, 20, 40], iscrowd=1),
            annotation(2, WIDE, 18, [4, 2, 8, 10]),
            annotation(3, WIDE, 90, [0, 0, 40, 20]),
            annotation(4, TALL, 1, [10, 20, 10, 20]),
            annotation(5, TALL, 1, [10, 20, 0, 20]),
        ],
    )
    return tmp_path


def test_photos_come_by_number_letterboxed_with_boxes_in_their_pixels(coco: Path) -> None:
    examples = read_coco(coco, (20, 20))
    assert examples.names == ("val2017/wide.png", "val2017/tall.png", "val2017/empty.png")
    assert examples.pixels.shape == (3, 3, 20, 20)
    red, lime, grey = ([255, 0, 0], [0, 255, 0], list(MEAN))
    wide, tall, empty = examples.pixels
    assert [wide[:, 9, 19].tolist(), wide[:, 10, 19].tolist()] == [red, grey]
    assert [tall[:, 19, 9].tolist(), tall[:, 19, 10].tolist()] == [lime, grey]
    assert empty[:, 19, 19].tolist() == [0, 0, 255]
    assert examples.truths["labels"].tolist() == [[18, 90], [1, -1], [-1, -1]]
    expected = [[[2, 1, 6, 6], [0, 0, 20, 10]], [[5, 10, 10, 20], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    torch.testing.assert_close(examples.truths["boxes"], torch.tensor(expected, dtype=torch.float32))


def test_small_photos_are_scaled_up(coco: Path) -> None:
    boxes = read_coco(coco, (80, 80), limit=1).truths["boxes"]
    torch.testing.assert_close(boxes[0, 0], torch.tensor([8.0, 4.0, 24.0, 24.0]))


def test_a_limit_keeps_the_first_by_number(coco: Path) -> None:
    assert read_coco(coco, (20, 20), limit=2).names == ("val2017/wide.png", "val2017/tall.png")


def test_photos_without_any_box_still_make_examples(coco: Path) -> None:
    write(coco, [])
    assert read_coco(coco, (20, 20)).truths["labels"].tolist() == [[-1], [-1], [-1]]


def test_nothing_is_printed(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_coco(coco, (20, 20))
    assert capsys.readouterr().out == ""


def test_what_is_missing_or_damaged_is_named(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(PhotoFolderError, match=r"instances_val2017\.json"):
        read_coco(coco / "val2017", (20, 20))
    with pytest.raises(PhotoFolderError, match="limit"):
        read_coco(coco, (20, 20), limit=0)
    (coco / "val2017" / "tall.png").unlink()
    with pytest.raises(PhotoFolderError, match=r"tall\.png is missing"):
        read_coco(coco, (20, 20))
    write(coco, [], tall="../tall.png")
    with pytest.raises(PhotoFolderError, match="no file name"):
        read_coco(coco, (20, 20))
    (coco / "annotations" / "instances_val2017.json").write_text("[1")
    with pytest.raises(PhotoFolderError, match="no file of COCO instances"):
        read_coco(coco, (20, 20))


def test_without_pycocotools_the_extra_is_named(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(EvaluationError, match=r"\.\[evaluate\]"):
        read_coco(coco, (20, 20))
