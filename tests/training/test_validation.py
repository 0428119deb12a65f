"""The small robust evaluation: what it measures, on a judge of brightness and purifiers known to be good or bad."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.pixels import to_8bit, to_float
from training.errors import RecipeError
from training.purifier_recipe import PurifierRecipe
from training.validation import EPS, Mode, RobustValidation

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Dark or bright: PGD flips an image near the border by shifting all of its pixels."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return 20 * torch.stack([0.5 - mean, mean - 0.5], dim=1)


class Rounded(nn.Module):
    """The perfect purifier of these photos: the nearest of their two levels. ``weight`` is there to be kept."""

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images: Tensor) -> Tensor:
        return torch.where(images.mean(dim=(1, 2, 3), keepdim=True) > 0.5, BRIGHT / 255, DARK / 255).expand_as(images)


DARK, BRIGHT = 120.0, 135.0  # within 8/255 of the judge's border


def near_border() -> Tensor:
    """Four dark photos, four bright ones, (8, 3, 6, 6) uint8."""
    levels = torch.tensor([DARK] * 4 + [BRIGHT] * 4)
    return levels.view(-1, 1, 1, 1).expand(8, 3, 6, 6).to(torch.uint8)


def validation(**changes: Any) -> RobustValidation:
    options: dict[str, Any] = {"every": 5, "mode": Mode(), "device": CPU, "seed": 0} | changes
    return RobustValidation(near_border(), Brightness(), **options)


def test_the_adversaries_are_8_bit_within_budget_and_fool_the_judge() -> None:
    made = validation()
    distance = (made.adversaries - to_float(near_border())).abs().max()
    assert 0.9 * EPS / 255 <= distance <= EPS / 255 + 1e-6
    assert torch.equal(to_8bit(made.adversaries), made.adversaries)
    assert made.undefended == 0


def test_what_changes_nothing_keeps_the_clean_and_loses_the_attacked() -> None:
    scores = validation().measure(nn.Identity())
    assert scores.agrees_clean == 1
    assert scores.agrees_adversary == 0
    assert scores.score == 0.5
    assert scores.psnr_clean == pytest.approx(100)  # the least error that is told apart from none
    assert scores.psnr_adversary == pytest.approx(-20 * math.log10(8 / 255), abs=0.5)


def test_a_constant_answer_is_worth_the_share_of_its_class() -> None:
    class Black(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * 0

    scores = validation().measure(Black())
    assert (scores.agrees_clean, scores.agrees_adversary) == (0.5, 0.5)
    assert scores.psnr_clean < 10


def test_the_score_is_the_mean_of_the_two_agreements_and_the_best_is_kept() -> None:
    made = validation()
    nothing = nn.Identity()
    nothing.register_parameter("weight", nn.Parameter(torch.tensor(7.0)))
    assert made.consider(5, nothing)["score"] == 0.5
    assert made.best is not None
    assert made.best["weight"] == 7
    # What lies between photo and border on both sides: right on the clean, and half of the attacked.
    half = Leaning()
    assert 0.5 < made.consider(10, half)["score"] < 1
    assert made.consider(15, nothing)["score"] == 0.5
    assert made.best["weight"] == 3
    report = made.report()
    assert [row["step"] for row in report["scores"]] == [5, 10, 15]
    assert report["best"]["step"] == 10
    assert report["photos"] == 8


class Leaning(nn.Module):
    """Darkens: the dark keep their answer, attacked or not; the bright keep it where they were bright enough."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, images: Tensor) -> Tensor:
        return images - 6.5 / 255


def test_of_equal_scores_the_later_is_kept() -> None:
    made = validation()
    for step, weight in ((5, 1.0), (10, 2.0)):
        made.consider(step, Rounded(weight))
    assert made.best is not None
    assert made.best["weight"] == 2


def test_it_is_due_every_few_steps_and_at_the_end() -> None:
    made = validation(every=5)
    assert [done for done in range(1, 13) if made.is_due(done, ends=done == 12)] == [5, 10, 12]


def test_it_leaves_the_candidate_and_the_random_state_as_they_were() -> None:
    made, module = validation(mode=Mode(0.1, 2)), nn.Sequential(nn.BatchNorm2d(3)).train()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    made.measure(module)
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_can_be_compared_from_one_time_to_the_next_and_after_a_resume() -> None:
    mode = Mode(noise_std=0.1, draws=2)
    made, other = validation(mode=mode), validation(mode=mode)
    first = made.consider(5, Rounded(1.0))
    assert made.consider(10, Rounded(2.0)) == first
    other.restore(made.state())
    assert other.history == made.history
    assert other.consider(15, Rounded(3.0)) == first
    assert validation(mode=mode, seed=1).measure(nn.Identity()) != validation(mode=mode).measure(nn.Identity())


def test_more_draws_are_averaged() -> None:
    psnr = [validation(mode=Mode(0.1, draws)).measure(nn.Identity()).psnr_clean for draws in (1, 8)]
    assert psnr[1] - psnr[0] == pytest.approx(10 * math.log10(8), abs=1)


def recipe(**changes: Any) -> PurifierRecipe:
    facts: dict[str, Any] = {"name": "p", "summary": "p", "architecture": "nrp_lite", "feature_network": "f"}
    return PurifierRecipe(**(facts | {"steps": 1, "learning_rate": 1e-3} | changes))


def test_the_mode_is_the_recipes_default() -> None:
    modes = {"noise": {"noise_std": 0.2, "draws": 4}, "jpeg": {"jpeg": 50}, "odd": {"colour": 1}}
    assert Mode.default_of(recipe()) == Mode()
    assert Mode.default_of(recipe(modes=modes, default_mode="noise")) == Mode(0.2, 4)
    assert Mode.default_of(recipe(default_mode="published")) == Mode(0.05, ball=16.0)
    for name in ("odd", "absent"):
        with pytest.raises(RecipeError, match=f"{name}.*not described"):
            Mode.default_of(recipe(modes=modes, default_mode=name))


def test_a_mode_does_what_the_service_does() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Mode().applied(images, torch.Generator()), images)
    noisy = Mode(0.05, ball=16.0).applied(images, torch.Generator().manual_seed(0))
    assert (noisy - images).abs().max() <= 16 / 255 + 1e-6
    assert 0 <= noisy.min() <= noisy.max() <= 1
    squeezed = Mode(jpeg=10).applied(images, torch.Generator())
    assert (squeezed - images).abs().mean() > 0.05
