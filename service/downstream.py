"""The downstream classifier: what a purified image is for.

Either a classifier from the model store or, as ``torchvision:NAME``, any of torchvision's classifiers with its
official weights, labels and preprocessing, downloaded on first use.
"""

from __future__ import annotations

import http.client
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from model_store.card import InputConvention
from model_store.errors import UnavailableModelError, UnknownModelError
from model_store.pixels import LONGEST_ASPECT, centre, fit
from model_store.store import ModelStore

TORCHVISION = "torchvision:"
_DOWNLOAD_FAILURES = (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError, EOFError)


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
    architecture = name.removeprefix(TORCHVISION)
    if architecture not in list_models(module=torchvision.models):
        raise UnavailableModelError(
            f"torchvision has no classifier {architecture!r}; NRP_CLASSIFIER takes names such as torchvision:resnet50"
        )
    weights = get_model_weights(architecture).DEFAULT
    try:
        # Read without unpickling first: the builder below unpickles the same file, which by then is known to hold
        # nothing but tensors. Building through torchvision keeps each architecture's own switches right.
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        module = get_model(architecture, weights=weights, progress=False)
    except _DOWNLOAD_FAILURES as error:
        reason = " ".join(str(error).split())[:200]
        raise UnavailableModelError(
            f"the official weights of {name} cannot be had here ({reason}); put {weights.url.rsplit('/', 1)[-1]} "
            "into $TORCH_HOME/hub/checkpoints, or unset NRP_CLASSIFIER to use the shipped classifier"
        ) from error
    labels = tuple(str(label) for label in weights.meta["categories"])
    return Classifier(name, labels, "", weights.transforms(), module.eval().requires_grad_(False))
