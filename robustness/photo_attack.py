"""Attacks on one photo, through the model's own preprocessing: the perturbation lies on the photo's pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.card import InputConvention
from model_store.devices import place
from model_store.official import is_official, load_official
from model_store.pixels import fit, to_bytes, to_float
from model_store.store import ModelStore
from model_store.timm_models import imagenet_folders
from robustness.attacks.attack import Attack, Features, Knowledge, Network
from robustness.attacks.pgd import PGD
from robustness.attacks.registry import ATTACKS
from robustness.attacks.scattering import FSA
from robustness.attacks.square import Square
from robustness.attacks.ssp import SSP
from robustness.errors import AttackError, VictimError
from robustness.surrogates import OFFICIAL, load_surrogate

OTHERWISE = "or name a classifier of the store (`nrp models list`)"


@dataclass(frozen=True)
class Target:
    """A classifier behind its own preprocessing: it takes a photo of any size. ``gradients``: it can be differentiated.

    ``classes`` are what tells two classifiers' answers alike: the names of their class folders, else their labels.
    """

    name: str
    module: nn.Module = field(repr=False)
    convention: InputConvention
    labels: tuple[str, ...] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    gradients: bool = True

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) float32 of images (N, 3, H, W) in [0,1], differentiable through resize and crop."""
        sized = fit(images, self.convention).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.module(sized)
        return out.float()

    def probabilities(self, pixels: Tensor, device: torch.device) -> Tensor:
        """Class probabilities (classes,) on the CPU of one photo, uint8 (3, H, W)."""
        with torch.no_grad():
            return self.logits(to_float(pixels.to(device)).unsqueeze(0)).softmax(1)[0].cpu()


@dataclass(frozen=True)
class Source:
    """What an attacker differentiates: networks of images (N, 3, H, W) in [0,1]; None where there is no such thing."""

    name: str
    logits: Network | None
    features: Features | None

    def knowledge(self, label: Tensor, aim: Tensor | None) -> Knowledge:
        """What is known of one photo of the class ``label`` (1,), to be taken for ``aim`` (1,) if that is given."""
        logits = self.logits
        if logits is None:
            return Knowledge(features=self.features, labels=label)
        return Knowledge(
            _cross_entropy(logits, label, 1),
            None if aim is None else _cross_entropy(logits, aim, -1),
            logits,
            self.features,
            None,
            label,
        )


def load_target(store: ModelStore, name: str, device: torch.device) -> Target:
    """The classifier ``name`` of the store, or an official one, ``torchvision:NAME`` or ``timm:NAME``.

    Raises VictimError for a model of another task, or what loading raises.
    """
    if is_official(name):
        official = load_official("classifier", name, OTHERWISE)
        module = place(official.on_pixels(), device)
        folders = imagenet_folders()
        classes = folders if len(folders) == len(official.labels) else official.labels
        return Target(name, module, official.convention, official.labels, classes)
    card = store.card(name)
    if card.task != "classifier":
        raise VictimError(f"{name} is a {card.task}, not a classifier; `nrp models list` shows the classifiers")
    folders = tuple(str(folder) for folder in card.recipe.get("folders", ()))
    module = place(store.load(name).module, device)
    return Target(name, module, card.input, card.labels, folders or card.labels, card.architecture != "onnx")


def load_source(
    store: ModelStore, target: Target, surrogate: str | None, attack: Attack, device: torch.device
) -> Source:
    """What ``attack`` follows: ``target`` itself, or the ``surrogate`` in its place.

    A surrogate is a classifier, which sees photos as it was made to, or what ``load_surrogate`` takes, which sees them
    as the target does. Raises AttackError where it cannot give what the attack needs, or what loading raises.
    """
    if surrogate is None:
        source = Source(target.name, target.logits, None)
        if not target.gradients and not isinstance(attack, Square):
            raise AttackError(
                f"{target.name} is an ONNX program, which gives no gradient for {attack.name}; name a network to "
                "attack in its place with --surrogate, or use --attack Square, which needs none"
            )
    elif is_classifier(store, surrogate):
        other = load_target(store, surrogate, device)
        source = Source(surrogate, other.logits if other.classes == target.classes else None, None)
    else:
        found = load_surrogate(store, surrogate, device)
        seen = found.learn({}, torch.Generator()).features
        source = Source(surrogate, None, None if seen is None else _fitted(seen, target.convention))
    _check(source, attack, target)
    return source


def is_classifier(store: ModelStore, name: str) -> bool:
    """Whether ``name`` is one classifier as it is, without a layer."""
    if "," in name or name == OFFICIAL or name.startswith(f"{OFFICIAL}:"):
        return False
    if is_official(name):
        return True
    return ":" not in name and store.card(name).task == "classifier"


def _fitted(features: Features, convention: InputConvention) -> Features:
    return lambda images: features(fit(images, convention))


def _check(source: Source, attack: Attack, target: Target) -> None:
    by_features = isinstance(attack, SSP) or (isinstance(attack, FSA) and attack.space == "features")
    if by_features and source.features is None:
        raise AttackError(
            f"{attack.name} attacks features; name a feature network, or a layer as NAME:LAYER, with --surrogate, such "
            "as vgg16-hed"
        )
    if not by_features and source.logits is None:
        raise AttackError(
            f"{attack.name} follows a classifier's answer, and {source.name} gives none for the classes of "
            f"{target.name}; name a classifier of these classes with --surrogate, or use --attack SSP or FSA"
        )


def _cross_entropy(logits: Network, label: Tensor, sign: int) -> Network:
    return lambda images: sign * F.cross_entropy(logits(images), label.expand(len(images)), reduction="none")


def attack_named(name: str, eps: int, *, steps: int | None = None, targeted: bool = False) -> Attack:
    """The attack of the registry with that name, in any case; "untargeted" and "targeted" may be left out of it.

    ``steps`` are its iterations, of Square its queries. Raises AttackError for an unknown name, an attack without
    steps, or a target for one that has none.
    """
    keys = {key.casefold(): key for key in ATTACKS}
    wanted = (name.casefold(), f"{name} untargeted".casefold(), f"{name} targeted".casefold())
    key = next((keys[each] for each in wanted if each in keys), None)
    if key is None:
        raise AttackError(f"no attack {name!r}; there are: {', '.join(ATTACKS)}")
    attack = ATTACKS[key](eps)
    if isinstance(attack, PGD):
        if attack.targeted and not targeted and "untargeted" not in key:
            raise AttackError(f"{key} needs a class to aim at; name it with --targeted")
        attack = replace(attack, targeted=targeted)
    elif targeted:
        raise AttackError(f"{key} aims at no class; leave out --targeted, or use --attack PGD-10 or PGD-50")
    if steps is None:
        return attack
    for setting in ("iterations", "queries"):
        if hasattr(attack, setting):
            changed: Callable[..., Attack] = replace  # every attack is a dataclass
            return changed(attack, **{setting: steps})
    raise AttackError(f"{key} takes one step; leave out --steps")


def attack_photo(
    pixels: Tensor, attack: Attack, knowledge: Knowledge, generator: torch.Generator, device: torch.device
) -> Tensor:
    """The adversary of one photo, uint8 (3, H, W), as 8-bit pixels within ``attack.eps``. Raises AttackError."""
    images = to_float(pixels.to(device)).unsqueeze(0).contiguous(memory_format=torch.channels_last)
    found = to_bytes(attack(images, knowledge, generator))[0].cpu()
    check_budget(found, pixels, attack)
    return found


def check_budget(adversary: Tensor, pixels: Tensor, attack: Attack) -> int:
    """The largest change of a value, in /255. Raises AttackError where it exceeds the budget, or the size changed."""
    if adversary.shape != pixels.shape:
        raise AttackError(f"{attack.name} changed the size of the photo, which is a fault of the attack; report it")
    largest = int((adversary.short() - pixels.short()).abs().max())
    if largest > attack.eps:
        raise AttackError(
            f"{attack.name} changed a pixel by {largest}/255 with a budget of {attack.eps:g}/255, which is a fault of "
            "the attack; report it"
        )
    return largest
