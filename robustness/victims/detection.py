"""Detectors as victims: RetinaNet's losses to attack, mAP@0.5 to judge. A program is judged alone: it has no loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.devices import place
from model_store.store import ModelStore
from robustness.average_precision import MOST, match, mean_average_precision
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.scores import Score, resampled
from robustness.victims.victim import Answers, Victim


class DetectorModule(Protocol):
    """What a detector's module offers, as ``RetinaNetSmall`` does; boxes are x1 y1 x2 y2 in pixels of its images."""

    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Boxes (K, 4), scores (K,) and labels (K,) of each image, best first."""

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """``classification`` and ``box`` losses (N,), differentiable in the images. A program lacks it."""


@dataclass(frozen=True)
class Detector(Victim):
    """A detector of ``classes``, by number. ``size`` (height, width) is what it was trained at and is judged at.

    It looks at the mean image of a randomised defence's draws, which is what /purify returns: boxes of several draws
    have no mean. Truths: ``boxes`` (N, K, 4) x1 y1 x2 y2 in pixels of the images, ``labels`` (N, K), -1 where there
    is no box.
    """

    classes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)

    def loss(self, versions: Tensor, truths: Truths) -> Tensor:
        """RetinaNet's classification and box losses (N,), added up as in training.

        Raises VictimError for a program, which gives boxes alone.
        """
        if not hasattr(self.module, "losses"):
            raise VictimError(
                f"{self.name} gives boxes and no loss, so nothing leads an attack made on it: attack it by transfer "
                "(SSP or CDA, on a surrogate)"
            )
        targets = []
        for boxes, labels in zip(truths["boxes"], truths["labels"], strict=True):
            present = labels >= 0
            targets.append({"boxes": boxes[present], "labels": labels[present]})
        parts = cast(DetectorModule, self.module).losses(_seen(versions), targets)
        return parts["classification"] + parts["box"]

    def answer(self, versions: Tensor) -> Answers:
        """At most 100 detections an image, best first: ``boxes`` (N, 100, 4), ``scores`` (N, 100), ``labels`` (N, 100).

        Padded with 0, 0 and -1.
        """
        found = [
            {key: value[:MOST].cpu() for key, value in one.items()}
            for one in cast(DetectorModule, self.module)(_seen(versions))
        ]
        gaps = [MOST - len(one["labels"]) for one in found]
        padded = list(zip(found, gaps, strict=True))
        return {
            "boxes": torch.stack([F.pad(one["boxes"].float(), (0, 0, 0, gap)) for one, gap in padded]),
            "scores": torch.stack([F.pad(one["scores"].float(), (0, gap)) for one, gap in padded]),
            "labels": torch.stack([F.pad(one["labels"], (0, gap), value=-1) for one, gap in padded]),
        }

    def score(self, answers: Answers, truths: Truths) -> Score:
        """mAP@0.5: COCO's average precision at IoU 0.5, 100 detections, any area; the mean over the classes shown.

        The interval resamples images. Raises VictimError where no image has a box, EvaluationError without
        pycocotools.
        """
        if not (truths["labels"] >= 0).any():
            raise VictimError(f"{self.name}: no image has a box, so there is no mAP; give images with boxes")
        here = {key: value.cpu() for key, value in truths.items()}
        matches = match(answers, here, len(self.classes))
        return resampled("mAP@0.5", len(here["labels"]), lambda at: mean_average_precision(matches, at.numpy()))


def load_detector(store: ModelStore, name: str, device: torch.device) -> Detector:
    """The detector ``name``. Raises what ``ModelStore.load`` does, or VictimError."""
    card = store.card(name)
    if card.task != "detector":
        raise VictimError(f"{name} is a {card.task}, not a detector; `nrp models list` shows the detectors")
    if not card.labels:
        raise VictimError(f"the card of {name} names no classes; add them to its labels, in order")
    size = card.recipe.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise VictimError(f"the card of {name} has no height and width in recipe.size; add what it was trained at")
    module = place(store.load(name).module, device)
    return Detector(name, card.sha256, module, card.labels, (int(size[0]), int(size[1])))


def _seen(versions: Tensor) -> Tensor:
    return versions.mean(dim=1)
