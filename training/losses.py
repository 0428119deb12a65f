"""The purifier's losses: feature distance, pixel distance, relativistic average adversarial; and prediction shift.

``mean`` turns a mean over this worker's images into one over all workers' (``Workers.mean``); alone, they are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.purifier_recipe import PixelNorm

Mean = Callable[[Tensor], Tensor]


def own(value: Tensor) -> Tensor:
    """A single worker's mean over all workers."""
    return value


def feature_distance(purified: Tensor, clean: Tensor, *, relative: bool = True, mean: Mean = own) -> Tensor:
    """Mean absolute difference of features; ``relative``: over the clean ones' mean magnitude, so without a unit."""
    distance = (purified - clean).abs().mean()
    return distance / mean(clean.abs().mean()).clamp(min=1e-6) if relative else distance


def feature_distances(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean squared difference of features (N, ...), an image each: (N,). What SSP raises."""
    return (purified - clean).float().square().flatten(1).mean(1)


def pixel_distance(purified: Tensor, clean: Tensor, norm: PixelNorm = "absolute", *, mean: Mean = own) -> Tensor:
    """Mean absolute, mean squared or root mean squared difference of pixels in [0,1]."""
    if norm == "absolute":
        return (purified - clean).abs().mean()
    squared = (purified - clean).square().mean()
    # A root's slope at zero is infinite.
    return squared if norm == "squared" else mean(squared).clamp(min=1e-12).sqrt()


def prediction_shift(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence (nats) of the answer to purified images from that to the clean ones.

    The stability objective of Salman et al., "Denoised smoothing", 2020. Logits (N, classes); needs no labels.
    """
    return F.kl_div(purified.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")


def prediction_shifts(purified: Tensor, clean: Tensor) -> Tensor:
    """The same divergence of each image: (N,)."""
    return F.kl_div(purified.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none").sum(1)


def relativistic_average(winners: Tensor, losers: Tensor, *, mean: Mean = own) -> Tensor:
    """Cost of ``winners`` not looking more real than the average of ``losers``, and the reverse.

    Jolicoeur-Martineau, "The relativistic discriminator", 2018. The critic minimises it with clean images as
    winners, the purifier with its outputs as winners. Scores are logits of any shape.
    """
    ahead = winners - mean(losers.mean())
    behind = losers - mean(winners.mean())
    return 0.5 * (
        F.binary_cross_entropy_with_logits(ahead, torch.ones_like(ahead))
        + F.binary_cross_entropy_with_logits(behind, torch.zeros_like(behind))
    )
