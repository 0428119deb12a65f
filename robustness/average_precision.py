"""Mean average precision of boxes, as COCO counts it, in a form that can be resampled a thousand times a second."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustness.errors import EvaluationError

RECALLS = np.linspace(0, 1, 101)
MOST = 100

Boxes = Mapping[str, Tensor]
Annotations = list[dict[str, Any]]


@dataclass(frozen=True)
class Matches:
    """One class's detections in falling order of score: ``hit`` (M,) and the image of each (M,).

    ``wanted`` (N,) counts the true boxes of the class in every image.
    """

    hit: NDArray[np.bool_]
    image: NDArray[np.int64]
    wanted: NDArray[np.int64]

    def average_precision(self, times: NDArray[np.int64]) -> float | None:
        """The 101-point interpolated average precision where image i counts ``times[i]`` times.

        None where no true box is left. What ``COCOeval.accumulate`` computes, for images in any number.
        """
        wanted = int(self.wanted @ times)
        if not wanted:
            return None
        hit = np.repeat(self.hit, times[self.image])
        found = np.cumsum(hit)
        precision = found / np.arange(1, len(hit) + 1)
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(found / wanted, RECALLS, side="left")
        return float(np.append(highest, 0.0)[reached].mean())


def match(answers: Boxes, truths: Boxes, classes: int) -> list[Matches]:
    """Match detections with true boxes at IoU 0.5, image by image, with pycocotools; one entry a class.

    ``answers``: boxes (N, D, 4) x1 y1 x2 y2, scores (N, D), labels (N, D); ``truths``: boxes (N, K, 4), labels (N, K);
    labels are -1 where there is no box. At most 100 detections an image and class count. Raises EvaluationError
    without pycocotools.
    """
    count = len(truths["labels"])
    with redirect_stdout(io.StringIO()):
        judge = _evaluated(_true_boxes(truths), _detections(answers), count, classes)
    each = np.array(judge.evalImgs, dtype=object).reshape(classes, count)
    return [_gathered(list(row)) for row in each]


def mean_average_precision(matches: Sequence[Matches], places: NDArray[np.int64]) -> float:
    """The mean in [0,1] over the classes that the images at ``places`` (repeats allowed) show; 0 if they show none."""
    images = len(matches[0].wanted)
    times = np.bincount(places, minlength=images)
    values = [value for one in matches if (value := one.average_precision(times)) is not None]
    return float(np.mean(values)) if values else 0.0


def _gathered(images: list[dict[str, Any] | None]) -> Matches:
    """The evaluation of one class in every image (None where it has neither box nor detection), as one list."""
    scores, hits, owners = [np.zeros(0)], [np.zeros(0, dtype=bool)], [np.zeros(0, dtype=np.int64)]
    wanted = np.zeros(len(images), dtype=np.int64)
    for place, one in enumerate(images):
        if one is None:
            continue
        wanted[place] = np.count_nonzero(one["gtIgnore"] == 0)
        counts = ~np.asarray(one["dtIgnore"][0], dtype=bool)  # a box turned inside out neither hits nor misses
        scores.append(np.asarray(one["dtScores"], dtype=float)[counts])
        hits.append(one["dtMatches"][0][counts] > 0)
        owners.append(np.full(np.count_nonzero(counts), place, dtype=np.int64))
    # Stable, as COCOeval sorts: of equal scores, the earlier image's comes first.
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return Matches(np.concatenate(hits)[order], np.concatenate(owners)[order], wanted)


def _evaluated(truths: Annotations, detections: Annotations, images: int, classes: int) -> Any:
    """COCOeval after its per-image matching, at IoU 0.5 and over every area."""
    coco, cocoeval = _package("pycocotools.coco"), _package("pycocotools.cocoeval")
    sides = []
    for listed in (truths, detections):
        side = coco.COCO()
        side.dataset = {
            "images": [{"id": image} for image in range(images)],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": listed,
        }
        side.createIndex()
        sides.append(side)
    judge = cocoeval.COCOeval(*sides, iouType="bbox")
    judge.params.iouThrs = np.array([0.5])
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge.params.maxDets = [MOST]
    judge.evaluate()
    return judge


def _true_boxes(truths: Boxes) -> Annotations:
    return [{**box, "iscrowd": 0} for box in _listed(truths["boxes"], truths["labels"])]


def _detections(answers: Boxes) -> Annotations:
    scores = answers["scores"][answers["labels"] >= 0].tolist()
    listed = _listed(answers["boxes"], answers["labels"])
    return [{**box, "score": score} for box, score in zip(listed, scores, strict=True)]


def _listed(boxes: Tensor, labels: Tensor) -> Annotations:
    """COCO annotations, numbered from 1: to COCOeval, a match with number 0 is none."""
    present = labels >= 0
    images, _ = present.nonzero(as_tuple=True)
    rows = zip(images.tolist(), labels[present].tolist(), boxes[present].double().tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": label,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
        }
        for number, (image, label, (left, top, right, bottom)) in enumerate(rows, start=1)
    ]


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EvaluationError('mAP needs pycocotools; install the extra: pip install -e ".[evaluate]"') from error
