"""Attackers who know the purifier: what it is really worth, and whether it only hides its gradients.

They differentiate the victim behind the defence, with fresh noise at each step (expectation over transformation,
Athalye et al., "Synthesizing robust adversarial examples", 2018), averaged over ``eot`` draws a step, in one of
three ways:

* BPDA (Athalye et al., "Obfuscated gradients", 2018): forward through the defence, backward as if it were the
  identity;
* BPDA-substitute: backward through another, differentiable defence in its place;
* full gradient: backward through the defence itself.

The attacker knows the mode, never the seeds that the defence is then judged with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from robustness.adversaries import Threat
from robustness.attacks.attack import Attack, Knowledge
from robustness.defences import Defence, Purification
from robustness.errors import AttackError
from robustness.examples import Truths
from robustness.victims.classification import Classifier
from robustness.victims.victim import Victim

Method = Literal["BPDA", "BPDA-substitute", "full-gradient"]


def straight_through(values: Tensor, gradient_of: Tensor) -> Tensor:
    """The values of ``values`` with the gradient of ``gradient_of``; shapes must broadcast.

    ``gradient_of - gradient_of`` is exactly zero, so nothing is rounded.
    """
    return values.detach() + (gradient_of - gradient_of.detach())


@dataclass(frozen=True)
class Passage:
    """A defence as an attacker passes it: its draws of a batch, differentiable as ``method`` says."""

    defence: Defence
    method: Method
    substitute: Defence | None = None

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Defended versions (N, D, C, H, W) of images (N, C, H, W) in [0,1], of noise drawn from ``generator``."""
        seeds = torch.randint(2**62, (len(images),), generator=generator).tolist()
        if self.method == "full-gradient":
            return self.defence.draws(images, seeds)
        with torch.no_grad():
            defended = self.defence.draws(images.detach(), seeds)
        if self.substitute is None:
            return straight_through(defended, images.unsqueeze(1))
        return straight_through(defended, self.substitute(images).unsqueeze(1))


@dataclass(frozen=True)
class AwareKnowledge:
    """What someone who knows ``victim`` and the ``passage`` to it knows of a batch.

    ``same_noise``: every call of a batch draws the noise that its first call drew, so that what differs between two
    candidates is not luck.
    """

    victim: Victim
    passage: Passage
    same_noise: bool = False

    def __call__(self, truths: Truths, generator: torch.Generator) -> Knowledge:
        """The victim's own losses and logits, each call through draws of the defence."""
        victim = self.victim

        noise = generator.get_state()

        def versions(images: Tensor) -> Tensor:
            if self.same_noise:
                generator.set_state(noise)
            return self.passage(images, generator)

        known = Knowledge(loss=lambda images: victim.loss(versions(images), truths))
        if not isinstance(victim, Classifier):
            return known
        aim = victim.wrong(truths, torch.Generator().manual_seed(generator.initial_seed() ^ 1))
        return replace(
            known,
            targeted_loss=lambda images: -victim.loss(versions(images), aim),
            logits=lambda images: victim.log_probabilities(versions(images)),
            labels=truths["labels"],
        )


def aware(
    attack: Attack,
    defence: Defence,
    victim: Victim,
    method: Method,
    *,
    eot: int = 1,
    substitute: Defence | None = None,
    same_noise: bool = False,
) -> Threat:
    """``attack`` on ``victim`` through ``defence``, whose noisy modes are drawn ``eot`` times a step.

    ``same_noise`` draws once for all steps: for searches that compare candidates, not for gradients.
    Raises AttackError where the method asks for a gradient that is not there.
    """
    known = _drawn(defence, eot)
    if method == "full-gradient" and not known.differentiable:
        raise AttackError(f"{known.name} has no gradient of its own; attack it by BPDA")
    if (method == "BPDA-substitute") != (substitute is not None):
        raise AttackError("BPDA-substitute, and it alone, needs a substitute to differentiate")
    if substitute is not None and not substitute.differentiable:
        raise AttackError(f"{substitute.name} cannot stand in for a gradient; name a differentiable substitute")
    draws = f" EOT-{known.draw_count}" if known.draw_count > 1 else ""
    titled = Through(attack, f"{method} {attack.name}{draws}")
    passage = Passage(known, method, substitute)
    identity = f"{victim.identity} behind {passage!r}{', the same noise at each step' if same_noise else ''}"
    return Threat(titled, victim.name, identity, AwareKnowledge(victim, passage, same_noise), "aware")


def _drawn(defence: Defence, eot: int) -> Defence:
    if isinstance(defence, Purification):
        return defence.with_draws(1 if defence.mode.static else eot)
    return defence


@dataclass(frozen=True)
class Through(Attack):
    """The same attack under a name that says how the defence was passed."""

    attack: Attack
    title: str

    @property
    def eps(self) -> float:  # type: ignore[override]
        """Of the attack itself."""
        return self.attack.eps

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.title

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """The attack itself."""
        return self.attack(images, knowledge, generator)
