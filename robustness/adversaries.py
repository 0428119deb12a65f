"""Adversaries: PGD run over many photos, brought to 8 bits, and watched for what would make it a weak attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.inference import seeded
from model_store.pixels import to_bytes, to_float
from robustness.attacks import PGD, Objective
from robustness.cache import Fingerprint, Tensors
from robustness.conditions import Conditions
from robustness.observations import Scenario
from robustness.photos import Photos
from robustness.progress import Progress
from robustness.seeds import derive_seed

# float32 cannot hold multiples of 1/255 exactly; a tenth of a level is far above that and far below a breach.
SLACK = 0.1 / 255


class GradientWatch:
    """Notes the images whose input gradient was zero at the first step, or not finite at any: a masked gradient.

    Later zeros say nothing: they are what an attack that has long succeeded ends in.
    """

    def __init__(self, count: int) -> None:
        self.blind = torch.zeros(count, dtype=torch.bool)
        self._steps = 0

    def __call__(self, images: Tensor) -> Tensor:
        """``images`` themselves; their gradient will be seen."""
        if images.requires_grad:
            images.register_hook(self._see)  # type: ignore[no-untyped-call]
        return images

    def _see(self, gradient: Tensor) -> None:
        flat = gradient.detach().flatten(1)
        useless = ~flat.isfinite().all(dim=1)
        if self._steps == 0:
            useless |= (flat == 0).all(dim=1)
        self.blind |= useless.cpu()
        self._steps += 1


@dataclass(frozen=True)
class Attack:
    """PGD against ``logits(generator)``, a differentiable victim whose randomness comes from that generator.

    ``victim`` and ``identity`` (whose weights, which randomness) say what is attacked, for names and fingerprints.
    """

    name: str
    victim: str
    identity: str
    eps: int
    iterations: int
    logits: Callable[[torch.Generator], Objective]
    targeted: bool = False

    @property
    def scenario(self) -> Scenario:
        """What it does to the photos."""
        return Scenario(self.name, self.eps)

    @property
    def title(self) -> str:
        """For progress and warnings."""
        return f"{self.scenario.title} on {self.victim}"

    @property
    def label(self) -> str:
        """For file names."""
        return f"{self.name} eps{self.eps} {self.victim}"

    def fingerprint(self, photos_digest: str, conditions: Conditions) -> Fingerprint:
        """All that the adversaries depend on."""
        return {
            "attack": self.name,
            "victim": self.identity,
            "eps": self.eps,
            "iterations": self.iterations,
            "targeted": self.targeted,
            "photos": photos_digest,
            "seed": conditions.seed,
            "batch": conditions.batch,
            "precision": conditions.attack_precision,
            "device": conditions.device.type,
            "torch": str(torch.__version__),
        }


def craft(attack: Attack, photos: Photos, conditions: Conditions, progress: Progress) -> Tensors:
    """Attack every photo: ``pixels`` uint8 like the photos', ``blind`` and ``broken`` (N,) bool.

    ``broken`` marks an adversary that left its budget or [0,1], or is not finite, before or after the rounding.
    """
    pixels, blind, broken = [], [], []
    with progress.bar(len(photos)) as bar:
        for start in range(0, len(photos), conditions.batch):
            part = slice(start, start + conditions.batch)
            images = conditions.floats(photos.pixels[part])
            labels = photos.labels[part].to(conditions.device)
            watch = GradientWatch(len(images))
            purpose = ("attack", attack.name, attack.victim, attack.eps, start)
            generator = seeded(derive_seed(conditions.seed, *purpose))
            found = _pgd(attack, watch, conditions, generator)(images, labels, generator)
            outside = outside_budget(found, images, attack.eps)
            rounded = to_bytes(found).cpu()
            pixels.append(rounded)
            blind.append(watch.blind)
            broken.append(outside.cpu() | outside_budget(to_float(rounded), images.cpu(), attack.eps))
            bar.update(len(images))
    return {"pixels": torch.cat(pixels), "blind": torch.cat(blind), "broken": torch.cat(broken)}


def _pgd(attack: Attack, watch: GradientWatch, conditions: Conditions, generator: torch.Generator) -> PGD:
    victim = attack.logits(generator)

    def logits(images: Tensor) -> Tensor:
        with conditions.attack_autocast():
            return victim(watch(images))

    return PGD(logits, eps=attack.eps, targeted=attack.targeted, iterations=attack.iterations)


def outside_budget(adversaries: Tensor, images: Tensor, eps: float) -> Tensor:
    """Which adversaries (N,) leave the eps/255 ball of their image or [0,1], or are not finite."""
    distance = (adversaries - images).abs().flatten(1).amax(dim=1)
    low, high = adversaries.flatten(1).aminmax(dim=1)
    return ~((distance <= eps / 255 + SLACK) & (low >= 0) & (high <= 1))


def doubts(attack: Attack, crafted: Tensors) -> list[str]:
    """Reasons not to trust an attack's result; more than 2 % of the photos, and than two, with a useless gradient."""
    count = len(crafted["blind"])
    blind, broken = int(crafted["blind"].sum()), int(crafted["broken"].sum())
    found = []
    if broken:
        found.append(f"{attack.title}: {broken} of {count} adversaries left the budget or are not finite")
    if blind > max(2, 0.02 * count):
        found.append(
            f"{attack.title}: the gradient was zero or not finite for {blind} of {count} photos; "
            "the attack is weaker than it looks"
        )
    return found
