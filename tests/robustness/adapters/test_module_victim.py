from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.card import InputConvention
from robustness.adapters.module_victim import ModuleVictim
from robustness.attacks.pgd import PGD
from robustness.errors import VictimError

CLASSES = ("grey", "red", "green", "blue")


def victim(module: nn.Module, **settings: Any) -> ModuleVictim:
    return ModuleVictim.of(module, CLASSES, **{"name": "toy", **settings})


def test_it_is_attacked_and_judged_like_any_classifier(toy: Any, colours: nn.Module) -> None:
    found, truths = victim(colours), {"labels": toy.labels}
    generator = torch.Generator().manual_seed(0)
    adversaries = PGD(16, iterations=5)(toy.images, found.knowledge(truths, generator), generator)
    clean, attacked = (found.score(found.answer(x.unsqueeze(1)), truths) for x in (toy.images, adversaries))
    assert clean.percent == 100
    assert attacked.percent < 50


def test_it_is_frozen_and_in_evaluation_mode(colours: nn.Module) -> None:
    found = victim(colours.train())
    assert not found.module.training
    assert not any(parameter.requires_grad for parameter in found.module.parameters())


def test_normalisation_comes_before_the_module(toy: Any) -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = ModuleVictim.of(module, CLASSES[1:], name="toy", mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.5])
    centre, spread = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.1, 0.2, 0.5])
    expected = (toy.images.mean(dim=(2, 3)) - centre) / spread
    assert torch.allclose(found.logits(toy.images), expected, atol=1e-5)


def test_the_identity_follows_weights_structure_and_normalisation(colours: nn.Module) -> None:
    plain = victim(colours)
    assert victim(type(colours)()).identity == plain.identity
    assert len(plain.identity) == 64
    normalised = victim(type(colours)(), mean=[0.5] * 3, std=[0.2] * 3)
    assert normalised.identity != plain.identity
    assert victim(nn.Sequential(type(colours)())).identity != plain.identity
    with torch.no_grad():
        colours.head.bias += 1e-6  # type: ignore[operator,union-attr]
    assert victim(colours).identity != plain.identity


def test_counters_and_half_precision_have_an_identity_too() -> None:
    halves = [victim(nn.Sequential(nn.BatchNorm2d(3).to(kind))).identity for kind in (torch.bfloat16, torch.float16)]
    assert halves[0] != halves[1]


def test_it_may_be_replaced_like_a_dataclass(colours: nn.Module) -> None:
    convention = InputConvention(short_side=8, crop=8)
    found = victim(colours, convention=convention)
    assert found.convention == convention
    assert replace(found, name="other").identity == found.identity


@pytest.mark.parametrize("settings", [{"mean": [0.5] * 3}, {"std": [0.5] * 3}])
def test_half_a_normalisation_is_refused(colours: nn.Module, settings: dict[str, Any]) -> None:
    with pytest.raises(VictimError, match="mean and std"):
        victim(colours, **settings)


def test_one_class_is_refused(colours: nn.Module) -> None:
    with pytest.raises(VictimError, match="at least two classes"):
        ModuleVictim.of(colours, ["only"], name="toy")


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize("module", [nn.Flatten(), nn.Identity(), Pair()], ids=["too many", "an image", "a pair"])
def test_what_gives_no_logits_of_these_classes_is_refused(toy: Any, module: nn.Module) -> None:
    with pytest.raises(VictimError, match=r"logits \(12, 4\) are needed"):
        victim(module).answer(toy.images.unsqueeze(1))
