"""Victims: the classifiers that attacks are made on and accuracy is counted with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_store.card import Card, InputConvention
from model_store.devices import place
from model_store.store import ModelStore
from robustness.errors import VictimError


@dataclass(frozen=True)
class Victim:
    """A classifier, frozen, on its device; ``folders`` are the class folders in label order."""

    card: Card
    module: nn.Module
    folders: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name in the store."""
        return self.card.name

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) in [0,1]."""
        out: Tensor = self.module(images.contiguous(memory_format=torch.channels_last))
        return out

    def log_probabilities(self, versions: Tensor) -> Tensor:
        """Logarithm (N, classes) of the mean class probabilities over the versions (N, D, 3, H, W) of each image."""
        count, draws = versions.shape[:2]
        logits = self.logits(versions.flatten(0, 1)).float().view(count, draws, -1)
        return logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(draws)


def load_victims(store: ModelStore, names: Sequence[str], device: torch.device) -> tuple[Victim, ...]:
    """The named classifiers, which must agree on the input size and the class folders.

    Raises UnknownModelError, or VictimError for a model of another task or without what an evaluation needs.
    """
    victims = tuple(_load(store, name, device) for name in names)
    first = victims[0]
    for other in victims[1:]:
        if other.card.input != first.card.input:
            raise VictimError(
                f"{first.name} takes {_size(first.card.input)} but {other.name} takes {_size(other.card.input)}; "
                "name victims that share one input convention"
            )
        if other.folders != first.folders:
            raise VictimError(
                f"{first.name} and {other.name} were trained on other classes; name victims that share them"
            )
    return victims


def _load(store: ModelStore, name: str, device: torch.device) -> Victim:
    loaded = store.load(name)
    card = loaded.card
    if card.task != "classifier":
        raise VictimError(f"{name} is a {card.task}, not a classifier; `nrp models list` shows the classifiers")
    if card.input.short_side is None or card.input.crop is None:
        raise VictimError(f"the card of {name} fixes no short_side and crop; add them to its card's input")
    folders = card.recipe.get("folders")
    if not isinstance(folders, list | tuple) or len(folders) != len(card.labels):
        raise VictimError(f"the card of {name} does not list one class folder a label in recipe.folders; add them")
    return Victim(card, place(loaded.module, device), tuple(str(folder) for folder in folders))


def _size(convention: InputConvention) -> str:
    return f"short side {convention.short_side}, crop {convention.crop}"
