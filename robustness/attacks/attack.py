"""What an attack is, and what an attacker knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from robustness.errors import AttackError

Network = Callable[[Tensor], Tensor]
Features = Callable[[Tensor], "Tensor | list[Tensor]"]
T = TypeVar("T")


@dataclass(frozen=True)
class Knowledge:
    """What an attacker may use for one batch of N images; None where the threat gives it no such thing.

    All take images (N, 3, H, W) float32 in [0,1] and are differentiable: ``loss`` and ``targeted_loss`` give one
    value an image, which the attacker raises (a targeted loss is already negated: raising it nears the wrong answer);
    ``logits`` (N, classes); ``features`` one feature map, or a list of one a network where several are attacked at
    once; ``activations`` those of several layers. ``labels`` (N,) are the true ones. Any of them may draw from the
    generator that the attack is given, so two calls may differ.
    """

    loss: Network | None = None
    targeted_loss: Network | None = None
    logits: Network | None = None
    features: Features | None = None
    activations: Callable[[Tensor], list[Tensor]] | None = None
    labels: Tensor | None = None


def maps_of(features: Features, images: Tensor) -> list[Tensor]:
    """The feature maps of ``images``, one a network, each (N, ...) float32."""
    found = features(images)
    return [found.float()] if isinstance(found, Tensor) else [each.float() for each in found]


def required(thing: T | None, what: str, attack: str) -> T:
    """``thing``; raises AttackError where the attacker lacks it."""
    if thing is None:
        raise AttackError(f"{attack} needs {what}, which this victim does not give; choose another attack or victim")
    return thing


class Attack(ABC):
    """One L-infinity attack: images in [0,1] to images in [0,1] at most ``eps``/255 away; frozen."""

    eps: float

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it; two attacks of one name and eps do the same."""

    @abstractmethod
    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images`` (N, 3, H, W), every draw from ``generator``. Raises AttackError."""
