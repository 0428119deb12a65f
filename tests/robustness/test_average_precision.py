"""Mean average precision: by hand on a few boxes, and against COCOeval on many."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from robustness.average_precision import match, mean_average_precision
from robustness.errors import EvaluationError

CLASSES = 3
Boxes = dict[str, Tensor]


def everything(count: int) -> NDArray[np.int64]:
    return np.arange(count)


def crowd(images: int, generator: torch.Generator, *, levels: int | None = None) -> tuple[Boxes, Boxes]:
    """Images with true boxes of every class; detections are some of them moved, mislabelled or made up.

    ``levels`` is how many scores there are to share; None gives every detection its own.
    """
    corner = torch.rand(images, 8, 2, generator=generator) * 60
    side = torch.rand(images, 8, 2, generator=generator) * 30 + 4
    boxes = torch.cat([corner, corner + side], dim=-1)
    labels = torch.randint(-1, CLASSES, (images, 8), generator=generator)
    moved = boxes.repeat(1, 3, 1) + torch.randn(images, 24, 4, generator=generator) * 3
    guessed = labels.repeat(1, 3)
    strange = torch.rand(images, 24, generator=generator) < 0.3
    guessed = torch.where(strange, torch.randint(-1, CLASSES, (images, 24), generator=generator), guessed)
    scores = torch.rand(images, 24, generator=generator)
    scores = scores if levels is None else (scores * levels).ceil() / levels
    return {"boxes": moved, "scores": scores, "labels": guessed}, {"boxes": boxes, "labels": labels}


def listed(boxes: Boxes) -> list[dict[str, Any]]:
    """Annotations as COCO's files have them."""
    found: list[dict[str, Any]] = []
    for image, row in enumerate(boxes["labels"].tolist()):
        for place, label in enumerate(row):
            left, top, right, bottom = boxes["boxes"][image, place].double().tolist()
            corners = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            facts = {"id": len(found) + 1, "image_id": image, "category_id": label, "iscrowd": 0, **corners}
            if "scores" in boxes:
                facts["score"] = float(boxes["scores"][image, place])
            if label >= 0:
                found.append(facts)
    return found


def official(answers: Boxes, truths: Boxes, places: NDArray[np.int64]) -> float:
    """COCOeval's own summary of the images at ``places``, each repetition an image of its own."""
    sides = []
    for boxes in (truths, answers):
        side = COCO()
        chosen = {key: value[torch.from_numpy(places)] for key, value in boxes.items()}
        side.dataset = {
            "images": [{"id": image} for image in range(len(places))],
            "categories": [{"id": label} for label in range(CLASSES)],
            "annotations": listed(chosen),
        }
        side.createIndex()
        sides.append(side)
    judge = COCOeval(*sides, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return float(judge.stats[1])


@pytest.mark.parametrize("levels", [None, 20])
def test_it_is_cocoevals_figure_on_the_full_set(levels: int | None) -> None:
    answers, truths = crowd(12, torch.Generator().manual_seed(5), levels=levels)
    ours = mean_average_precision(match(answers, truths, CLASSES), everything(12))
    assert 0.2 < ours < 0.9
    assert ours == pytest.approx(official(answers, truths, everything(12)), abs=1e-9)


def test_it_is_cocoevals_figure_where_images_repeat() -> None:
    answers, truths = crowd(12, torch.Generator().manual_seed(6))
    matches = match(answers, truths, CLASSES)
    generator = np.random.default_rng(0)
    for _ in range(3):
        places = generator.integers(0, 12, 12)
        ours = mean_average_precision(matches, places)
        assert ours == pytest.approx(official(answers, truths, places), abs=1e-9)


def one_image(*boxes: tuple[int, float, list[float]]) -> Boxes:
    labels, scores, corners = zip(*boxes, strict=True)
    return {"boxes": torch.tensor([corners]), "scores": torch.tensor([scores]), "labels": torch.tensor([labels])}


RIGHT, FAR = [0.0, 0, 10, 10], [50.0, 50, 60, 60]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (one_image((0, 0.9, RIGHT)), 1.0),
        (one_image((0, 0.9, FAR), (0, 0.8, RIGHT)), 0.5),
        (one_image((0, 0.9, RIGHT), (0, 0.8, FAR)), 1.0),  # what comes after full recall does no harm
        (one_image((0, 0.9, RIGHT), (0, 0.95, RIGHT)), 1.0),  # the second on the same box is wrong, but comes second
        (one_image((1, 0.9, RIGHT)), 0.0),
        (one_image((0, 0.9, [0.0, 0, 10, 5])), 1.0),  # IoU of exactly a half is enough
        (one_image((0, 0.9, [0.0, 0, 10, 4.9])), 0.0),
        (one_image((-1, 0.0, RIGHT)), 0.0),  # padding is no detection
    ],
)
def test_by_hand(answers: Boxes, expected: float) -> None:
    truths = {"boxes": torch.tensor([[RIGHT, RIGHT]]), "labels": torch.tensor([[0, -1]])}
    matches = match(answers, truths, CLASSES)
    assert mean_average_precision(matches, everything(1)) == pytest.approx(expected, abs=1e-9)


def test_half_the_boxes_found_is_51_of_101_recalls() -> None:
    truths = {"boxes": torch.tensor([[RIGHT, FAR]]), "labels": torch.tensor([[1, 1]])}
    matches = match(one_image((1, 0.5, RIGHT)), truths, CLASSES)
    assert mean_average_precision(matches, everything(1)) == pytest.approx(51 / 101)


def test_classes_that_no_image_shows_do_not_count() -> None:
    truths = {"boxes": torch.tensor([[RIGHT], [RIGHT]]), "labels": torch.tensor([[0], [2]])}
    answers = {"boxes": torch.tensor([[RIGHT], [FAR]]), "scores": torch.ones(2, 1), "labels": torch.tensor([[0], [2]])}
    matches = match(answers, truths, CLASSES)
    values = [mean_average_precision(matches, np.array(places)) for places in ([0], [1], [0, 1], [0, 0])]
    assert values == [1, 0, 0.5, 1]


def test_nothing_shown_and_nothing_found_is_0() -> None:
    nothing = {"boxes": torch.zeros(1, 0, 4), "labels": torch.zeros(1, 0, dtype=torch.int64)}
    matches = match(one_image((0, 0.9, RIGHT)), nothing, CLASSES)
    assert mean_average_precision(matches, everything(1)) == 0


def test_it_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    match(*crowd(2, torch.Generator().manual_seed(0)), CLASSES)
    assert capsys.readouterr().out == ""


def test_without_pycocotools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(EvaluationError, match=r'pip install -e "\.\[evaluate\]"'):
        match(*crowd(2, torch.Generator().manual_seed(0)), CLASSES)
