from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.attack import Knowledge
from robustness.attacks.universal import FoolSettings, Universal, fast_feature_fool, response
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]
NOTHING = Knowledge()
SIZE = (9, 12)


@pytest.fixture
def activations(network: nn.Sequential) -> Callable[[Tensor], list[Tensor]]:
    """Two rectified layers."""

    def run(images: Tensor) -> list[Tensor]:
        first = network[0](images).relu()
        return [first, nn.functional.avg_pool2d(first, 2)]

    return run


def noise_of(value: float, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.full((1, 3, *size), value / 255)


def test_the_response_is_the_logarithm_of_the_product_of_mean_activations() -> None:
    def layers(images: Tensor) -> list[Tensor]:
        return [images * 2, -images.sum((1, 2, 3)), images * 0]

    expected = torch.tensor([1.0, 6.0, 1e-12]).log().sum()
    assert torch.allclose(response(layers, torch.full((1, 3, 2, 2), 0.5)), expected)
    with pytest.raises(AttackError, match="at least one layer"):
        response(lambda _: [], torch.zeros(1, 3, 2, 2))


def test_fff_finds_the_corner_that_excites_a_linear_layer_most(seeded: Seeded) -> None:
    weights = torch.randn(1, 3, *SIZE, generator=seeded(1))
    settings = FoolSettings(rate=1, halve_every=None)
    noise = fast_feature_fool(
        lambda images: [5 + (images * weights).sum().view(1)], SIZE, 8, 60, generator=seeded(), settings=settings
    )
    assert torch.allclose(noise, weights.sign() * 8 / 255, atol=1e-6)


@pytest.mark.parametrize("halve_every", [None, 7])
def test_fff_raises_the_activations_within_its_budget_and_keeps_its_best(
    halve_every: int | None, activations: Callable[[Tensor], list[Tensor]], network: nn.Module, seeded: Seeded
) -> None:
    settings, told = FoolSettings(rate=1, halve_every=halve_every), list[tuple[int, float]]()
    noise = fast_feature_fool(
        activations,
        SIZE,
        16,
        20,
        generator=seeded(),
        settings=settings,
        progress=lambda done, value: told.append((done, value)),
    )
    assert noise.shape == (1, 3, *SIZE)
    assert noise.abs().max() <= 16 / 255 + 1e-7
    assert not noise.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [done for done, _ in told] == list(range(21))
    heights = [value for _, value in told]
    assert heights == sorted(heights)
    assert heights[-1] > heights[0] + 0.01
    background = torch.tensor(settings.background).view(1, 3, 1, 1)
    with torch.no_grad():
        assert float(response(activations, background + noise)) == pytest.approx(heights[-1], abs=1e-5)
    again = fast_feature_fool(activations, SIZE, 16, 20, generator=seeded(), settings=settings)
    assert torch.equal(noise, again)


def test_halving_frees_the_values_on_the_surface(seeded: Seeded) -> None:
    """On an objective without a slope, all that moves the noise is the halving."""
    seen: list[float] = []

    def flat(images: Tensor) -> list[Tensor]:
        background = torch.tensor(FoolSettings().background).view(1, 3, 1, 1)
        seen.append(float((images.detach() - background).abs().max()))
        return [images.sum() * 0 + 1]

    fast_feature_fool(flat, SIZE, 8, 6, generator=seeded(), settings=FoolSettings(halve_every=2))
    assert [value / seen[0] for value in seen] == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8], rel=1e-4)


def test_fff_needs_an_iteration(seeded: Seeded) -> None:
    with pytest.raises(AttackError, match="at least one iteration"):
        fast_feature_fool(lambda images: [images], SIZE, 8, 0, generator=seeded())


def test_universal_noise_is_added_to_every_image_and_stays_in_range(images: Tensor, seeded: Seeded) -> None:
    found = Universal(noise_of(8, (12, 9)), 8)(images, NOTHING, seeded())
    assert torch.allclose(found, (images + 8 / 255).clamp(0, 1))
    assert found[1].max() == 1


def test_attacks_are_equal_where_noise_budget_and_title_are() -> None:
    noise = noise_of(8)
    attack = Universal(noise, 8, "FFF of a network")
    assert attack.name == "FFF of a network"
    assert attack == Universal(noise.clone(), 8, "FFF of a network")
    assert hash(attack) == hash(Universal(noise.clone(), 8, "FFF of a network"))
    assert attack != Universal(noise_of(7), 8, "FFF of a network")
    assert attack != Universal(noise, 9, "FFF of a network")
    assert attack != Universal(noise, 8, "other")
    assert Universal(noise_of(8, (2, 6)), 8).identity != Universal(noise_of(8, (6, 2)), 8).identity
    assert "tensor" not in repr(attack)


def test_noise_that_changes_later_does_not_change_the_attack(images: Tensor, seeded: Seeded) -> None:
    noise = noise_of(4, (12, 9))
    attack = Universal(noise, 4)
    noise += 1
    assert (attack(images, NOTHING, seeded()) - images).abs().max() <= 4 / 255 + 1e-6


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (noise_of(8.1), "leaves the budget"),
        (noise_of(float("nan")), "leaves the budget"),
        (torch.zeros(2, 3, 4, 4), "shape"),
        (torch.zeros(3, 4, 4), "shape"),
    ],
)
def test_noise_that_is_none_is_refused(noise: Tensor, said: str) -> None:
    with pytest.raises(AttackError, match=said):
        Universal(noise, 8)


def test_images_of_another_size_are_refused(images: Tensor, seeded: Seeded) -> None:
    with pytest.raises(AttackError, match="made for images of 9x12, not 12x9"):
        Universal(noise_of(8), 8)(images, NOTHING, seeded())
