"""Segmenters as victims: cross-entropy a pixel to attack, global pixel accuracy to judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.devices import place
from model_store.store import ModelStore
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.scores import Score, resampled
from robustness.victims.victim import Answers, Victim


@dataclass(frozen=True)
class Segmenter(Victim):
    """A segmenter of ``classes``, by number. ``size`` (height, width) is what it was trained at and is judged at.

    Of a randomised defence's draws the class probabilities are averaged, pixel by pixel. Truths: ``mask`` (N, H, W)
    int64 of the images' size, ``len(classes)`` where nothing is scored.
    """

    classes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)

    def log_probabilities(self, versions: Tensor) -> Tensor:
        """Logarithm (N, classes, H, W) of the mean class probabilities over the versions (N, D, 3, H, W)."""
        count, draws = versions.shape[:2]
        images = versions.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.module(images)
        each = logits.float().log_softmax(dim=1).view(count, draws, *logits.shape[1:])
        return each.logsumexp(dim=1) - math.log(draws)

    def loss(self, versions: Tensor, truths: Truths) -> Tensor:
        """Cross-entropy (N,) of the averaged probabilities, the mean over an image's scored pixels (0 without any)."""
        mask = truths["mask"]
        void = len(self.classes)
        each = F.nll_loss(self.log_probabilities(versions), mask, ignore_index=void, reduction="none")
        return each.flatten(1).sum(1) / (mask != void).flatten(1).sum(1).clamp(min=1)

    def answer(self, versions: Tensor) -> Answers:
        """``mask`` (N, H, W) uint8: the most probable class of every pixel."""
        return {"mask": self.log_probabilities(versions).argmax(dim=1).to(torch.uint8).cpu()}

    def score(self, answers: Answers, truths: Truths) -> Score:
        """Global pixel accuracy: of all scored pixels of all images, the share that is right.

        The interval resamples images, since the pixels of one are no independent observations. Raises VictimError
        for an image without a scored pixel.
        """
        truth = truths["mask"].cpu()
        scored = (truth != len(self.classes)).flatten(1)
        pixels = scored.sum(1).double()
        if (pixels == 0).any():
            raise VictimError(f"{self.name}: image {int(pixels.argmin())} has no scored pixel; leave it out")
        hits = ((answers["mask"] == truth).flatten(1) & scored).sum(1).double()

        def share(places: Tensor) -> float:
            return float(hits[places].sum() / pixels[places].sum())

        return resampled("pixel accuracy", len(pixels), share, hits / pixels)


def mean_iou(answers: Answers, truths: Truths, classes: int) -> float:
    """Mean intersection over union in [0,1], counted over all scored pixels together.

    The mean is over the classes that the truth shows anywhere; a class it never shows has no defined value and still
    counts against the classes it was mistaken for. Raises VictimError where nothing is scored.
    """
    truth, guess = truths["mask"].cpu(), answers["mask"].long()
    scored = truth != classes
    if not scored.any():
        raise VictimError("no pixel is scored, so there is no mean IoU; give masks that show some class")
    table = torch.bincount(truth[scored] * classes + guess[scored], minlength=classes**2).view(classes, classes)
    inside = table.diagonal().double()
    union = table.sum(0) + table.sum(1) - table.diagonal()
    shown = table.sum(1) > 0
    return float((inside[shown] / union[shown]).mean())


def load_segmenter(store: ModelStore, name: str, device: torch.device) -> Segmenter:
    """The segmenter ``name``. Raises what ``ModelStore.load`` does, or VictimError."""
    card = store.card(name)
    if card.task != "segmenter":
        raise VictimError(f"{name} is a {card.task}, not a segmenter; `nrp models list` shows the segmenters")
    if not card.labels:
        raise VictimError(f"the card of {name} names no classes; add them to its labels, in order")
    size = card.recipe.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise VictimError(f"the card of {name} has no height and width in recipe.size; add what it was trained at")
    module = place(store.load(name).module, device)
    return Segmenter(name, card.sha256, module, card.labels, (int(size[0]), int(size[1])))
