from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.attack import Knowledge
from robustness.attacks.iterative import DIM, DIMTI, IFGSM, MIFGSM, Momentum, diversify, gaussian_kernel, smooth
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]
Linear = Callable[[Tensor], Callable[[Tensor], Tensor]]
Known = Callable[[nn.Module, Tensor], Knowledge]


def changing(*gradients: list[float] | list[list[float]]) -> Callable[[Tensor], Tensor]:
    """A loss whose gradient is the next of these at each call: the same for every image, or one an image."""
    rest = iter(gradients)
    return lambda candidates: (candidates.flatten(1) * torch.tensor(next(rest))).sum(1)


def offset_of(found: Tensor, images: Tensor) -> list[float]:
    return [round(value, 3) + 0.0 for value in ((found - images) * 255).flatten().tolist()]


def test_ifgsm_takes_ten_tenths_of_its_budget(linear: Linear, seeded: Seeded) -> None:
    images = torch.full((1, 1, 1, 3), 0.5)
    knowledge = Knowledge(loss=linear(torch.tensor([2.0, -3.0, 0.0])))
    assert offset_of(IFGSM(20)(images, knowledge, seeded()), images) == [20, -20, 0]
    assert offset_of(IFGSM(20, iterations=3)(images, knowledge, seeded()), images) == [6, -6, 0]
    assert offset_of(IFGSM(20, step=7)(images, knowledge, seeded()), images) == [20, -20, 0]


def test_ifgsm_starts_at_the_clean_image_and_follows_each_new_gradient(seeded: Seeded) -> None:
    images = torch.full((1, 1, 1, 2), 0.5)
    loss = changing([1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0])
    assert offset_of(IFGSM(20, iterations=3)(images, Knowledge(loss=loss), seeded()), images) == [-2, 6]


@pytest.mark.parametrize(
    ("decay", "reached"),
    [
        (1.0, [4.0, 0.0]),  # [1.5, -0.5], then [1.5, -0.5] + [-0.5, 1.5] = [1, 1]
        (0.0, [0.0, 0.0]),  # [1.5, -0.5], then [-0.5, 1.5]
        (0.25, [0.0, 0.0]),  # [1.5, -0.5], then [-0.125, 1.375]
    ],
)
def test_momentum_adds_gradients_that_are_normalised_first(decay: float, reached: list[float], seeded: Seeded) -> None:
    images = torch.full((1, 1, 1, 2), 0.5)
    loss = changing([30.0, -10.0], [-1.0, 3.0])  # without normalising, the first would drown the second
    found = MIFGSM(20, iterations=2, decay=decay)(images, Knowledge(loss=loss), seeded())
    assert offset_of(found, images) == reached


def test_momentum_normalises_each_image_by_itself_and_starts_afresh_each_call(seeded: Seeded) -> None:
    images = torch.full((2, 1, 1, 2), 0.5)
    attack = MIFGSM(20, iterations=2)
    for _ in range(2):
        loss = changing([[30.0, -10.0], [3e6, -1e6]], [[-1.0, 3.0], [-1.0, 3.0]])
        assert offset_of(attack(images, Knowledge(loss=loss), seeded()), images) == [4, 0, 4, 0]


def test_a_gradient_of_zeros_moves_nothing() -> None:
    direction = Momentum(1.0)
    assert (direction(torch.zeros(1, 3, 2, 2)) == 0).all()
    assert (direction(torch.ones(1, 3, 2, 2)) == 1).all()


def test_diverse_images_keep_their_size_and_gain_a_dark_rim(seeded: Seeded) -> None:
    generator, rims = seeded(), []
    for _ in range(30):
        white = torch.ones(2, 3, 40, 20)
        diverse = diversify(white, 1.5, generator)
        assert diverse.shape == white.shape
        assert diverse.min() >= 0
        assert diverse.max() <= 1
        assert torch.equal(diverse[0], diverse[1])  # one draw for the batch
        light = diverse[0, 0] > 0.5
        height, width = int(light.any(1).sum()), int(light.any(0).sum())
        assert height >= 40 / 1.5 - 1
        assert height == pytest.approx(2 * width, abs=3)
        rims.append((height, int(light.any(1).int().argmax()), int(light.any(0).int().argmax())))
    heights, tops, lefts = zip(*rims, strict=True)
    assert len(set(heights)) > 3
    assert len(set(tops)) > 3
    assert len(set(lefts)) > 2


def test_a_factor_of_one_changes_nothing(seeded: Seeded) -> None:
    images = torch.rand(2, 3, 17, 9, generator=seeded())
    assert torch.allclose(diversify(images, 1.0, seeded()), images)


def test_dim_transforms_seven_in_ten(seeded: Seeded, images: Tensor) -> None:
    altered = []

    def loss(candidates: Tensor) -> Tensor:
        altered.append(bool((candidates[1, :, [0, -1]] < 0.5).any() or (candidates[1, :, :, [0, -1]] < 0.5).any()))
        return candidates.flatten(1).sum(1)

    DIM(8, iterations=300, enlarge=2.0)(images, Knowledge(loss=loss), seeded())
    assert sum(altered) / 300 == pytest.approx(0.7, abs=0.08)


def test_dim_without_its_transformation_is_mifgsm(
    network: nn.Module, images: Tensor, known: Known, seeded: Seeded
) -> None:
    knowledge = known(network, images)
    plain = MIFGSM(8)(images, knowledge, seeded())
    assert torch.equal(DIM(8, probability=0)(images, knowledge, seeded()), plain)
    assert torch.equal(DIMTI(8, probability=0, kernel=1)(images, knowledge, seeded()), plain)
    assert not torch.equal(DIM(8)(images, knowledge, seeded()), plain)


def test_the_kernel_sums_to_one_and_smooths_a_point_to_itself() -> None:
    kernel = gaussian_kernel(15, 3)
    assert kernel.shape == (15, 15)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(kernel, kernel.T)
    assert torch.equal(kernel, kernel.flip(0))
    assert float(kernel[7, 7] / kernel[7, 0]) == pytest.approx(torch.tensor(4.5).exp().item(), rel=1e-4)
    point = torch.zeros(2, 3, 21, 21)
    point[0, 1, 10, 10] = 2.0
    smoothed = smooth(point, kernel)
    assert torch.allclose(smoothed[0, 1, 3:18, 3:18], 2 * kernel)
    smoothed[0, 1, 3:18, 3:18] = 0
    assert (smoothed == 0).all()  # no other channel, no other image, nothing further away


def test_dimti_moves_the_whole_neighbourhood_of_a_point_s_gradient(seeded: Seeded, linear: Linear) -> None:
    weights = torch.zeros(3, 21, 21)
    weights[1, 10, 10] = -1.0
    images = torch.full((1, 3, 21, 21), 0.5)
    found = DIMTI(10, probability=0, iterations=1)(images, Knowledge(loss=linear(weights)), seeded())
    expected = torch.zeros(3, 21, 21)
    expected[1, 3:18, 3:18] = -1.0
    assert torch.allclose((found - images)[0] * 255, expected, atol=1e-4)


@pytest.mark.parametrize(
    "make", [lambda: DIM(8, probability=1.1), lambda: DIM(8, enlarge=0.9), lambda: DIMTI(8, kernel=4)]
)
def test_settings_that_make_no_attack_are_refused(make: Callable[[], DIM]) -> None:
    with pytest.raises(AttackError):
        make()


def test_names_tell_settings_apart() -> None:
    assert DIMTI(8).name == "DIM-TI"
    assert DIM(8, probability=0.5, iterations=20).name == "DIM (iterations 20, probability 0.5)"
