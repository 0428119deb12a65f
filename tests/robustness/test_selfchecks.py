from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.inference import PUBLISHED, STATIC, InferenceMode
from robustness.adversaries import outside_budget
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.defences import Role
from robustness.errors import EvaluationError
from robustness.observations import Attacker, Observation, Scenario
from robustness.scores import Score, accuracy
from robustness.selfchecks import (
    budget_warnings,
    draw_warnings,
    exceeds,
    gradient_warnings,
    loss_warnings,
    masking_warnings,
    resubmission_warnings,
    resubmissions,
    strongest,
    transfer_warnings,
    unbounded_warnings,
)


def first(right: int, count: int = 50) -> Tensor:
    """The first ``right`` of ``count`` images are right."""
    return torch.arange(count) < right


def last(right: int, count: int = 50) -> Tensor:
    return first(right, count).flip(0)


def seen(
    correct: Tensor,
    *,
    attack: str = "DIM",
    attacker: Attacker = "white box",
    eps: int = 8,
    defence: str = "none",
    score: Score | None = None,
) -> Observation:
    role: Role = "none" if defence == "none" else "purifier"
    surrogate = "vgg" if attacker == "transfer" else None
    scenario = Scenario(attack, eps, attacker, surrogate)
    return Observation(scenario, "victim", defence, role, score or accuracy(correct))


def mean_precision(percent: float) -> Score:
    return Score("mAP@0.5", percent, (percent - 5, percent + 5), 20)


@pytest.fixture
def toy() -> tuple[Knowledge, Tensor, nn.Module]:
    """What the holder of a small linear classifier knows of sixteen images, and those images."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    images = 0.3 + 0.4 * torch.rand(16, 3, 4, 4)
    labels = network(images).argmax(1)
    known = Knowledge(loss=lambda x: F.cross_entropy(network(x), labels, reduction="none"), labels=labels)
    return known, images, network


def pgd(known: Knowledge, images: Tensor, eps: float, iterations: int) -> Tensor:
    return PGD(eps, iterations=iterations)(images, known, torch.Generator().manual_seed(0))


def test_an_unbounded_attack_that_leaves_more_than_chance_is_reported() -> None:
    (warning,) = unbounded_warnings(seen(first(10), eps=255), chance=10.0)
    assert "still 20.0 %" in warning
    assert "guessing gets 10.0 %" in warning


@pytest.mark.parametrize("right", [0, 5])
def test_an_unbounded_attack_that_leaves_chance_or_less_is_not(right: int) -> None:
    assert unbounded_warnings(seen(first(right), eps=255), chance=10.0) == []


def test_a_bounded_attack_cannot_be_checked_as_an_unbounded_one() -> None:
    with pytest.raises(EvaluationError, match="eps 255"):
        unbounded_warnings(seen(first(0), eps=16), chance=10.0)


def test_a_real_attack_passes_the_checks_of_bound_loss_budget_and_gradient(
    toy: tuple[Knowledge, Tensor, nn.Module],
) -> None:
    known, images, network = toy
    assert known.loss is not None
    found = pgd(known, images, 255, 10)
    correct = network(found).argmax(1) == known.labels
    assert unbounded_warnings(seen(correct, eps=255), chance=25.0) == []
    losses = {count: known.loss(pgd(known, images, 8, count)).detach() for count in (1, 10, 50)}
    assert losses[1].mean() < losses[10].mean()
    assert loss_warnings("PGD", losses) == []
    outside = outside_budget(pgd(known, images, 8, 10), images, 8)
    assert budget_warnings("PGD", outside) == []
    leaf = images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(known.loss(leaf).sum(), leaf)
    norms = gradient.flatten(1).norm(dim=1)
    assert gradient_warnings("PGD", norms == 0) == []


def test_a_loss_that_falls_is_reported_once_for_each_fall() -> None:
    losses = {
        100: torch.full((8,), 1.0),
        1: torch.full((8,), 2.0),
        10: torch.full((8,), 3.0),
        50: torch.full((8,), 2.5),
    }
    warnings = loss_warnings("PGD, eps 8/255 on victim", losses)
    assert len(warnings) == 2
    assert "from 3 after 10 iterations to 2.5 after 50" in warnings[0]
    assert "after 100" in warnings[1]


def test_a_loss_that_falls_within_its_noise_is_not_reported() -> None:
    start = torch.rand(8) + 2
    assert loss_warnings("PGD", {1: start, 10: 0.97 * start}) == []
    one_image = torch.zeros(8)
    one_image[0] = 10.0
    assert loss_warnings("PGD", {1: start + 10, 10: start + 10 - one_image}) == []


def test_a_loss_below_zero_may_rise_towards_it() -> None:
    assert loss_warnings("PGD", {1: torch.full((8,), -2.0), 10: torch.full((8,), -1.0)}) == []
    assert loss_warnings("PGD", {1: torch.full((8,), -1.0), 10: torch.full((8,), -2.0)}) != []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported(value: float) -> None:
    (warning,) = loss_warnings("PGD", {1: torch.ones(4), 10: torch.tensor([1.0, 2, 3, value])})
    assert "not finite after 10 iterations" in warning


def test_one_number_of_iterations_is_no_comparison() -> None:
    with pytest.raises(EvaluationError, match="at least two"):
        loss_warnings("PGD", {10: torch.ones(4)})


def test_transfer_that_beats_the_white_box_is_reported() -> None:
    white, transfer = seen(first(30)), seen(first(20), attacker="transfer")
    (warning,) = transfer_warnings([white], [transfer])
    assert "DIM from vgg, eps 8/255 on victim leaves 40.0 %" in warning
    assert "60.0 %" in warning


@pytest.mark.parametrize(
    "transfer",
    [
        seen(first(40), attacker="transfer"),
        seen(first(28), attacker="transfer"),
        seen(last(28), attacker="transfer"),
        seen(first(0), attacker="transfer", attack="SSP"),
        seen(first(0), attacker="transfer", eps=16),
        seen(first(0), attacker="transfer", defence="purifier"),
    ],
    ids=["weaker", "hardly stronger", "on others", "another attack", "another eps", "behind a defence"],
)
def test_transfer_that_does_not_beat_the_same_white_box_is_not(transfer: Observation) -> None:
    assert transfer_warnings([seen(first(30))], [transfer]) == []


def test_a_metric_without_images_is_compared_by_its_intervals() -> None:
    white = seen(first(0), score=mean_precision(40))
    close, far = (seen(first(0), attacker="transfer", score=mean_precision(value)) for value in (31, 29))
    assert transfer_warnings([white], [close]) == []
    assert "29.0 %" in transfer_warnings([white], [far])[0]


def aware(correct: Tensor, attack: str = "BPDA PGD-20") -> Observation:
    return seen(correct, attack=attack, attacker="aware", defence="purifier")


def test_attackers_who_know_less_and_break_more_are_reported() -> None:
    unaware = [seen(first(20), defence="purifier"), seen(first(45), attack="FGSM", defence="purifier")]
    (warning,) = masking_warnings(unaware, [aware(first(40)), aware(first(30), "full-gradient PGD-20")])
    assert "DIM, eps 8/255 on victim behind purifier leaves 40.0 %" in warning
    assert "know it 60.0 %" in warning


def test_attackers_who_know_more_are_taken_together() -> None:
    both = [aware(first(30)), aware(last(30), "full-gradient PGD-20")]
    assert masking_warnings([seen(first(10), defence="purifier")], both) == []
    assert len(masking_warnings([seen(first(10), defence="purifier")], both[:1])) == 1


def test_fewer_aware_images_are_compared_with_the_first_of_the_others() -> None:
    assert masking_warnings([seen(last(20), defence="purifier")], [aware(first(20, 20))]) != []
    assert masking_warnings([seen(first(20), defence="purifier")], [aware(first(20, 20))]) == []


def test_another_defence_or_budget_is_not_compared() -> None:
    others = [seen(first(0), defence="JPEG 75"), seen(first(0), defence="purifier", eps=16)]
    assert masking_warnings(others, [aware(first(50))]) == []


def test_the_strongest_keeps_the_metric_and_the_smaller_score() -> None:
    one, other = (
        Score("pixel accuracy", 50.0, (40.0, 60.0), 2, torch.tensor(each).double()) for each in ([0.2, 0.8], [0.6, 0.4])
    )
    assert strongest(one, other).metric == "pixel accuracy"
    assert strongest(one, other).percent == pytest.approx(30.0)
    assert strongest(mean_precision(30), mean_precision(20)).percent == 20
    assert not exceeds(strongest(one, other), one)


def test_useless_gradients_are_reported() -> None:
    (warning,) = gradient_warnings("PGD", first(3))
    assert "3 of 50 images" in warning


@pytest.mark.parametrize(("blind", "count"), [(0, 50), (2, 50), (20, 1000)])
def test_a_few_useless_gradients_are_not(blind: int, count: int) -> None:
    assert gradient_warnings("PGD", first(blind, count)) == []


def test_adversaries_outside_the_budget_are_reported() -> None:
    images = torch.rand(4, 3, 5, 5)
    adversaries = images.clone()
    adversaries[1] += 9 / 255
    (warning,) = budget_warnings("PGD", outside_budget(adversaries.clamp(0, 1), images, 8))
    assert "1 of 4" in warning


@pytest.mark.parametrize(
    ("mode", "draws", "decisions"),
    [
        (STATIC, 1, 1),
        (PUBLISHED, 1, 10),
        (InferenceMode(noise_std=0.2, draws=8), 8, 1),
    ],
    ids=["static", "many decisions", "many draws"],
)
def test_what_was_judged_on_enough_draws_is_not_reported(mode: InferenceMode, draws: int, decisions: int) -> None:
    assert draw_warnings("purifier", mode, draws=draws, decisions=decisions) == []


def test_a_randomised_defence_judged_on_one_draw_is_reported() -> None:
    (warning,) = draw_warnings("purifier published", PUBLISHED, draws=1, decisions=1)
    assert "one draw" in warning


def test_other_draws_than_the_modes_are_reported() -> None:
    (warning,) = draw_warnings("purifier", InferenceMode(noise_std=0.2, draws=8), draws=2, decisions=10)
    assert "2 draws a decision" in warning
    assert "makes 8" in warning


def test_resubmissions_count_single_majority_and_worst() -> None:
    correct = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]]).bool()
    found = resubmissions(correct)
    assert {key: score.percent for key, score in found.items()} == {"single": 56.25, "majority": 50.0, "worst": 25.0}
    assert {score.count for score in found.values()} == {4}


@pytest.mark.parametrize("shape", [(1, 8), (8,), (2, 0)])
def test_one_decision_is_no_resubmission(shape: tuple[int, ...]) -> None:
    with pytest.raises(EvaluationError, match="at least two decisions"):
        resubmissions(torch.ones(shape, dtype=torch.bool))


def test_trying_again_that_pays_for_an_attacker_is_reported() -> None:
    generator = torch.Generator().manual_seed(0)
    attacked = torch.rand(10, 40, generator=generator) < 0.7
    (warning,) = resubmission_warnings("purifier", attacked, torch.ones_like(attacked))
    assert "10 times" in warning
    assert "100.0 % to 100.0 %" in warning


def test_trying_again_that_costs_clean_images_as_much_is_not_reported() -> None:
    generator = torch.Generator().manual_seed(0)
    attacked, clean = (torch.rand(10, 40, generator=generator) < 0.9 for _ in range(2))
    assert resubmission_warnings("purifier", attacked, clean) == []
    assert resubmission_warnings("purifier", torch.zeros_like(clean), torch.ones_like(clean)) == []


def test_the_clean_control_must_match() -> None:
    with pytest.raises(EvaluationError, match="clean control"):
        resubmission_warnings("purifier", torch.ones(3, 4).bool(), torch.ones(3, 5).bool())
