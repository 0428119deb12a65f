from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from model_store.certification import (
    ABSTAIN,
    Smoothing,
    certificate,
    certify,
    lower_bound,
    predict,
    prediction,
    sample_counts,
)
from model_store.errors import InvalidSmoothingError

SIGMA = 0.25
IMAGE = torch.full((3, 4, 4), 0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def half_space(distance: float) -> tuple[Tensor, float]:
    """A unit normal, and the threshold that puts ``IMAGE`` at ``distance`` inside class 1."""
    normal = torch.randn(IMAGE.shape, generator=seeded(5), dtype=torch.float64)
    normal = (normal / normal.norm()).float()
    return normal, float((normal * IMAGE).sum()) - distance


def linear(distance: float) -> tuple[Tensor, float, object]:
    normal, threshold = half_space(distance)
    return normal, threshold, lambda noisy: ((noisy * normal).flatten(1).sum(1) > threshold).long()


def test_the_exact_bound_is_known_where_all_succeed() -> None:
    # Of n successes in n trials, the bound solves p^n = alpha.
    assert lower_bound(100, 100, 0.001) == pytest.approx(0.001 ** (1 / 100), abs=1e-12)
    assert lower_bound(0, 100, 0.001) == 0.0
    assert lower_bound(1, 1, 0.05) == pytest.approx(0.05)
    # Clopper and Pearson's own kind of case: 8 of 10 at 95 % one-sided.
    assert lower_bound(8, 10, 0.05) == pytest.approx(0.4931, abs=1e-4)


def test_the_bound_solves_the_binomial_tail() -> None:
    successes, count, alpha = 37, 50, 0.01
    p = lower_bound(successes, count, alpha)
    tail = sum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(successes, count + 1))
    assert tail == pytest.approx(alpha, rel=1e-9)


def test_a_certificate_by_hand() -> None:
    found = certificate(torch.tensor([0, 9, 1]), torch.tensor([3, 96, 1]), SIGMA, 0.001)
    assert found.label == 1
    assert found.radius == pytest.approx(SIGMA * NormalDist().inv_cdf(lower_bound(96, 100, 0.001)))
    assert found.counts.tolist() == [3, 96, 1]


def test_the_class_comes_from_the_first_answers_alone() -> None:
    found = certificate(torch.tensor([9, 1]), torch.tensor([3, 97]), SIGMA, 0.001)
    assert (found.label, found.radius) == (ABSTAIN, 0.0)


def test_an_even_vote_has_no_certificate_and_no_prediction() -> None:
    assert certificate(torch.tensor([5, 5]), torch.tensor([52, 48]), SIGMA, 0.001).label == ABSTAIN
    assert prediction(torch.tensor([52, 48]), 0.001) == ABSTAIN
    assert prediction(torch.tensor([0, 90, 10]), 0.001) == 1
    # 2 x 0.5^10 = 0.00195: ten of ten are enough at 1 %, not at 0.1 %.
    assert [prediction(torch.tensor([10, 0]), alpha) for alpha in (0.01, 0.001)] == [0, ABSTAIN]


@pytest.mark.parametrize("distance", [0.1, 0.3, 0.5])
def test_the_radius_of_a_linear_classifier_is_its_distance(distance: float) -> None:
    """The smoothed half space is the half space, so the true radius is the distance; the bound must near it from below.

    Of 20 000 copies the bound is, 999 times of 1000, below the truth, and here by less than a tenth.
    """
    _, _, classify = linear(distance)
    found = certify(classify, IMAGE, Smoothing(SIGMA, 50, 20_000, 0.001, 5000), 2, seeded(1))  # type: ignore[arg-type]
    assert found.label == 1
    assert 0.9 * distance < found.radius < distance


def test_no_perturbation_inside_the_radius_turns_the_smoothed_answer() -> None:
    normal, _, classify = linear(0.3)
    smoothing = Smoothing(SIGMA, 50, 2000, 0.001, 1000)
    radius = certify(classify, IMAGE, smoothing, 2, seeded(1)).radius  # type: ignore[arg-type]
    inside, beyond = IMAGE - 0.7 * radius * normal, IMAGE - 0.6 * normal
    assert predict(classify, inside, smoothing, 2, seeded(2)) == 1  # type: ignore[arg-type]
    assert predict(classify, beyond, smoothing, 2, seeded(2)) == 0  # type: ignore[arg-type]


def test_an_image_on_the_boundary_is_abstained_from() -> None:
    _, _, classify = linear(0.0)
    smoothing = Smoothing(SIGMA, 50, 500, 0.001, 500)
    assert certify(classify, IMAGE, smoothing, 2, seeded(1)).label == ABSTAIN  # type: ignore[arg-type]
    assert predict(classify, IMAGE, smoothing, 2, seeded(1)) == ABSTAIN  # type: ignore[arg-type]


def test_more_copies_certify_more() -> None:
    _, _, classify = linear(0.6)
    radii = [
        certify(classify, IMAGE, Smoothing(SIGMA, 20, n, 0.001, 1000), 2, seeded(1)).radius  # type: ignore[arg-type]
        for n in (50, 200, 2000)
    ]
    assert radii == sorted(radii)
    assert radii[0] < radii[-1] < 0.6


def test_the_batch_changes_no_answer_and_noise_is_not_clipped() -> None:
    seen: list[Tensor] = []

    def classify(noisy: Tensor) -> Tensor:
        seen.append(noisy)
        return (noisy.flatten(1).mean(1) > 0.5).long()

    counts = [
        sample_counts(classify, IMAGE, Smoothing(1.0, batch=batch), 30, 3, seeded(4)).tolist() for batch in (1, 7, 64)
    ]
    assert counts[0] == counts[1] == counts[2]
    assert sum(counts[0]) == 30
    assert counts[0][2] == 0
    assert seen[-1].min() < -0.5
    assert seen[-1].max() > 1.5
    assert float((seen[-1] - IMAGE).std()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sigma": 0.0}, "a sigma above 0"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"n": 0}, "raise n0, n"),
    ],
)
def test_what_certifies_nothing_is_refused(settings: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidSmoothingError, match=says):
        Smoothing(**{"sigma": 0.25, **settings})  # type: ignore[arg-type]
