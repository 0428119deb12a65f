"""Adversaries in batches: within their budget at 8 bits, resumed after a kill, and not made where there is no need."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.square import Square
from robustness.aware.crafting import adversaries
from robustness.aware.defended import Mode
from robustness.aware.judging import decide
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.errors import OutOfTimeError
from tests.robustness.aware.conftest import MakeDefended

NOBODY = torch.zeros(6, dtype=torch.bool)


@dataclass
class Mortal:
    """Counts the calls of a purifier, and ends the process at one of them."""

    dies_at: int = 10**9
    calls: int = 0


class Watched(nn.Module):
    """The identity, watched."""

    def __init__(self, life: Mortal) -> None:
        super().__init__()
        self.life = life

    def forward(self, images: Tensor) -> Tensor:
        self.life.calls += 1
        if self.life.calls == self.life.dies_at:
            raise KeyboardInterrupt
        return images


@pytest.mark.parametrize("place", range(3))
def test_rounded_adversaries_stay_in_their_budget_and_do_harm(
    place: int, material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    attack = plan.main()[place]
    found = adversaries(material, make_defended(), plan, attack, NOBODY)
    apart = (found.pixels.int() - material.examples.pixels.int()).abs()
    assert found.pixels.dtype == torch.uint8
    assert 0 < apart.max() <= attack.eps
    assert found.attacked.all()
    assert not found.blind.any()
    before = decide(material, make_defended(), plan, material.examples.pixels, torch.arange(6))["votes"]
    after = decide(material, make_defended(), plan, found.pixels, torch.arange(6))["votes"]
    assert after.double().mean() < before.double().mean() - 0.4


def test_a_kill_between_batches_loses_no_batch(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    whole, attack = Mortal(), plan.exact()
    expected = adversaries(
        replace(material, cache=replace(material.cache, root=material.cache.root / "other")),
        make_defended(purifier=Watched(whole)),
        plan,
        attack,
        NOBODY,
    )
    each = whole.calls // 3
    killed = Mortal(dies_at=each + 3)
    with pytest.raises(KeyboardInterrupt):
        adversaries(material, make_defended(purifier=Watched(killed)), plan, attack, NOBODY)
    resumed = Mortal()
    found = adversaries(material, make_defended(purifier=Watched(resumed)), plan, attack, NOBODY)
    assert resumed.calls == 2 * each
    assert torch.equal(found.pixels, expected.pixels)


def test_after_the_deadline_nothing_is_begun_and_what_is_kept_is_found(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    late = replace(material, deadline=time.monotonic() - 1)
    with pytest.raises(OutOfTimeError, match="run the same again"):
        adversaries(late, make_defended(), plan, plan.exact(), NOBODY)
    made = adversaries(material, make_defended(), plan, plan.exact(), NOBODY)
    assert torch.equal(adversaries(late, make_defended(), plan, plan.exact(), NOBODY).pixels, made.pixels)


def test_photos_that_are_spared_stay_as_they_are(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    spared = torch.tensor([True, True, False, True, True, False])
    found = adversaries(material, make_defended(), plan, plan.exact(), spared)
    same = (found.pixels == material.examples.pixels).flatten(1).all(dim=1)
    assert torch.equal(same, spared)
    assert torch.equal(found.attacked, ~spared)


def test_other_settings_are_other_adversaries(material: Material, plan: AwarePlan, make_defended: MakeDefended) -> None:
    first = adversaries(material, make_defended(), plan, plan.exact(), NOBODY).pixels
    for other in (replace(plan.exact(), eot=4), replace(plan.exact(), steps=5), replace(plan.exact(), route="BPDA")):
        assert not torch.equal(adversaries(material, make_defended(), plan, other, NOBODY).pixels, first)
    reseeded = adversaries(replace(material, seed=1), make_defended(), plan, plan.exact(), NOBODY)
    assert not torch.equal(reseeded.pixels, first)


def test_known_noise_is_that_of_the_decision_that_is_judged(
    material: Material, plan: AwarePlan, make_defended: MakeDefended, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    class Kept(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.detach().clone())
            return images

    defended = make_defended(Mode(noise_std=0.2, draws=2), Kept())
    whole = replace(plan, batch=6, chunk=64, decisions=2)
    known = replace(plan.exact(), known_noise=True, eot=2, steps=1)
    adversaries(material, defended, whole, known, NOBODY)
    at_clean = seen[0]
    seen.clear()
    decide(material, defended, whole, material.examples.pixels, torch.arange(6))
    torch.testing.assert_close(seen[0], at_clean)
    assert not torch.allclose(seen[1], at_clean)


def test_restarts_keep_the_run_of_higher_loss(material: Material, plan: AwarePlan, make_defended: MakeDefended) -> None:
    attack = replace(plan.exact(), restarts=3)
    assert attack.name == "exact PGD-6 x3 CE EOT-3"
    found = adversaries(material, make_defended(Mode()), plan, attack, NOBODY)
    assert (found.pixels.int() - material.examples.pixels.int()).abs().max() <= 8


def test_square_asks_for_the_mean_over_draws_that_stay_the_same(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    seen: list[Tensor] = []

    class Kept(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.clone())
            return images

    defended = make_defended(Mode(noise_std=0.1, draws=2), Kept())
    whole = replace(plan, square_draws=3, square_batch=6, chunk=64)
    found = adversaries(material, defended, whole, Square(8, queries=20, stubborn=True), NOBODY)
    assert {len(copies) for copies in seen} == {18}
    noise = seen[0].view(6, 3, 3, 16, 16) - material.floats(material.examples.pixels).unsqueeze(1)
    torch.testing.assert_close(noise[0], noise[5], atol=1e-6, rtol=0)
    assert not torch.allclose(noise[0, 0], noise[0, 1])
    before = decide(material, make_defended(), plan, material.examples.pixels, torch.arange(6))["votes"]
    after = decide(material, make_defended(), plan, found.pixels, torch.arange(6))["votes"]
    assert after.sum() < before.sum()
