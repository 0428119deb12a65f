"""Surrogates: what an attacker without the victim differentiates instead, in transfer attacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG16_Weights

from model_store.architectures.vgg_features import CONV3_3, VGG16Features
from model_store.devices import place
from model_store.folding import fold_batch_norms
from model_store.official import TORCHVISION, file_name, read_official
from model_store.store import ModelStore, fill
from robustness.adversaries import Threat
from robustness.attacks.attack import Attack, Knowledge
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.features import FeatureTap, activations

Network = Callable[[Tensor], Tensor]

OFFICIAL = "torchvision:vgg16"


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


@dataclass(frozen=True)
class Ensemble(Surrogate):
    """Several surrogates whose features are attacked at once: SSP sums their relative distances (``attacks.ssp``).

    A sum of the distances as they are would weigh each network by the scale of its activations: on photos VGG-16's
    conv3-3 in vgg16-hed has a mean square of 130 to 300, the third stage of EfficientNet-Lite0 one of 57 to 67.
    ``features`` gives each map averaged over its places, joined to (N, C).
    """

    members: tuple[Surrogate, ...] = ()

    def learn(self, truths: Truths, generator: torch.Generator) -> Knowledge:
        """The features and activations of all members; no loss and no logits, since members may tell other classes."""
        del truths, generator
        return Knowledge(
            features=lambda images: [member.features(images) for member in self.members],
            activations=self.activations,
        )


def load_surrogate(store: ModelStore, name: str, device: torch.device, layer: str | None = None) -> Surrogate:
    """A network whose features are taken at ``layer``, a submodule's name; a feature network has one of its own.

    ``name`` is one of the store, or ``torchvision:vgg16``, the paper's own network (downloaded on first use). It may
    carry its layer, ``NAME:LAYER``, and several parted by commas are attacked together, as in
    ``vgg16-hed,efficientnet-lite0:network.blocks.2``. Raises VictimError for a classifier without layer or an unknown
    layer, UnavailableModelError, or what ``ModelStore.load`` raises.
    """
    if "," in name:
        if layer is not None:
            raise VictimError(f"one layer cannot be that of each of {name}; write NAME:LAYER for each")
        return _ensemble(name, tuple(load_surrogate(store, part.strip(), device) for part in name.split(",")))
    title = name
    stem = name.removeprefix(OFFICIAL)
    if ":" in stem and layer is None:
        name, _, layer = name.rpartition(":")
    loaded = _official(name) if name.startswith(TORCHVISION) else _stored(store, name)
    module = place(loaded.module, device)
    identity = f"{loaded.identity} {layer or 'features'}"
    if isinstance(module, VGG16Features):
        layers = _layers(module)
        excited = tuple(key for key, part in layers.named_modules() if isinstance(part, nn.ReLU) and "head" not in key)
        tap = FeatureTap(layers, layer or CONV3_3)
        return Surrogate(title, identity, module, tap, activations(layers, excited), loaded.folders)
    if layer is None:
        raise VictimError(f"{name} is no feature network; name one, or the layer of {name} whose features to attack")
    convolutions = tuple(key for key, part in module.named_modules() if isinstance(part, nn.Conv2d))
    excite = activations(module, convolutions)  # before norms, so with the norms apart
    folded = place(fold_batch_norms(module, (layer,)), device)
    return Surrogate(title, identity, folded, FeatureTap(folded, layer), excite, loaded.folders)


@dataclass(frozen=True)
class _Network:
    """A module on the CPU, what its results depend on, and the names of its classes."""

    module: nn.Module
    identity: str
    folders: tuple[str, ...] = ()


def _stored(store: ModelStore, name: str) -> _Network:
    loaded = store.load(name)
    folders = tuple(str(folder) for folder in loaded.card.recipe.get("folders", ()))
    return _Network(loaded.module, loaded.card.sha256, folders)


def _official(name: str) -> _Network:
    if name != OFFICIAL:
        raise VictimError(f"{name} is no surrogate; name {OFFICIAL} or a network of the store (`nrp models list`)")
    weights = VGG16_Weights.IMAGENET1K_V1
    state = read_official(weights, OFFICIAL, "or name vgg16-hed, which the store has")
    module = VGG16Features(classes=None, blocks=5)
    wanted = module.state_dict().keys()
    fill(module, {key: value for key, value in state.items() if key in wanted}, OFFICIAL)
    return _Network(module.eval().requires_grad_(False), file_name(weights))


def _layers(module: VGG16Features) -> nn.Module:
    """The same parts under the same names in one pass to the end, which ``module`` itself leaves at conv3-3."""
    parts = {"normalise": module.normalise, "features": module.features}
    return nn.Sequential(OrderedDict(parts)).eval()


def _ensemble(name: str, members: tuple[Surrogate, ...]) -> Ensemble:
    def pooled(images: Tensor) -> Tensor:
        return torch.cat([member.features(images).float().flatten(2).mean(2) for member in members], dim=1)

    def excited(images: Tensor) -> list[Tensor]:
        return [layer for member in members for layer in member.activations(images)]

    identity = " + ".join(member.identity for member in members)
    return Ensemble(name, identity, nn.ModuleList(m.module for m in members), pooled, excited, members=members)
