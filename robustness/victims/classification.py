"""Classifiers as victims: cross-entropy to attack, accuracy to judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.card import InputConvention
from model_store.devices import place
from model_store.folding import fold_batch_norms
from model_store.store import ModelStore
from robustness import scores
from robustness.attacks.attack import Knowledge
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.scores import Score
from robustness.seeds import derive_seed
from robustness.victims.victim import Answers, Victim

ANY_SIZE = InputConvention()


@dataclass(frozen=True)
class Classifier(Victim):
    """A classifier. ``folders`` are the class folders and ``classes`` their names, in order; ``convention`` fixes
    the size of its images.

    Of a randomised defence's draws the class probabilities are averaged.
    """

    convention: InputConvention = ANY_SIZE
    folders: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) in [0,1]."""
        out: Tensor = self.module(images.contiguous(memory_format=torch.channels_last))
        return out

    def log_probabilities(self, versions: Tensor) -> Tensor:
        """Logarithm (N, classes) of the mean class probabilities over the versions (N, D, 3, H, W) of each image."""
        count, draws = versions.shape[:2]
        logits = self.logits(versions.flatten(0, 1)).float().view(count, draws, -1)
        return logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(draws)

    def loss(self, versions: Tensor, truths: Truths) -> Tensor:
        """Cross-entropy (N,) of the averaged probabilities."""
        return F.nll_loss(self.log_probabilities(versions), truths["labels"], reduction="none")

    def answer(self, versions: Tensor) -> Answers:
        """``log_probabilities`` (N, classes) float32."""
        return {"log_probabilities": self.log_probabilities(versions).float().cpu()}

    def score(self, answers: Answers, truths: Truths) -> Score:
        """Top-1 accuracy."""
        return top(answers, truths, 1)

    def wrong(self, truths: Truths, generator: torch.Generator) -> Truths:
        """The data set's own ``targets`` where it has some, else a uniformly random wrong class for each label."""
        if "targets" in truths:
            return {"labels": truths["targets"]}
        labels = truths["labels"]
        shift = torch.randint(1, len(self.folders), labels.shape, generator=generator).to(labels.device)
        return {"labels": (labels + shift) % len(self.folders)}

    def knowledge(self, truths: Truths, generator: torch.Generator) -> Knowledge:
        """Loss, targeted loss (of what ``wrong`` gives), logits and labels."""
        # From a seed of its own, so that how a targeted attack aims does not move where an untargeted one starts.
        aims = torch.Generator().manual_seed(derive_seed(generator.initial_seed(), "wrong classes"))
        known = super().knowledge(truths, generator)
        aim = self.wrong(truths, aims)
        return replace(
            known,
            targeted_loss=lambda images: -self.loss(images.unsqueeze(1), aim),
            logits=self.logits,
            labels=truths["labels"],
        )


def top(answers: Answers, truths: Truths, places: int) -> Score:
    """The share of photos whose true class is among the ``places`` most probable (of fewer classes, among all)."""
    said = answers["log_probabilities"]
    guesses = said.topk(min(places, said.shape[1]), dim=1).indices
    return scores.accuracy((guesses == truths["labels"].unsqueeze(1)).any(dim=1))


def load_classifier(
    store: ModelStore, name: str, device: torch.device, convention: InputConvention | None = None
) -> Classifier:
    """The classifier ``name``, its batch norms folded, judged at its card's input size, or that of ``convention``.

    Another convention than the card's is for networks that take images of any size, so that several can be judged on
    the same pictures. Raises what ``ModelStore.load`` does, or VictimError.
    """
    card = store.card(name)
    if card.task != "classifier":
        raise VictimError(f"{name} is a {card.task}, not a classifier; `nrp models list` shows the classifiers")
    convention = convention or card.input
    if convention.short_side is None or convention.crop is None:
        raise VictimError(f"the card of {name} fixes no short_side and crop; add them to its card's input")
    folders = card.recipe.get("folders")
    if not isinstance(folders, list | tuple) or len(folders) != len(card.labels):
        raise VictimError(f"the card of {name} does not list one class folder a label in recipe.folders; add them")
    module = place(fold_batch_norms(store.load(name).module), device)
    return Classifier(name, card.sha256, module, convention, tuple(str(folder) for folder in folders), card.labels)


def load_classifiers(
    store: ModelStore, names: Sequence[str], device: torch.device, convention: InputConvention | None = None
) -> tuple[Classifier, ...]:
    """The named classifiers, which must agree on the class folders and, without ``convention``, on the input size.

    Raises VictimError.
    """
    victims = tuple(load_classifier(store, name, device, convention) for name in names)
    agreeing(victims)
    return victims


def agreeing(victims: Sequence[Classifier]) -> None:
    """Raise VictimError unless all take images of one size and tell the same classes apart."""
    first = victims[0]
    for other in victims[1:]:
        if other.convention != first.convention:
            raise VictimError(
                f"{first.name} takes {_size(first.convention)} but {other.name} takes {_size(other.convention)}; "
                "name victims that share one input convention"
            )
        if other.folders != first.folders:
            raise VictimError(
                f"{first.name} and {other.name} were trained on other classes; name victims that share them"
            )


def _size(convention: InputConvention) -> str:
    return f"short side {convention.short_side}, crop {convention.crop}"
