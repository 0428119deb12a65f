from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.architectures import build
from model_store.inference import STATIC, InferenceMode, PurifierDraws
from model_store.store import ModelStore
from robustness.adaptive import METHODS, AwareLogits, Method, aware_attack, straight_through, suspicions
from robustness.defences import Jpeg, Purification
from robustness.observations import Observation, Scenario
from robustness.victims import Victim, load_victims

NOISY = InferenceMode(noise_std=0.1, draws=3)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def purification(mode: InferenceMode) -> Purification:
    return Purification("mode", mode, "0" * 64, PurifierDraws(build("identity"), mode))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def victim(built_store: Path) -> Victim:
    return load_victims(ModelStore(built_store), ["victim-a"], torch.device("cpu"))[0]


def test_straight_through_gives_the_defended_values_and_the_gradient_of_the_identity() -> None:
    begin = images().requires_grad_(True)
    defended = Jpeg(20)(begin.detach())
    through = straight_through(begin, defended)
    assert torch.equal(through.detach(), defended)
    weights = torch.randn(begin.shape, generator=generator())
    (gradient,) = torch.autograd.grad((through * weights).sum(), begin)
    assert torch.equal(gradient, weights)


def test_bpda_through_jpeg_gives_the_victims_gradient_at_the_compressed_image(victim: Victim) -> None:
    begin = images().requires_grad_(True)
    aware = AwareLogits(Jpeg(20), victim, "BPDA", generator())
    (gradient,) = torch.autograd.grad(aware(begin)[:, 0].sum(), begin)
    there = Jpeg(20)(begin.detach()).requires_grad_(True)
    (expected,) = torch.autograd.grad(victim.logits(there).log_softmax(1)[:, 0].sum(), there)
    assert torch.allclose(gradient, expected, atol=1e-6)
    assert gradient.abs().max() > 0


def test_the_full_gradient_cannot_pass_jpeg_but_passes_a_purifier(victim: Victim) -> None:
    begin = images().requires_grad_(True)
    blocked = AwareLogits(Jpeg(20), victim, "full-gradient", generator())(begin)
    assert not blocked.requires_grad
    (gradient,) = torch.autograd.grad(
        AwareLogits(purification(NOISY), victim, "full-gradient", generator())(begin)[:, 0].sum(), begin
    )
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_fresh_at_each_step_and_a_static_mode_has_none(victim: Victim, method: Method) -> None:
    noisy = AwareLogits(purification(NOISY), victim, method, generator())
    assert not torch.equal(noisy(images()), noisy(images()))
    static = AwareLogits(purification(STATIC), victim, method, generator())
    assert torch.equal(static(images()), static(images()))


def test_the_answer_is_the_logarithm_of_the_mean_probability(victim: Victim) -> None:
    versions = torch.rand(2, 5, 3, 16, 16, generator=generator())
    expected = torch.stack([victim.logits(v).softmax(1).mean(0) for v in versions]).log()
    found = victim.log_probabilities(versions)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found.exp().sum(1), torch.ones(2), atol=1e-5)


def test_the_attacker_draws_as_often_as_it_is_told(victim: Victim) -> None:
    for eot in (1, 4):
        aware = aware_attack("BPDA", purification(NOISY), victim, eps=4, steps=2, eot=eot).logits(generator())
        assert isinstance(aware, AwareLogits)
        assert aware.defence.draw_count == eot
    static = aware_attack("BPDA", purification(STATIC), victim, eps=4, steps=2, eot=9).logits(generator())
    assert isinstance(static, AwareLogits)
    assert static.defence.draw_count == 1


def test_another_purifier_mode_or_eot_is_another_identity(victim: Victim) -> None:
    modes = (NOISY, NOISY.model_copy(update={"noise_std": 0.2}), STATIC)
    identities = {
        aware_attack("BPDA", purification(mode), victim, eps=4, steps=2, eot=eot).identity
        for mode in modes
        for eot in (1, 2)
    }
    assert len(identities) == 5  # a static purifier has nothing to average over


def seen(attack: str, correct: list[bool]) -> Observation:
    return Observation(Scenario(attack, 4), "victim", "purifier heavy", "purifier", torch.tensor(correct))


def test_an_informed_attacker_that_does_worse_is_suspicious() -> None:
    unaware = [seen("PGD-10 targeted", [True] * 4), seen("PGD-10 untargeted", [True, False, True, True])]
    assert suspicions(unaware, [seen("BPDA PGD-20", [False, True])]) == []
    said = suspicions(unaware, [seen("BPDA PGD-20", [True, True])])
    assert len(said) == 1
    assert "2 of 2 photos" in said[0]
    assert "probably masked" in said[0]
