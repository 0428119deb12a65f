"""SSP, the self-supervised perturbation that the purifier is trained against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.attacks.ascent import Start, ascend, random_start
from robustness.attacks.attack import Attack, Knowledge, maps_of, required
from robustness.attacks.title import titled
from robustness.errors import AttackError

DARKEST = 1e-12  # the mean square of features that are all zero, as those of a black image may be


@dataclass(frozen=True)
class SSP(Attack):
    """Self-supervised perturbation (Naseer et al., CVPR 2020): maximise the distance in a frozen feature space.

    No label and no task: the mean squared difference between the features of the adversary and of the clean image
    grows, each network's divided by the mean square of its clean features. For one network that changes no step, since
    only signs count; of several, each then weighs alike, whatever the scale of its activations. The paper uses VGG-16
    conv3-3 after its ReLU and at most 100 iterations. ``corner`` is what the authors' code amounts to: it starts from
    unit Gaussian noise, of which the first projection puts some 96 % of the values on the surface of the ball. Raises
    AttackError for a clean start, where the gradient is zero.
    """

    eps: float = 16.0
    step: float = 2.55
    iterations: int = 100
    start: Start = "corner"

    def __post_init__(self) -> None:
        if self.start == "clean":
            raise AttackError("SSP cannot start from the clean image: the gradient of its distance is zero there")

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("SSP", self)

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``; the clean features are computed once."""
        features = required(knowledge.features, "a feature network", self.name)
        with torch.no_grad():
            clean = maps_of(features, images)
            sizes = [_mean_square(each).clamp_min(DARKEST) for each in clean]

        def distance(candidates: Tensor) -> Tensor:
            maps = maps_of(features, candidates)
            parts = [_mean_square(m - c) / size for m, c, size in zip(maps, clean, sizes, strict=True)]
            return torch.stack(parts).sum(0)

        begin = random_start(images, self.eps, self.start, generator)
        return ascend(images, distance, begin, eps=self.eps, step=self.step, iterations=self.iterations)


def _mean_square(maps: Tensor) -> Tensor:
    return maps.square().flatten(1).mean(1)
