"""The adversaries that a purifier is trained on: a bank made once, those of a step, and those that know the purifier.

All are attacks of ``robustness.attacks`` on a member of the ensemble, of 8-bit photos and rounded to 8 bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.pixels import to_bytes, to_float
from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.iterative import DIM, MIFGSM
from robustness.attacks.pgd import PGD
from robustness.attacks.single_step import FGSM
from robustness.attacks.ssp import SSP
from training.ensemble import Ensemble, Member, Network, Target
from training.loop import generator_at
from training.losses import feature_distances, prediction_shifts
from training.precision import autocast
from training.purifier_recipe import AdaptiveRecipe, AdversaryKind, AdversaryRecipe
from training.recipe import Precision

RANDOM_STARTS: frozenset[AdversaryKind] = frozenset({"ssp", "prediction"})


@dataclass(frozen=True)
class Turn:
    """What one batch is attacked with: ``eps`` in /255; ``layer`` is where SSP takes the features of ``member``."""

    kind: AdversaryKind
    eps: float
    member: Member
    layer: str


def budget(recipe: AdversaryRecipe, place: int, generator: torch.Generator) -> float:
    """The budget in /255 of batch ``place``: the next of the cycle, or drawn where the recipe has a range."""
    if not recipe.eps_high:
        return recipe.eps[place % len(recipe.eps)]
    share = float(torch.rand((), generator=generator))
    return recipe.eps_low + share * (recipe.eps_high - recipe.eps_low)


def turn_at(recipe: AdversaryRecipe, number: int, ensemble: Ensemble, generator: torch.Generator) -> Turn:
    """Turn ``number``: the kind changes with each, then the budget, then the network and its layer."""
    rest, place = divmod(number, len(recipe.kinds))
    kind = recipe.kinds[place]
    later = rest if recipe.eps_high else rest // len(recipe.eps)
    if kind == "ssp":
        member, layer = ensemble.layered[later % len(ensemble.layered)]
    else:
        member, layer = ensemble.answering[later % len(ensemble.answering)], ""
    return Turn(kind, budget(recipe, rest, generator), member, layer)


def attack_of(turn: Turn, recipe: AdversaryRecipe) -> Attack:
    """The attack of a turn."""
    eps, step, iterations = turn.eps, max(1.0, turn.eps * recipe.step_share), recipe.iterations
    if turn.kind == "ssp":
        return SSP(eps, step, iterations, recipe.start)
    if turn.kind == "prediction":
        return PGD(eps, step=step, iterations=iterations, start=recipe.start)
    if turn.kind == "momentum":
        return MIFGSM(eps, step, iterations)
    if turn.kind == "diverse":
        return DIM(eps, step, iterations)
    return FGSM(eps)


def knowledge_of(turn: Turn, images: Tensor, precision: Precision) -> Knowledge:
    """What the attack of a turn may use: features to move away from, or the loss of the network's own answer."""
    member = turn.member
    if turn.kind == "ssp":
        return Knowledge(features=in_precision(lambda seen: member.features(seen, turn.layer), precision))
    answer = in_precision(member.logits, precision)
    with torch.no_grad():
        own = answer(images).argmax(1)
    return Knowledge(loss=lambda seen: F.cross_entropy(answer(seen).float(), own, reduction="none"))


def in_precision(network: Network, precision: Precision) -> Network:
    """``network`` in ``precision``."""

    def run(images: Tensor) -> Tensor:
        with autocast(images.device, precision):
            return network(images)

    return run


def attacked(
    clean: Tensor, number: int, recipe: AdversaryRecipe, ensemble: Ensemble, generator: torch.Generator, before: int = 0
) -> Tensor:
    """Adversaries, uint8 (N, 3, S, S), of ``clean``, which lies where the ensemble does, by turn ``number``.

    ``before`` images of the same batch are attacked elsewhere: random starts are drawn an image after another, so
    leaving theirs out gives these images what one worker would have given them.
    """
    turn = turn_at(recipe, number, ensemble, generator)
    images = to_float(clean).to(memory_format=torch.channels_last)
    if before and turn.kind in RANDOM_STARTS:
        torch.rand(before, *clean.shape[1:], generator=generator)
    found = attack_of(turn, recipe)(images, knowledge_of(turn, images, recipe.precision), generator)
    return within(to_bytes(found), clean, turn.eps)


def within(adversaries: Tensor, clean: Tensor, eps: float) -> Tensor:
    """``adversaries`` at most ``eps`` levels from ``clean`` (uint8 all): rounding may leave a budget of 5.7 by 0.3."""
    most = math.floor(eps + 1e-6)
    moved = (adversaries.short() - clean.short()).clamp(-most, most)
    return (clean.short() + moved).to(torch.uint8)


def attack(clean: Tensor, number: int, recipe: AdversaryRecipe, ensemble: Ensemble, seed: int) -> Tensor:
    """Adversaries of the bank's batch ``number``, uint8 (N, 3, S, S) on the CPU, as ``clean`` is."""
    device = next(ensemble.members[0].module.parameters()).device
    return attacked(clean.to(device), number, recipe, ensemble, generator_at(seed, number)).cpu()


def attacked_through(
    clean: Tensor,
    defended: Network,
    target: Target,
    eps: float,
    recipe: AdaptiveRecipe,
    precision: Precision,
    generator: torch.Generator,
) -> Tensor:
    """Adversaries, uint8 (N, 3, S, S), of ``clean`` by PGD through ``defended``, a purifier with its noise.

    ``target``: the network behind it and, where features are to be moved, its layer. ``defended`` may draw noise of
    its own, anew for each step; the purifier in it should want no gradient of its parameters.
    """
    member, layer = target
    wanted = recipe.objective == "feature"
    network = in_precision((lambda seen: member.features(seen, layer)) if wanted else member.logits, precision)
    apart = feature_distances if wanted else prediction_shifts
    images = to_float(clean).to(memory_format=torch.channels_last)
    with torch.no_grad():
        before = network(images).float()

    def height(seen: Tensor) -> Tensor:
        return apart(network(defended(seen)).float(), before)

    pgd = PGD(eps, step=max(1.0, eps * recipe.step_share), iterations=recipe.iterations, start=recipe.start)
    return within(to_bytes(pgd(images, Knowledge(loss=height), generator)), clean, eps)


@dataclass
class Tally:
    """How many adversaries were made, and in how many ``seconds``."""

    count: int = 0
    seconds: float = 0.0

    @contextmanager
    def counting(self, count: int, device: torch.device) -> Iterator[None]:
        """Count what is made meanwhile; a GPU is waited for, since it answers before it has worked."""
        began = _now(device)
        yield
        self.seconds += _now(device) - began
        self.count += count

    @property
    def rate(self) -> float:
        """Adversaries per second; 0 before the first."""
        return self.count / self.seconds if self.seconds else 0.0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
