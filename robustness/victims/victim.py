"""What a victim is: a frozen model of one task, as something to attack and something to judge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustness.attacks.attack import Knowledge
from robustness.errors import VictimError
from robustness.examples import Truths
from robustness.scores import Score

Answers = dict[str, Tensor]


@dataclass(frozen=True)
class Victim(ABC):
    """A model, frozen, on its device. ``identity`` (a sha256, or official weights' name) is what results depend on.

    Attack and judgement see ``versions`` (N, D, 3, H, W) in [0,1]: the D draws that a randomised defence makes of
    each image, one draw elsewhere. How they become one answer is the task's own affair.
    """

    name: str
    identity: str
    module: nn.Module = field(repr=False)

    @abstractmethod
    def loss(self, versions: Tensor, truths: Truths) -> Tensor:
        """(N,) float32, what an untargeted attacker raises; differentiable."""

    @abstractmethod
    def answer(self, versions: Tensor) -> Answers:
        """What it says of each image: tensors whose first dimension is N, on the CPU, for the cache and ``score``."""

    @abstractmethod
    def score(self, answers: Answers, truths: Truths) -> Score:
        """How good these answers are."""

    def wrong(self, truths: Truths, generator: torch.Generator) -> Truths:
        """Random wrong truths for a targeted attack. Raises VictimError for a task that has none."""
        del truths, generator
        raise VictimError(f"{self.name}: targeted attacks are defined for classifiers only")

    def knowledge(self, truths: Truths, generator: torch.Generator) -> Knowledge:
        """What someone who holds this model knows of a batch with these truths (on the model's device)."""
        del generator
        return Knowledge(loss=lambda images: self.loss(images.unsqueeze(1), truths))


def on(device: torch.device, truths: Truths) -> Truths:
    """The truths on a device."""
    return {key: value.to(device) for key, value in truths.items()}
