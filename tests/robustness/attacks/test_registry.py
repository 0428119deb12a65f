from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.registry import ATTACKS
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]
Known = Callable[[nn.Module, Tensor], Knowledge]
Outside = Callable[[Tensor, Tensor, float], Tensor]

QUICKER: dict[str, dict[str, Any]] = {
    "PGD-50 untargeted": {"iterations": 8},
    "PGD-100 x5 untargeted": {"iterations": 5, "restarts": 2},
    "SSP": {"iterations": 8},
    "Square": {"queries": 80},
    "AutoAttack standard": {"iterations": 5, "queries": 20},
    "AutoAttack pair": {"iterations": 5},
    "AutoAttack rand": {"iterations": 3},
}
DRAWLESS = {"FGSM", "I-FGSM", "MI-FGSM"}
NEEDS = {
    "PGD-10 targeted": {"targeted_loss"},
    "SSP": {"features"},
    "FSA": {"logits"},
    "Square": {"logits", "labels"},
    "AutoAttack standard": {"logits", "labels"},
    "AutoAttack pair": {"logits", "labels"},
    "AutoAttack rand": {"logits", "labels"},
}


def quick(key: str, eps: float) -> Attack:
    """The registered attack, with fewer iterations where it takes many; skips where its package is not installed."""
    if key.startswith("AutoAttack"):
        pytest.importorskip("pyautoattack")
    attack: Any = ATTACKS[key](eps)
    quicker: Attack = dataclasses.replace(attack, **QUICKER.get(key, {}))
    return quicker


@pytest.mark.parametrize("key", ATTACKS)
@pytest.mark.parametrize("eps", [0.5, 8.0])
def test_a_key_is_its_attack_s_name_at_the_asked_budget(key: str, eps: float) -> None:
    attack = ATTACKS[key](eps)
    assert (attack.name, attack.eps) == (key, eps)
    assert attack == ATTACKS[key](eps)
    assert hash(attack) == hash(ATTACKS[key](eps))


@pytest.mark.parametrize("key", QUICKER)
def test_an_attack_of_other_settings_has_another_name(key: str) -> None:
    assert quick(key, 8).name not in ATTACKS


@pytest.mark.parametrize("key", ATTACKS)
@pytest.mark.parametrize("eps", [1.0, 16.0])
def test_no_attack_leaves_its_budget_or_touches_what_it_is_given(
    key: str, eps: float, network: nn.Module, images: Tensor, known: Known, seeded: Seeded, outside: Outside
) -> None:
    given = images.contiguous(memory_format=torch.channels_last)
    knowledge = known(network, given)
    found = quick(key, eps)(given, knowledge, seeded())
    assert (found.shape, found.dtype, found.requires_grad) == (images.shape, torch.float32, False)
    assert torch.isfinite(found).all()
    assert outside(found, images, eps) < 1e-4
    assert torch.equal(given, images)
    assert not given.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("key", ATTACKS)
def test_an_attack_does_harm_and_its_seed_decides_all(
    key: str, network: nn.Module, images: Tensor, known: Known, seeded: Seeded
) -> None:
    knowledge, attack = known(network, images[2:]), quick(key, 16)
    assert knowledge.loss is not None
    before = torch.random.get_rng_state()
    found = attack(images[2:], knowledge, seeded(3))
    assert torch.equal(before, torch.random.get_rng_state())
    if key != "SSP":  # it knows no label; test_ssp.py says what it raises
        with torch.no_grad():
            assert knowledge.loss(found).mean() > knowledge.loss(images[2:]).mean() + 0.05
            assert (network(found).argmax(1) != knowledge.labels).any()
    torch.manual_seed(99)
    assert torch.equal(found, attack(images[2:], knowledge, seeded(3)))
    other = attack(images[2:], knowledge, seeded(4))
    assert torch.equal(found, other) == (key in DRAWLESS)


@pytest.mark.parametrize("key", ATTACKS)
def test_a_batch_of_one_wide_image_will_do(
    key: str, network: nn.Module, known: Known, seeded: Seeded, outside: Outside
) -> None:
    image = torch.rand(1, 3, 7, 16, generator=seeded(5))
    found = quick(key, 8)(image, known(network, image), seeded())
    assert found.shape == image.shape
    assert outside(found, image, 8) < 1e-4
    assert not torch.equal(found, image)


@pytest.mark.parametrize("key", ATTACKS)
def test_an_attack_needs_what_it_says_and_nothing_else(
    key: str, network: nn.Module, images: Tensor, known: Known, seeded: Seeded
) -> None:
    full = known(network, images)
    needs = NEEDS.get(key, {"loss"})
    for what in needs:
        with pytest.raises(AttackError, match=f"{key[:3]}.* needs"):
            quick(key, 8)(images, dataclasses.replace(full, **{what: None}), seeded())
    bare = Knowledge(**{what: getattr(full, what) for what in needs})
    assert not torch.equal(quick(key, 8)(images, bare, seeded()), images)
