"""Attackers who know the suspicion report: they fool the model and keep what gives them away small.

They differentiate through the purifier and hold what a card holds, so they know what clean images score (Carlini &
Wagner, "Adversarial Examples Are Not Easily Detected", 2017: a detector's own score in the attacker's loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model_store.suspicion import jensen_shannon_bits
from robustness.adaptive import Passage, Through
from robustness.adversaries import Threat
from robustness.attacks.attack import Attack, Knowledge
from robustness.defences import Purification
from robustness.examples import Truths
from robustness.victims.classification import Classifier

Aim = Literal["both answers", "original"]

# A cross-entropy at which the truth has about an eighth: enough, whatever more can go into hiding.
ENOUGH = 2.0
TINY = 1e-12


@dataclass(frozen=True)
class Hiding:
    """What an attacker minimises beside fooling: ``weight`` times each signal over what few clean images reach.

    ``residual_rms`` in levels of 255 and ``prediction_shift`` in bits are those marks. ``aim``: fool the classifier
    about the image as it came alone, or about the purified one too.
    """

    weight: float
    aim: Aim
    residual_rms: float
    prediction_shift: float

    @property
    def words(self) -> str:
        """For an attack's name."""
        return f"hiding x{self.weight:g}, {self.aim}"


@dataclass(frozen=True)
class EvadingKnowledge:
    """The loss of someone who knows victim, purifier and report, with fresh noise at each step."""

    victim: Classifier
    passage: Passage
    hiding: Hiding

    def __call__(self, truths: Truths, generator: torch.Generator) -> Knowledge:
        """One value an image: what fools, up to ``ENOUGH``, less what is seen."""

        def loss(images: Tensor) -> Tensor:
            versions = self.passage(images, generator)
            original = images.unsqueeze(1)
            fooled = self.victim.loss(original, truths).clamp(max=ENOUGH)
            if self.hiding.aim == "both answers":
                fooled = fooled + self.victim.loss(versions, truths).clamp(max=ENOUGH)
            return fooled - self.hiding.weight * self._seen(original, versions)

        return Knowledge(loss=loss)

    def _seen(self, original: Tensor, versions: Tensor) -> Tensor:
        """Both signals (N,), each over its mark."""
        before, after = (self.victim.log_probabilities(images).exp() for images in (original, versions))
        change = versions.mean(dim=1) - original.squeeze(1)
        residual = 255 * (change.square().flatten(1).mean(dim=1) + TINY).sqrt()
        shift = jensen_shannon_bits(before, after) / max(self.hiding.prediction_shift, TINY)
        return residual / max(self.hiding.residual_rms, TINY) + shift


def evading(attack: Attack, purification: Purification, victim: Classifier, hiding: Hiding) -> Threat:
    """``attack`` by someone who knows the report, through one draw of ``purification`` a step, exact gradients."""
    passage = Passage(purification.with_draws(1), "full-gradient")
    titled = Through(attack, f"{attack.name} {hiding.words}")
    identity = f"{victim.identity} behind {passage!r}, {hiding!r}"
    return Threat(titled, victim.name, identity, EvadingKnowledge(victim, passage, hiding), "aware")
