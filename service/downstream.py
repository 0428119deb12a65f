"""The downstream classifier: what a purified image is for.

Either a classifier from the model store or, as ``torchvision:NAME``, any of torchvision's classifiers with its
official weights, labels and preprocessing, downloaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from model_store.card import InputConvention
from model_store.errors import UnknownModelError
from model_store.official import TORCHVISION, load_official
from model_store.pixels import LONGEST_ASPECT, centre, fit
from model_store.store import ModelStore


@dataclass(frozen=True)
class Classifier:
    """``module`` maps what ``prepare`` makes of images (N, 3, H, W) in [0,1] to logits (N, len(labels))."""

    name: str
    labels: tuple[str, ...]
    sha256: str
    prepare: Callable[[Tensor], Tensor]
    module: nn.Module

    def inputs(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0,1] of any size, brought to the classifier's.

        A strip loses its far ends first: scaled up whole, as torchvision's transforms would, it would fill the memory.
        """
        return self.prepare(centre(images, LONGEST_ASPECT * min(images.shape[-2:])))


def load_classifier(name: str, store: ModelStore) -> Classifier:
    """The classifier of that name, in evaluation mode on the CPU.

    Raises UnknownModelError, UnavailableModelError, or what ``ModelStore.load`` raises.
    """
    if name.startswith(TORCHVISION):
        return _from_torchvision(name)
    card = store.card(name)
    if card.task != "classifier":
        raise UnknownModelError(f"{name!r} is a {card.task}, not a classifier; choose another NRP_CLASSIFIER")
    loaded = store.load(name)
    return Classifier(name, card.labels, card.sha256, partial(fit, convention=_checked(card.input)), loaded.module)


def _checked(convention: InputConvention) -> InputConvention:
    """The card's convention, provided that what it leaves of an image is bounded."""
    if convention.short_side is not None and convention.crop is None:
        return convention.model_copy(update={"crop": convention.short_side})
    return convention


def _from_torchvision(name: str) -> Classifier:
    official = load_official("classifier", name, "or unset NRP_CLASSIFIER to use the shipped classifier")
    return Classifier(name, official.labels, "", official.transforms, official.module)
