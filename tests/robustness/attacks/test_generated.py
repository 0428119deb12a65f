"""Perturbations of a trained generator: the budget, the smoothing, and what counts as the same attack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.card import Card
from model_store.store import ModelStore
from robustness.attacks.attack import Knowledge
from robustness.attacks.generated import Generated, load_perturber, smoothed
from robustness.errors import AttackError

CPU = torch.device("cpu")


class Always(nn.Module):
    """Makes the same image of every image."""

    def __init__(self, made: Tensor) -> None:
        super().__init__()
        self.made = made

    def forward(self, images: Tensor) -> Tensor:
        return self.made.expand_as(images)


def attacked(attack: Generated, images: Tensor) -> Tensor:
    return attack(images, Knowledge(), torch.Generator())


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path)
    size = {"width": 4, "blocks": 1}
    torch.manual_seed(0)
    card = Card(name="cda-road", summary="s", task="perturber", architecture="cda_generator", arguments=size)
    store.publish(card, build("cda_generator", size))
    store.publish(Card(name="plain", summary="s", task="purifier", architecture="identity"), build("identity"))
    return store


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("eps", [0.0, 2.0, 16.0, 255.0])
def test_the_budget_and_the_unit_interval_are_kept(store: ModelStore, eps: float, smoothing: float) -> None:
    attack = load_perturber(store, "cda-road", eps, CPU, smoothing=smoothing)
    images = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(1))
    images[0, :, :3] = 0.0
    images[1, :, :3] = 1.0
    adversaries = attacked(attack, images)
    assert adversaries.shape == images.shape
    assert (adversaries - images).abs().max() <= eps / 255 + 1e-6
    assert 0 <= adversaries.min() <= adversaries.max() <= 1
    assert torch.equal(adversaries, attacked(attack, images))


def test_what_the_generator_makes_is_brought_to_the_nearest_point_of_the_ball() -> None:
    images = torch.tensor([0.2, 0.5, 0.99]).view(1, 1, 1, 3).repeat(1, 3, 1, 1)
    attack = Generated(51, "cda-x", "0" * 64, Always(torch.tensor([0.9, 0.55, 1.0])))
    expected = torch.tensor([0.4, 0.55, 1.0])
    torch.testing.assert_close(attacked(attack, images)[0, 0, 0], expected)


def test_no_budget_leaves_the_images_and_the_whole_range_lets_the_generator_through() -> None:
    images, made = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    assert torch.equal(attacked(Generated(0, "cda-x", "0" * 64, Always(made)), images), images)
    torch.testing.assert_close(attacked(Generated(255, "cda-x", "0" * 64, Always(made)), images), made)


def test_smoothing_is_a_gaussian_that_keeps_flat_images_and_the_mean_of_a_point() -> None:
    flat = torch.full((1, 3, 5, 6), 0.3)
    torch.testing.assert_close(smoothed(flat, 1.0), flat)
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 1
    spread = smoothed(point, 1.0)[0, 0]
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    torch.testing.assert_close(spread[2, 1] / spread[2, 2], torch.exp(torch.tensor(-0.5)))
    torch.testing.assert_close(spread[1, 1] / spread[2, 2], torch.exp(torch.tensor(-1.0)))
    assert torch.equal(spread[0], torch.zeros(5))


def test_smoothing_keeps_its_precision_under_autocast() -> None:
    images = torch.rand(1, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        half = smoothed(images, 1.0)
    assert torch.equal(half, smoothed(images, 1.0))


def test_smoothing_comes_before_the_projection() -> None:
    images, made = torch.full((1, 3, 6, 6), 0.5), torch.rand(1, 3, 6, 6)
    adversaries = attacked(Generated(255, "cda-x", "0" * 64, Always(made), smoothing=1.0), images)
    torch.testing.assert_close(adversaries, smoothed(made, 1.0))


def test_a_negative_smoothing_is_refused() -> None:
    with pytest.raises(AttackError, match="smoothing"):
        Generated(8, "cda-x", "0" * 64, nn.Identity(), smoothing=-1)


def test_the_weights_tell_attacks_apart_and_the_module_does_not() -> None:
    one = Generated(8, "cda-x", "0" * 64, nn.Identity())
    assert one == Generated(8, "cda-x", "0" * 64, nn.Identity())
    assert one != Generated(8, "cda-x", "1" * 64, one.module)
    assert "module" not in repr(one)


def test_the_name_says_domain_and_smoothing(store: ModelStore) -> None:
    assert load_perturber(store, "cda-road", 8, CPU).name == "CDA road"
    assert load_perturber(store, "cda-road", 8, CPU, smoothing=1).name == "CDA road (smoothing 1)"


def test_loaded_it_is_the_stored_model(store: ModelStore) -> None:
    attack = load_perturber(store, "cda-road", 255, CPU)
    assert attack.identity == store.card("cda-road").sha256
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(attacked(attack, images), store.load("cda-road").module(images))


def test_a_model_of_another_task_is_refused_with_the_next_step(store: ModelStore) -> None:
    with pytest.raises(AttackError, match=r"plain is a purifier.*nrp train perturber"):
        load_perturber(store, "plain", 8, CPU)
