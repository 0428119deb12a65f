"""Findings: what a downstream model says of one image, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects of one image, best first: ``boxes`` (K, 4) x0 y0 x1 y1 in its pixels, ``scores`` (K,) in [0,1],
    ``labels`` (K,) int64."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class ClassMask:
    """``classes``: the most probable class of every pixel of one image, uint8 (H, W)."""

    classes: Tensor


# A tensor: probabilities (classes,) of a classifier, or on their way to a mask (classes, h, w) of a segmenter.
Finding = Tensor | ClassMask | Detections


def likeliest(probabilities: Tensor, height: int, width: int) -> ClassMask:
    """The mask, of that height and width, that probabilities (classes, h, w) amount to.

    They are interpolated bilinearly, one class at a time, since those of a large image would fill the memory.
    """
    best: Tensor | None = None
    for index, plane in enumerate(probabilities):
        drawn = F.interpolate(plane[None, None], size=(height, width), mode="bilinear", antialias=True)[0, 0]
        if best is None:
            best, classes = drawn, torch.zeros_like(drawn, dtype=torch.uint8)
        else:
            classes[drawn > best] = index
            torch.maximum(best, drawn, out=best)
    return ClassMask(classes)


def scaled_back(found: Detections, seen: tuple[int, int], size: tuple[int, int]) -> Detections:
    """What was found in an image as ``seen`` (height, width), in the image's own ``size``, best first.

    Boxes are cut to the image; what is left of none is dropped.
    """
    boxes = found.boxes
    own = torch.tensor([size[1], size[0]] * 2, device=boxes.device)
    boxes = torch.minimum((boxes * (own / torch.tensor([seen[1], seen[0]] * 2, device=boxes.device))).clamp(min=0), own)
    # Not "wider than nothing": a box that is NaN has to stay, to be told.
    kept = ~((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    order = found.scores[kept].argsort(descending=True, stable=True)
    return Detections(boxes[kept][order], found.scores[kept][order], found.labels[kept][order])


def is_finite(finding: Finding) -> bool:
    """Whether no number in it is NaN or infinite."""
    if isinstance(finding, ClassMask):
        return True
    parts = [finding] if isinstance(finding, Tensor) else [finding.boxes, finding.scores]
    return all(bool(part.isfinite().all()) for part in parts)


def on_cpu(finding: Finding) -> Finding:
    """The same in the CPU's memory."""
    if isinstance(finding, Tensor):
        return finding.cpu()
    if isinstance(finding, ClassMask):
        return ClassMask(finding.classes.cpu())
    return Detections(finding.boxes.cpu(), finding.scores.cpu(), finding.labels.cpu())


def probabilities_of(finding: Finding | None) -> Tensor:
    """The probabilities that a finding is. The engine asks whom it was told to ask; anything else is a defect."""
    if not isinstance(finding, Tensor):
        raise TypeError(f"the engine returned {type(finding).__name__}, not probabilities")
    return finding


def mask_of(finding: Finding | None) -> ClassMask:
    """The mask that a finding is, in the same way."""
    if not isinstance(finding, ClassMask):
        raise TypeError(f"the engine returned {type(finding).__name__}, not a mask")
    return finding


def detections_of(finding: Finding | None) -> Detections:
    """The detections that a finding is, in the same way."""
    if not isinstance(finding, Detections):
        raise TypeError(f"the engine returned {type(finding).__name__}, not detections")
    return finding
