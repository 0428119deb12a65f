"""Surrogates: what an attacker without the victim differentiates instead, in transfer attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures.vgg_features import VGG16Features
from model_store.devices import place
from model_store.store import ModelStore
from robustness.adversaries import Threat
from robustness.attacks.attack import Attack, Knowledge
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.features import FeatureTap, activations

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Surrogate:
    """A network whose gradients are followed; ``layers`` name where ``features`` come from and what FFF excites.

    ``folders`` name the classes of its head; without them, or on other classes, only its features are of use.
    """

    name: str
    identity: str
    module: nn.Module = field(repr=False)
    features: Network = field(repr=False)
    activations: Callable[[Tensor], list[Tensor]] = field(repr=False)
    folders: tuple[str, ...] = ()

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) in [0,1]."""
        out: Tensor = self.module(images)
        return out

    def learn(self, truths: Truths, generator: torch.Generator) -> Knowledge:
        """What it tells of a batch; a loss and logits only from a head, where the batch has a label an image."""
        del generator
        labels = truths.get("labels")
        headless = isinstance(self.module, VGG16Features) and self.module.head is None
        if headless or labels is None or labels.ndim != 1:
            return Knowledge(features=self.features, activations=self.activations)
        known = labels

        def loss(images: Tensor) -> Tensor:
            return F.cross_entropy(self.logits(images).float(), known, reduction="none")

        return Knowledge(loss, None, self.logits, self.features, self.activations, known)

    def threat(self, attack: Attack) -> Threat:
        """``attack`` made on this network, to be judged on others."""
        return Threat(attack, self.name, self.identity, self.learn, "transfer")


def load_surrogate(store: ModelStore, name: str, device: torch.device, layer: str | None = None) -> Surrogate:
    """A feature network of the store, or a classifier of which ``layer`` (a submodule's name) gives the features.

    Raises VictimError for another task, a classifier without ``layer``, or an unknown layer.
    """
    loaded = store.load(name)
    module = place(loaded.module, device)
    folders = tuple(str(folder) for folder in loaded.card.recipe.get("folders", ()))
    excited = tuple(key for key, part in module.named_modules() if isinstance(part, nn.Conv2d))
    identity = f"{loaded.card.sha256} {layer or 'features'}"
    if layer is not None:
        return Surrogate(name, identity, module, FeatureTap(module, layer), activations(module, excited), folders)
    if not isinstance(module, VGG16Features):
        raise VictimError(f"{name} is no feature network; name one, or the layer of {name} whose features to attack")
    trunk = tuple(key for key, part in module.features.named_modules(prefix="features") if isinstance(part, nn.ReLU))
    return Surrogate(name, identity, module, module.extract, activations(module, trunk), folders)
