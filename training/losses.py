"""The purifier's losses: feature distance, pixel distance, relativistic average adversarial; and prediction shift."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_distance(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of features, over the clean features' mean magnitude so that it has no unit."""
    return (purified - clean).abs().mean() / clean.abs().mean().clamp(min=1e-6)


def pixel_distance(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of pixels in [0,1]."""
    return (purified - clean).abs().mean()


def prediction_shift(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence (nats) of the answer to purified images from that to the clean ones.

    The stability objective of Salman et al., "Denoised smoothing", 2020. Logits (N, classes); needs no labels.
    """
    return F.kl_div(purified.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")


def relativistic_average(winners: Tensor, losers: Tensor) -> Tensor:
    """Cost of ``winners`` not looking more real than the average of ``losers``, and the reverse.

    Jolicoeur-Martineau, "The relativistic discriminator", 2018. The critic minimises it with clean images as
    winners, the purifier with its outputs as winners. Scores are logits of any shape.
    """
    ahead = winners - losers.mean()
    behind = losers - winners.mean()
    return 0.5 * (
        F.binary_cross_entropy_with_logits(ahead, torch.ones_like(ahead))
        + F.binary_cross_entropy_with_logits(behind, torch.zeros_like(behind))
    )
