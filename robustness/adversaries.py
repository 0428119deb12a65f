"""Adversaries: an attack run over many images, brought to 8 bits, and watched for what would make it a weak one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from model_store.inference import seeded
from model_store.pixels import to_bytes, to_float
from robustness.attacks.attack import Attack, Knowledge
from robustness.cache import Tensors
from robustness.conditions import Conditions
from robustness.examples import Examples, Truths
from robustness.observations import Attacker, Scenario
from robustness.progress import Progress
from robustness.seeds import derive_seed
from robustness.victims.victim import Victim, on

# float32 cannot hold multiples of 1/255 exactly; a tenth of a level is far above that and far below a breach.
SLACK = 0.1 / 255

Learn = Callable[[Truths, torch.Generator], Knowledge]
Keep = Callable[[int, Callable[[], Tensors]], Tensors]
T = TypeVar("T")


# An L2 norm over all pixels under which a gradient is no direction: a saturated loss alone may well give 1e-13.
VANISHED = 1e-20


class GradientWatch:
    """Notes the images whose input gradient vanished at the first step, or was not finite at any: a masked gradient.

    Later zeros say nothing: they are what an attack that has long succeeded ends in.
    """

    def __init__(self, count: int) -> None:
        self.blind = torch.zeros(count, dtype=torch.bool)
        self._steps = 0

    def __call__(self, images: Tensor) -> Tensor:
        """``images`` themselves; their gradient will be seen."""
        if images.requires_grad and len(images) == len(self.blind):
            images.register_hook(self._see)  # type: ignore[no-untyped-call]
        return images

    def _see(self, gradient: Tensor) -> None:
        flat = gradient.detach().flatten(1)
        useless = ~flat.isfinite().all(dim=1)
        if self._steps == 0:
            useless |= flat.float().norm(dim=1) < VANISHED
        self.blind |= useless.cpu()
        self._steps += 1


@dataclass(frozen=True)
class Threat:
    """``attack`` made by someone who knows what ``learn`` gives: a batch's knowledge from its truths and a generator.

    ``target`` names what the attacker differentiates; ``identity`` says all that it depends on (weights, randomness)
    for the cache. ``attacker`` is "transfer" when others than the target are judged with it.
    """

    attack: Attack
    target: str
    identity: str
    learn: Learn = field(repr=False)
    attacker: Attacker = "white box"

    @property
    def scenario(self) -> Scenario:
        """What it does to the images."""
        surrogate = self.target if self.attacker == "transfer" else None
        return Scenario(self.attack.name, int(self.attack.eps), self.attacker, surrogate)

    @property
    def title(self) -> str:
        """For progress and warnings."""
        return f"{self.attack.name}, eps {self.attack.eps:g}/255 on {self.target}"

    @property
    def label(self) -> str:
        """For file names."""
        return f"{self.attack.name} eps{self.attack.eps:g} {self.target}"

    def fingerprint(self, digest: str, conditions: Conditions) -> Mapping[str, object]:
        """All that the adversaries of the images with this ``digest`` depend on."""
        return {
            "attack": repr(self.attack),
            "target": self.identity,
            "images": digest,
            "seed": conditions.seed,
            "batch": conditions.batch,
            "precision": conditions.attack_precision,
            "device": conditions.device.type,
            "torch": str(torch.__version__),
        }


def white_box(attack: Attack, victim: Victim) -> Threat:
    """Someone who holds the victim, and knows of no defence."""
    return Threat(attack, victim.name, victim.identity, victim.knowledge)


def _made_anew(start: int, make: Callable[[], Tensors]) -> Tensors:
    del start
    return make()


def craft(
    threat: Threat, examples: Examples, conditions: Conditions, progress: Progress, keep: Keep = _made_anew
) -> Tensors:
    """Attack every image: ``pixels`` uint8 like the examples', ``blind`` and ``broken`` (N,) bool.

    ``broken`` marks an adversary that left its budget or [0,1], or is not finite, before or after the rounding.
    ``keep`` may remember a batch, by the place of its first image, for a run that is killed.
    """
    found: list[Tensors] = []
    with progress.bar(len(examples)) as bar:
        for start in range(0, len(examples), conditions.batch):
            part = examples.part(slice(start, start + conditions.batch))
            found.append(keep(start, partial(_craft_batch, threat, part, start, conditions)))
            bar.update(len(part))
    return {key: torch.cat([batch[key] for batch in found]) for key in found[0]}


def _craft_batch(threat: Threat, part: Examples, start: int, conditions: Conditions) -> Tensors:
    """The adversaries of one batch, whose first image stands at ``start`` among all."""
    eps = threat.attack.eps
    images = conditions.floats(part.pixels)
    watch = GradientWatch(len(images))
    purpose = ("attack", threat.attack.name, threat.target, int(eps), start)
    generator = seeded(derive_seed(conditions.seed, *purpose))
    known = threat.learn(on(conditions.device, part.truths), generator)
    found = threat.attack(images, watched(known, watch, conditions), generator)
    outside = outside_budget(found, images, eps)
    pixels = to_bytes(found).cpu()
    broken = outside.cpu() | outside_budget(to_float(pixels), images.cpu(), eps)
    return {"pixels": pixels, "blind": watch.blind, "broken": broken}


def watched(known: Knowledge, watch: GradientWatch, conditions: Conditions) -> Knowledge:
    """The same knowledge, its gradients seen by ``watch`` and its networks run in the attacker's precision."""

    def seen(call: Callable[[Tensor], T] | None) -> Callable[[Tensor], T] | None:
        if call is None:
            return None
        network = call

        def run(images: Tensor) -> T:
            with conditions.attack_autocast():
                return network(watch(images))

        return run

    return replace(
        known,
        loss=seen(known.loss),
        targeted_loss=seen(known.targeted_loss),
        logits=seen(known.logits),
        features=seen(known.features),
        activations=seen(known.activations),
    )


def outside_budget(adversaries: Tensor, images: Tensor, eps: float) -> Tensor:
    """Which adversaries (N,) leave the eps/255 ball of their image or [0,1], or are not finite."""
    distance = (adversaries - images).abs().flatten(1).amax(dim=1)
    low, high = adversaries.flatten(1).aminmax(dim=1)
    return ~((distance <= eps / 255 + SLACK) & (low >= 0) & (high <= 1))
