from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from robustness.adversaries import Attack, GradientWatch, craft, doubts, outside_budget
from robustness.attacks import Objective
from robustness.conditions import Conditions, Precision
from robustness.photos import Photos
from robustness.progress import Progress

CONDITIONS = Conditions(seed=0, batch=4, device=torch.device("cpu"))
QUIET = Progress(quiet=True)


def photos(count: int = 10) -> Photos:
    """Photos of which the first is black and the last white."""
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[0], pixels[-1] = 0, 255
    return Photos(pixels, torch.arange(count) % 3, tuple(f"{i}" for i in range(count)))


def attack(logits: Objective, eps: int = 4) -> Attack:
    return Attack("toy", "victim", "weights", eps, iterations=3, logits=lambda _: logits)


def fair(images: Tensor) -> Tensor:
    return torch.stack([images[:, c].flatten(1).mean(1) for c in range(3)], dim=1) * 20


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("eps", [1, 4, 16])
def test_crafted_photos_are_8_bit_within_the_budget(eps: int, precision: str) -> None:
    conditions = replace(CONDITIONS, attack_precision=cast(Precision, precision))
    found = craft(attack(fair, eps), photos(), conditions, QUIET)
    distance = (found["pixels"].int() - photos().pixels.int()).abs()
    assert found["pixels"].dtype == torch.uint8
    assert 0 < distance.max() <= eps
    assert not found["broken"].any()
    assert not found["blind"].any()
    assert doubts(attack(fair, eps), found) == []


def test_crafting_lowers_the_true_class_and_repeats_with_the_seed() -> None:
    first = craft(attack(fair), photos(), CONDITIONS, QUIET)["pixels"]
    again = craft(attack(fair), photos(), CONDITIONS, QUIET)["pixels"]
    other = craft(attack(fair), photos(), replace(CONDITIONS, seed=1), QUIET)["pixels"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rows = torch.arange(1, 10)
    labels = photos().labels[1:]
    before = fair(photos().pixels / 255).log_softmax(1)[rows, labels]
    assert (fair(first / 255).log_softmax(1)[rows, labels] < before).all()


def test_a_resumed_photo_does_not_depend_on_the_batches_before_it() -> None:
    whole = craft(attack(fair), photos(), CONDITIONS, QUIET)["pixels"]
    assert torch.equal(craft(attack(fair), photos().first(8), CONDITIONS, QUIET)["pixels"], whole[:8])


def test_useless_gradients_are_noticed_and_said() -> None:
    def stepped(images: Tensor) -> Tensor:
        return fair((images * 4).round() / 4)

    found = craft(attack(stepped), photos(), CONDITIONS, QUIET)
    assert found["blind"].all()
    assert any("gradient was zero or not finite for 10 of 10" in doubt for doubt in doubts(attack(stepped), found))


def test_gradients_that_are_not_finite_are_noticed_and_leave_the_budget_whole() -> None:
    def broken(images: Tensor) -> Tensor:
        return fair(images) * float("nan")

    found = craft(attack(broken), photos(), CONDITIONS, QUIET)
    assert found["blind"].all()
    assert not found["broken"].any()
    assert (found["pixels"].int() - photos().pixels.int()).abs().max() <= 4
    assert len(doubts(attack(broken), found)) == 1


def test_a_few_useless_gradients_are_tolerated_a_broken_budget_never() -> None:
    blind = torch.zeros(1000, dtype=torch.bool)
    blind[:20] = True
    quiet = {"blind": blind, "broken": torch.zeros(1000, dtype=torch.bool)}
    assert doubts(attack(fair), quiet) == []
    blind[20] = True
    assert len(doubts(attack(fair), quiet)) == 1
    one = {"blind": torch.zeros(1000, dtype=torch.bool), "broken": torch.arange(1000) == 7}
    assert "1 of 1000 adversaries left the budget" in doubts(attack(fair), one)[0]


def test_the_watch_sees_one_bad_image_among_good_ones() -> None:
    watch = GradientWatch(3)
    images = torch.ones(3, 3, 2, 2, requires_grad=True)
    weights = torch.tensor([1.0, 0.0, 2.0]).view(3, 1, 1, 1)
    torch.autograd.grad((watch(images) * weights).sum(), images)
    assert watch.blind.tolist() == [False, True, False]


def test_a_gradient_that_vanishes_after_the_first_step_is_no_doubt() -> None:
    watch = GradientWatch(2)
    for scale, expected in ((1.0, [False, False]), (0.0, [False, False]), (float("inf"), [True, True])):
        images = torch.ones(2, 3, 2, 2, requires_grad=True)
        torch.autograd.grad((watch(images) * scale).sum(), images)
        assert watch.blind.tolist() == expected


def test_the_budget_check_knows_ball_range_and_nan() -> None:
    images = torch.full((5, 3, 2, 2), 0.01)
    found = images.clone()
    found[1, 0, 0, 0] += 5 / 255
    found[2, 0, 0, 0] = -0.001
    found[3, 0, 0, 0] = float("nan")
    found[4] += 4 / 255
    assert outside_budget(found, images, 4).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"batch": 5}, {"attack_precision": "bfloat16"}],
)
def test_whatever_changes_the_adversaries_changes_the_fingerprint(changed: dict[str, object]) -> None:
    one = attack(fair)
    base = one.fingerprint("digest", CONDITIONS)
    assert one.fingerprint("digest", replace(CONDITIONS, **changed)) != base
    assert one.fingerprint("other photos", CONDITIONS) != base
    for field in ({"identity": "other weights"}, {"eps": 8}, {"iterations": 4}, {"targeted": True}):
        assert replace(one, **field).fingerprint("digest", CONDITIONS) != base
