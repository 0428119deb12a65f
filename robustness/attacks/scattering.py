"""FSA, feature scattering: the unsupervised attack that the NRP paper compares SSP with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.attacks.ascent import ascend, random_start
from robustness.attacks.attack import Attack, Knowledge, Network, maps_of, required
from robustness.attacks.title import titled


def transport_plan(cost: Tensor, regularisation: float, rounds: int) -> Tensor:
    """The entropic optimal-transport plan (N, M) between two uniform distributions, sum 1, by Sinkhorn's iteration.

    ``cost`` (N, M). In the log domain, so a small ``regularisation`` cannot underflow. The last of the ``rounds``
    fits the columns, each of which then carries 1/M; the rows approach 1/N as the rounds go on.
    """
    source, target = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    log_source, log_target = -math.log(cost.shape[0]), -math.log(cost.shape[1])
    for _ in range(rounds):
        source = regularisation * (log_source - ((target - cost) / regularisation).logsumexp(1))
        target = regularisation * (log_target - ((source.unsqueeze(1) - cost) / regularisation).logsumexp(0))
    return ((source.unsqueeze(1) + target - cost) / regularisation).exp()


def cosine_costs(clean: Tensor, moved: Tensor) -> Tensor:
    """1 - cosine similarity (N, M), in [0,2], of the logits (N, K) and (M, K)."""
    return 1 - F.normalize(clean.float(), dim=1) @ F.normalize(moved.float(), dim=1).T


@dataclass(frozen=True)
class FSA(Attack):
    """Feature scattering (Zhang & Wang, NeurIPS 2019), L-infinity: drive a batch's logits away from the clean ones.

    No label: it maximises the optimal-transport distance between the clean and the perturbed logits of the *batch*,
    under a cosine cost and an entropic ``regularisation`` (0.01 and 100 ``rounds`` in the authors' code), so an
    image's adversary depends on its neighbours. The plan is held fixed while the cost is differentiated, which is
    the exact gradient of the regularised distance. An image's share of the distance, the value that the ascent
    raises, is what the plan carries to it; the shares add up to the distance.
    ``space`` "features", for networks without a head, puts the feature map, averaged over its places as a head would,
    where the logits are; of several networks the vectors of unit length are joined.
    Images (N, 3, H, W) in [0,1] to the same, from a uniform start because the gradient at the clean image is about
    zero; ``eps`` and ``step`` in /255, ``step`` None meaning eps/10.
    """

    eps: float
    step: float | None = None
    iterations: int = 10
    regularisation: float = 0.01
    rounds: int = 100
    space: Literal["logits", "features"] = "logits"

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("FSA", self)

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``; the clean logits are computed once."""
        logits = self._space(knowledge)
        with torch.no_grad():
            clean = logits(images)

        def shares(candidates: Tensor) -> Tensor:
            costs = cosine_costs(clean, logits(candidates))
            plan = transport_plan(costs.detach(), self.regularisation, self.rounds)
            return (plan * costs).sum(0)

        begin = random_start(images, self.eps, "uniform", generator)
        step = self.eps / 10 if self.step is None else self.step
        return ascend(images, shares, begin, eps=self.eps, step=step, iterations=self.iterations)

    def _space(self, knowledge: Knowledge) -> Network:
        """What is scattered: images to (N, K)."""
        if self.space == "logits":
            return required(knowledge.logits, "logits", self.name)
        features = required(knowledge.features, "a feature network", self.name)
        return lambda images: torch.cat([F.normalize(_pooled(each), dim=1) for each in maps_of(features, images)], 1)


def _pooled(maps: Tensor) -> Tensor:
    """A feature map (N, C, ...) averaged over its places, (N, C)."""
    return maps.flatten(2).mean(2) if maps.ndim > 2 else maps
