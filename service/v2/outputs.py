"""The tensors that models answer with: what each task gives, and how the engine's answers become it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model_store.official import Kind
from service.findings import Detections, detections_of, mask_of, probabilities_of
from service.job import Answer
from service.v2.tensors import FLOATS, IMAGE, INTEGERS, LEVELS, Array, Layout, laid_out

PURIFIED = "purified"
PROBABILITIES = "probabilities"
MASK = "mask"
BOXES = "boxes"
SCORES = "scores"
LABELS = "labels"
COUNTS = "counts"

NO_LABEL = -1


@dataclass(frozen=True)
class Output:
    """One tensor. ``shape``: -1 is any size. ``per_pixel``: its values for each pixel sent; 0 where they are few."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    in_words: str
    per_pixel: int = 0


def outputs_of(task: Kind | None, labels: int) -> tuple[Output, ...]:
    """The outputs of a purifier (None), or of a downstream model with that many labels behind a purifier."""
    if task is None:
        words = f"in the datatype and layout of {IMAGE}, of the same shape; whole levels of 255 in either"
        return (Output(PURIFIED, LEVELS.datatype, LEVELS.shape, words, per_pixel=3),)
    if task == "classifier":
        words = "of the purified images, averaged over the draws, in the order of labels"
        return (Output(PROBABILITIES, FLOATS.datatype, (-1, labels), words),)
    if task == "segmenter":
        words = "each pixel's class, a place in labels; probabilities are averaged over the purified draws"
        return (Output(MASK, LEVELS.datatype, (-1, -1, -1), words, per_pixel=1),)
    rest = f"objects of each image; behind them {BOXES} and {SCORES} hold 0, {LABELS} {NO_LABEL}"
    return (
        Output(BOXES, FLOATS.datatype, (-1, -1, 4), "x0, y0, x1, y1 in pixels, best first"),
        Output(SCORES, FLOATS.datatype, (-1, -1), "0 to 1, not below score_threshold"),
        Output(LABELS, INTEGERS, (-1, -1), "each object's place in the list of labels"),
        Output(COUNTS, INTEGERS, (-1,), f"{rest}; there is room for one object at the least"),
    )


def arrays_of(
    task: Kind | None, answers: Sequence[Answer], layout: Layout, score_threshold: float
) -> Mapping[str, Array]:
    """The answers as the task's outputs, by name; purified images in ``layout``."""
    if task is None:
        return {PURIFIED: laid_out(torch.stack([answer.purified for answer in answers]), layout)}
    if task == "classifier":
        found = torch.stack([probabilities_of(answer.defended) for answer in answers])
        return {PROBABILITIES: found.float().numpy()}
    if task == "segmenter":
        return {MASK: torch.stack([mask_of(answer.defended).classes for answer in answers]).numpy()}
    return _padded([detections_of(answer.defended) for answer in answers], score_threshold)


def _padded(found: Sequence[Detections], score_threshold: float) -> Mapping[str, Array]:
    """Objects of the threshold or more, best first as they come, in tensors of one shape for all images.

    Room for one object at the least: not every client can read a tensor without values.
    """
    counts = [int((detections.scores >= score_threshold).sum()) for detections in found]
    room = max(1, *counts)
    boxes = np.zeros((len(found), room, 4), np.float32)
    scores = np.zeros((len(found), room), np.float32)
    labels = np.full((len(found), room), NO_LABEL, np.int64)
    for place, (detections, count) in enumerate(zip(found, counts, strict=True)):
        boxes[place, :count] = detections.boxes[:count].numpy()
        scores[place, :count] = detections.scores[:count].numpy()
        labels[place, :count] = detections.labels[:count].numpy()
    return {BOXES: boxes, SCORES: scores, LABELS: labels, COUNTS: np.array(counts, np.int64)}
