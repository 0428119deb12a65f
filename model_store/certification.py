"""Certification by denoised smoothing: a radius within which no perturbation changes the answer about one image.

The smoothed classifier answers what the base classifier answers most often under Gaussian noise (Cohen et al., ICML
2019). With a purifier before an ordinary classifier, that base is a denoised one (Salman et al., NeurIPS 2020), and
nothing has to be trained on noise but the purifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from scipy.special import bdtr, betaincinv
from torch import Tensor

from model_store.errors import InvalidSmoothingError

Classify = Callable[[Tensor], Tensor]

ABSTAIN = -1


@dataclass(frozen=True)
class Smoothing:
    """Noise of standard deviation ``sigma`` on images in [0,1], never clipped: a clipped one certifies nothing.

    ``n0`` noisy copies choose the class, ``n`` others bound its probability; a certificate is wrong with probability
    ``alpha`` at the most. ``batch`` copies are classified at once, which changes no answer.

    Raises InvalidSmoothingError.
    """

    sigma: float
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    batch: int = 64

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InvalidSmoothingError(
                f"noise of std {self.sigma:g} smooths nothing; give a sigma above 0, such as 0.25"
            )
        if not 0 < self.alpha < 1:
            raise InvalidSmoothingError(
                f"an alpha of {self.alpha:g} is no probability; give one in (0,1), such as 0.001"
            )
        if min(self.n0, self.n, self.batch) < 1:
            raise InvalidSmoothingError(
                "certification needs at least one noisy copy to choose and one to bound; raise n0, n"
            )


@dataclass(frozen=True)
class Certificate:
    """``label`` holds for every image less than ``radius`` away in the L2 norm, or is ``ABSTAIN``, at radius 0.

    ``counts`` (classes,) are the answers to the ``n`` noisy copies.
    """

    label: int
    radius: float
    counts: Tensor

    @property
    def abstained(self) -> bool:
        """Whether there is no label."""
        return self.label == ABSTAIN


def certify(
    classify_noisy: Classify, image: Tensor, smoothing: Smoothing, classes: int, generator: torch.Generator
) -> Certificate:
    """Cohen et al.'s CERTIFY of one image (C, H, W) in [0,1].

    ``classify_noisy`` takes noisy images (B, C, H, W), outside [0,1] too, and gives labels (B,) below ``classes``,
    each of which must depend on its own image alone. All noise comes from ``generator``.
    """
    chosen = sample_counts(classify_noisy, image, smoothing, smoothing.n0, classes, generator)
    counts = sample_counts(classify_noisy, image, smoothing, smoothing.n, classes, generator)
    return certificate(chosen, counts, smoothing.sigma, smoothing.alpha)


def predict(
    classify_noisy: Classify, image: Tensor, smoothing: Smoothing, classes: int, generator: torch.Generator
) -> int:
    """Cohen et al.'s PREDICT of one image, from ``smoothing.n`` noisy copies: the label, or ``ABSTAIN``."""
    counts = sample_counts(classify_noisy, image, smoothing, smoothing.n, classes, generator)
    return prediction(counts, smoothing.alpha)


def sample_counts(
    classify_noisy: Classify,
    image: Tensor,
    smoothing: Smoothing,
    count: int,
    classes: int,
    generator: torch.Generator,
) -> Tensor:
    """How often each class (classes,) int64 was the answer to ``count`` noisy copies of ``image``.

    The noise is drawn where the generator lives, copy by copy, so the batch does not change it.
    """
    counts = torch.zeros(classes, dtype=torch.int64)
    for start in range(0, count, smoothing.batch):
        drawn = [
            torch.randn(image.shape, generator=generator, device=generator.device)
            for _ in range(min(smoothing.batch, count - start))
        ]
        noise = torch.stack(drawn).to(image.device) * smoothing.sigma
        labels = classify_noisy(image.unsqueeze(0) + noise)
        counts += torch.bincount(labels.cpu(), minlength=classes)
    return counts


def certificate(chosen: Tensor, counts: Tensor, sigma: float, alpha: float) -> Certificate:
    """The certificate that the answers amount to: of ``chosen`` (classes,) the class, of ``counts`` its bound."""
    label = int(chosen.argmax())
    low = lower_bound(int(counts[label]), int(counts.sum()), alpha)
    if low <= 0.5:
        return Certificate(ABSTAIN, 0.0, counts)
    return Certificate(label, sigma * NormalDist().inv_cdf(low), counts)


def prediction(counts: Tensor, alpha: float) -> int:
    """The most frequent class, or ``ABSTAIN`` where an even chance against the second explains it too.

    By the two-sided exact binomial test at level ``alpha``.
    """
    first, second = torch.sort(counts, descending=True, stable=True).values[:2].tolist()
    chance = min(1.0, 2 * float(bdtr(second, first + second, 0.5)))
    return int(counts.argmax()) if chance <= alpha else ABSTAIN


def lower_bound(successes: int, count: int, alpha: float) -> float:
    """The exact one-sided lower bound of a probability at confidence 1 - ``alpha`` (Clopper and Pearson, 1934).

    The ``alpha`` quantile of Beta(successes, count - successes + 1); 0 without a success.
    """
    if successes == 0:
        return 0.0
    return float(betaincinv(successes, count - successes + 1, alpha))
