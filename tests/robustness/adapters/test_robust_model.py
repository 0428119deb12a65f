from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.card import InputConvention
from model_store.inference import STATIC, InferenceMode, PurifierDraws
from robustness.adapters.robust_model import RobustModel
from robustness.adapters.seed_source import SeedSource
from robustness.errors import VictimError

NOISY = InferenceMode(noise_std=0.05, draws=3)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


def test_a_static_mode_gives_the_classifiers_log_probabilities(toy: Any, blur: nn.Module, colours: nn.Module) -> None:
    found = RobustModel(blur, colours)(toy.images)
    assert torch.allclose(found, colours(blur(toy.images)).log_softmax(1), atol=1e-6)
    assert accuracy(RobustModel(blur, colours), toy.images, toy.labels) == 1


def test_draws_are_averaged_as_probabilities(toy: Any, blur: nn.Module, colours: nn.Module) -> None:
    found = RobustModel(blur, colours, NOISY, seed=4)(toy.images)
    versions = PurifierDraws(blur, NOISY).draws(toy.images, SeedSource(4).draw(12))
    expected = torch.stack([colours(versions[:, draw]).softmax(1) for draw in range(3)]).mean(0).log()
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_purifier_with_a_mode_keeps_it(toy: Any, blur: nn.Module, colours: nn.Module) -> None:
    model = RobustModel(PurifierDraws(blur, NOISY), colours, seed=4)
    assert model.mode == NOISY
    assert torch.equal(model(toy.images), RobustModel(blur, colours, NOISY, seed=4)(toy.images))
    with pytest.raises(VictimError, match="already has a mode"):
        RobustModel(PurifierDraws(blur, NOISY), colours, STATIC)


def test_the_noise_is_the_models_own(toy: Any, blur: nn.Module, colours: nn.Module) -> None:
    model = RobustModel(blur, colours, NOISY, seed=4)
    first = model(toy.images)
    assert not torch.equal(model(toy.images), first)
    assert torch.equal(model.seeded(4)(toy.images), first)
    assert not torch.equal(model.seeded(5)(toy.images), first)
    fresh = model.seeded(None)
    torch.manual_seed(0)
    one = fresh(toy.images)
    torch.manual_seed(0)
    assert not torch.equal(fresh(toy.images), one)


def test_a_copy_goes_on_alike(toy: Any, blur: nn.Module, colours: nn.Module) -> None:
    model = RobustModel(blur, colours, NOISY, seed=4)
    assert torch.equal(copy.deepcopy(model)(toy.images), model(toy.images))


def test_the_gradient_is_that_of_the_averaged_decision(toy: Any, blur: nn.Module, colours: nn.Module) -> None:
    leaf = toy.images.clone().requires_grad_(True)
    loss = F.nll_loss(RobustModel(blur, colours, NOISY, seed=7)(leaf), toy.labels)
    (found,) = torch.autograd.grad(loss, leaf)
    noise = PurifierDraws(nn.Identity(), NOISY).draws(toy.images, SeedSource(7).draw(12)) - toy.images.unsqueeze(1)
    each = torch.stack([colours(blur(leaf + noise[:, draw])).softmax(1) for draw in range(3)])
    (expected,) = torch.autograd.grad(F.nll_loss(each.mean(0).log(), toy.labels), leaf)
    assert found.any()
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_the_classifier_gets_the_size_it_wants(toy: Any, blur: nn.Module) -> None:
    shapes: list[tuple[int, ...]] = []

    class Look(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            shapes.append(tuple(images.shape))
            return images.mean(dim=(2, 3))

    RobustModel(blur, Look(), convention=InputConvention(short_side=6, crop=4))(toy.images)
    assert shapes == [(12, 3, 4, 4)]


@pytest.mark.parametrize("mode", [STATIC, NOISY], ids=["static", "noisy"])
def test_torchattacks_run_on_it(toy: Any, blur: nn.Module, colours: nn.Module, mode: InferenceMode) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model = RobustModel(blur, colours.requires_grad_(True), mode)
    if mode.static:
        attack = torchattacks.PGD(model, eps=16 / 255, alpha=4 / 255, steps=6)
    else:
        attack = torchattacks.EOTPGD(model, eps=16 / 255, alpha=4 / 255, steps=6, eot_iter=2)
    found = attack(toy.images, toy.labels)
    assert not toy.outside(found, 16)
    assert accuracy(model, toy.images, toy.labels) > 0.9
    assert accuracy(model, found, toy.labels) < 0.3
    assert not any(part.training for part in model.modules())


def autoattack(model: nn.Module, version: str) -> Any:
    """A short one: few steps, and as many target classes as the toy has."""
    package = pytest.importorskip("pyautoattack")
    attack = package.AutoAttack(model, eps=16 / 255, version=version, seed=0)
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = 6
    attack.apgd.eot_iter = 2 if version == "rand" else 1
    attack.fab.n_iter = 3
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = 3
    attack.square.n_queries = 20
    return attack


@pytest.mark.parametrize(("mode", "version"), [(STATIC, "standard"), (NOISY, "rand")], ids=["standard", "rand"])
def test_autoattack_runs_on_it(
    toy: Any,
    blur: nn.Module,
    colours: nn.Module,
    mode: InferenceMode,
    version: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = RobustModel(blur, colours, mode)
    found, _ = autoattack(model, version).run_standard_evaluation(toy.images, toy.labels, batch_size=6)
    assert not toy.outside(found, 16)
    assert accuracy(model, toy.images, toy.labels) > 0.9
    assert accuracy(model, found, toy.labels) < 0.3
    assert "probability distribution" not in caplog.text
    assert "dynamic defense" not in caplog.text
    assert "randomized defense" not in caplog.text


def test_autoattack_sees_that_a_noisy_mode_needs_rand(
    toy: Any, blur: nn.Module, colours: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    attack = autoattack(RobustModel(blur, colours, NOISY), "standard")
    attack.attacks_to_run = []
    attack.run_standard_evaluation(toy.images, toy.labels, batch_size=6)
    assert "randomized defense" in caplog.text
