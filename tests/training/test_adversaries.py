"""The adversaries of a purifier's training: within budget, of use, and the same however they are come by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures import build
from model_store.architectures.vgg_features import VGG16Features
from model_store.pixels import to_bytes, to_float
from robustness.attacks.ascent import random_start
from tests.training.conftest import tiny_recipe
from training.adversaries import (
    Tally,
    attack,
    attacked,
    attacked_through,
    turn_at,
    within,
)
from training.ensemble import CONV3_3, Ensemble, Member
from training.loop import generator_at
from training.purifier_recipe import AdaptiveRecipe, AdversaryKind, AdversaryRecipe, PurifierRecipe

CPU = torch.device("cpu")
KINDS: tuple[AdversaryKind, ...] = get_args(AdversaryKind)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ensemble() -> Ensemble:
    torch.manual_seed(0)
    features = VGG16Features(4, width=0.125)
    classifier = build("resnet_small", {"classes": 4, "widths": [8, 16], "blocks": 1})
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.2)  # type: ignore[union-attr]
    return Ensemble((Member("vgg", "a", features), Member("resnet", "b", classifier, ("stages.0",))))


def clean(count: int = 6) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=generator(7))
    return to_bytes(F.interpolate(coarse, size=(24, 24), mode="bicubic"))


def recipe(**changes: Any) -> AdversaryRecipe:
    return AdversaryRecipe(**({"eps": (8.0,), "iterations": 5, "precision": "float32"} | changes))


def purifier_recipe(**changes: Any) -> PurifierRecipe:
    return tiny_recipe(**({"feature_network": "vgg", "side": 24, "crop": 16} | changes))


def distance(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(4))
def test_no_budget_is_exceeded(kind: AdversaryKind, number: int) -> None:
    asked = recipe(kinds=(kind,), eps_low=1.0, eps_high=16.0, iterations=2)
    both, images = ensemble(), clean(3)
    eps = turn_at(asked, number, both, generator(number)).eps
    found = attacked(images, number, asked, both, generator(number))
    assert found.dtype == torch.uint8
    assert 0 < distance(found, images) <= eps


def test_rounding_cannot_leave_a_broken_budget() -> None:
    images = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert distance(within(images + 6, images, 5.7), images) == 5
    assert distance(within(images - 6, images, 6.0), images) == 6
    black = torch.zeros_like(images)
    assert torch.equal(within(black + 3, black, 2.0), black + 2)


def heights(kind: AdversaryKind, member: Member, layer: str, images: Tensor) -> Callable[[Tensor], Tensor]:
    """What each kind of adversary is to raise."""
    with torch.no_grad():
        if kind == "ssp":
            before = member.features(to_float(images), layer)
            return lambda seen: (member.features(to_float(seen), layer) - before).square().mean()
        answer = member.logits(to_float(images)).argmax(1)
    return lambda seen: F.cross_entropy(member.logits(to_float(seen)), answer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 1])
def test_every_kind_raises_its_objective_above_what_chance_does(kind: AdversaryKind, number: int) -> None:
    both, images, asked = ensemble(), clean(), recipe(kinds=(kind,))
    turn = turn_at(asked, number, both, generator())
    found = attacked(images, number, asked, both, generator())
    chance = to_bytes(random_start(to_float(images), 8.0, "corner", generator(1)))
    with torch.no_grad():
        height = heights(kind, turn.member, turn.layer, images)
        gained, by_chance = (height(seen) - height(images) for seen in (found, chance))
    assert gained > 0
    assert gained > 2 * by_chance


def test_kinds_budgets_and_networks_take_turns() -> None:
    both = ensemble()
    asked = recipe(kinds=("ssp", "prediction"), eps=(4.0, 8.0))
    turns = [turn_at(asked, number, both, generator()) for number in range(8)]
    assert [turn.kind for turn in turns[:3]] == ["ssp", "prediction", "ssp"]
    assert [turn.eps for turn in turns] == [4.0, 4.0, 8.0, 8.0] * 2
    assert [turn.member.name for turn in turns] == ["vgg"] * 4 + ["resnet"] * 4
    assert [turn.layer for turn in turns] == [CONV3_3, "", CONV3_3, "", "stages.0", "", "stages.0", ""]


def test_a_budget_out_of_a_range_is_drawn_for_each_batch() -> None:
    asked = recipe(eps_low=1.0, eps_high=16.0)
    both = ensemble()
    budgets = [turn_at(asked, number, both, generator(number)).eps for number in range(60)]
    assert all(1 <= eps <= 16 for eps in budgets)
    assert min(budgets) < 3
    assert max(budgets) > 14


@pytest.mark.parametrize("kind", KINDS)
def test_bank_and_step_come_by_the_same_adversaries(kind: AdversaryKind) -> None:
    asked = recipe(kinds=(kind,), eps_low=2.0, eps_high=8.0, iterations=2, precision="bfloat16")
    both, images = ensemble(), clean(3)
    assert torch.equal(attack(images, 5, asked, both, 3), attacked(images, 5, asked, both, generator_at(3, 5)))


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_make_what_one_would(kind: AdversaryKind) -> None:
    asked, both, images = recipe(kinds=(kind,), iterations=2), ensemble(), clean(6)
    whole = attacked(images, 0, asked, both, generator())
    parts = [attacked(images[at : at + 3], 0, asked, both, generator(), at) for at in (0, 3)]
    apart = (torch.cat(parts).int() - whole.int()).abs()
    assert (apart > 0).float().mean() < 0.01  # but for the rounding of a smaller batch


def test_an_attack_asks_no_gradient_of_a_parameter() -> None:
    both = ensemble()
    attacked(clean(2), 0, recipe(kinds=("prediction",)), both, generator())
    parameters = [p for member in both.members for p in member.module.parameters()]
    assert not any(p.requires_grad or p.grad is not None for p in parameters)


class Blur(nn.Module):
    """A purifier of three lines: what is fine is averaged away."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 5, padding=2, padding_mode="reflect", groups=3, bias=False)
        nn.init.constant_(self.mix.weight, 1 / 25)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.mix(images)
        return out


@pytest.mark.parametrize("objective", ["prediction", "feature"])
def test_who_knows_the_purifier_does_more_harm_behind_it(objective: str) -> None:
    both, images, blur = ensemble(), clean(), Blur().requires_grad_(False)
    member, noises = both.members[0], generator(9)

    def defended(seen: Tensor) -> Tensor:
        return blur(seen + 0.02 * torch.randn(seen.shape, generator=noises))

    asked = AdaptiveRecipe(share=1.0, iterations=5, objective=objective)  # type: ignore[arg-type]
    target = (member, CONV3_3 if objective == "feature" else "")
    aware = attacked_through(images, defended, target, 8.0, asked, "float32", generator())
    kinds: tuple[AdversaryKind, ...] = ("ssp",) if objective == "feature" else ("prediction",)
    unaware = attacked(images, 0, recipe(kinds=kinds), Ensemble((member,)), generator())
    assert distance(aware, images) == 8

    def harm(found: Tensor) -> float:
        with torch.no_grad():
            if objective == "feature":
                before = member.features(to_float(images), CONV3_3)
                return (member.features(blur(to_float(found)), CONV3_3) - before).square().mean().item()
            answers = [member.logits(seen).log_softmax(1) for seen in (blur(to_float(found)), to_float(images))]
            return F.kl_div(*answers, log_target=True, reduction="batchmean").item()

    assert harm(aware) > 1.1 * harm(unaware)


def test_every_step_through_the_purifier_meets_fresh_noise() -> None:
    seen: list[Tensor] = []
    noises = generator(9)

    def defended(images: Tensor) -> Tensor:
        seen.append(torch.randn(images.shape, generator=noises))
        return images + 0.1 * seen[-1]

    asked = AdaptiveRecipe(share=1.0, iterations=3)
    attacked_through(clean(2), defended, (ensemble().members[0], ""), 8.0, asked, "float32", generator())
    assert len(seen) == 3
    assert not any(torch.equal(seen[0], other) for other in seen[1:])


def test_a_tally_tells_adversaries_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 50.0, 53.0])
    monkeypatch.setattr("training.adversaries.time.monotonic", lambda: next(clock))
    tally = Tally()
    assert tally.rate == 0
    for count in (4, 6):
        with tally.counting(count, CPU):
            pass
    assert (tally.count, tally.rate) == (10, 2.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kinds": ()}, "at least one kind"),
        ({"eps": ()}, "at least one budget"),
        ({"eps": (0.0,)}, "above 0"),
        ({"eps_low": 4.0, "eps_high": 2.0}, "eps_low must be above 0 and at most eps_high"),
        ({"eps_high": 2.0}, "eps_low must be above 0"),
    ],
)
def test_adversaries_that_make_no_sense_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        recipe(**changes)


def test_a_bank_must_be_large_enough_to_crop() -> None:
    with pytest.raises(ValueError, match=r"adversaries\.side must be at least crop"):
        purifier_recipe(crop=20, adversaries=recipe(side=16))
