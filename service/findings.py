"""Findings: what a downstream model says of one image, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
