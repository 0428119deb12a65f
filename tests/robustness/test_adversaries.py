from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.adversaries import GradientWatch, Threat, craft, outside_budget, watched, white_box
from robustness.attacks.attack import Attack, Knowledge, Network
from robustness.attacks.pgd import PGD
from robustness.conditions import Conditions, Precision
from robustness.examples import Examples, Truths
from robustness.progress import Progress
from robustness.victims.classification import Classifier

CONDITIONS = Conditions(seed=0, batch=4, device=torch.device("cpu"))
QUIET = Progress(quiet=True)


def photos(count: int = 10) -> Examples:
    """Photos of which the first is black and the last white."""
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[0], pixels[-1] = 0, 255
    return Examples(pixels, {"labels": torch.arange(count) % 3}, tuple(f"{i}" for i in range(count)))


def threat(logits: Network, eps: int = 4, attack: Attack | None = None) -> Threat:
    def learn(truths: Truths, _: torch.Generator) -> Knowledge:
        return Knowledge(loss=lambda images: F.cross_entropy(logits(images), truths["labels"], reduction="none"))

    return Threat(attack or PGD(eps, iterations=3), "victim", "weights", learn)


def fair(images: Tensor) -> Tensor:
    return torch.stack([images[:, c].flatten(1).mean(1) for c in range(3)], dim=1) * 20


@dataclass(frozen=True)
class Moves(Attack):
    """Adds one value everywhere, whatever its budget."""

    eps: float
    by: float

    @property
    def name(self) -> str:
        return "moves"

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        del knowledge, generator
        return images + self.by


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("eps", [1, 4, 16])
def test_crafted_photos_are_8_bit_within_the_budget(eps: int, precision: str) -> None:
    conditions = replace(CONDITIONS, attack_precision=cast(Precision, precision))
    found = craft(threat(fair, eps), photos(), conditions, QUIET)
    distance = (found["pixels"].int() - photos().pixels.int()).abs()
    assert found["pixels"].dtype == torch.uint8
    assert 0 < distance.max() <= eps
    assert not found["broken"].any()
    assert not found["blind"].any()


def test_crafting_lowers_the_true_class_and_repeats_with_the_seed() -> None:
    first = craft(threat(fair), photos(), CONDITIONS, QUIET)["pixels"]
    again = craft(threat(fair), photos(), CONDITIONS, QUIET)["pixels"]
    other = craft(threat(fair), photos(), replace(CONDITIONS, seed=1), QUIET)["pixels"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rows = torch.arange(1, 10)
    labels = photos().truths["labels"][1:]
    before = fair(photos().pixels / 255).log_softmax(1)[rows, labels]
    assert (fair(first / 255).log_softmax(1)[rows, labels] < before).all()


def test_a_resumed_photo_does_not_depend_on_the_batches_before_it() -> None:
    whole = craft(threat(fair), photos(), CONDITIONS, QUIET)["pixels"]
    assert torch.equal(craft(threat(fair), photos().first(8), CONDITIONS, QUIET)["pixels"], whole[:8])


def test_a_batch_is_attacked_with_its_own_truths() -> None:
    seen: list[list[int]] = []

    def learn(truths: Truths, _: torch.Generator) -> Knowledge:
        seen.append(truths["labels"].tolist())
        return Knowledge()

    craft(Threat(Moves(1, 0), "v", "w", learn), photos(), CONDITIONS, QUIET)
    assert seen == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0]]


def test_the_attacker_draws_from_seeds_of_its_own_at_each_batch_and_threat() -> None:
    seeds: list[int] = []

    def learn(_: Truths, generator: torch.Generator) -> Knowledge:
        seeds.append(generator.initial_seed())
        return Knowledge()

    first = Threat(Moves(1, 0), "v", "w", learn)
    others = (replace(first, target="x"), replace(first, attack=Moves(2, 0)), first)
    for one in (first, *others):
        craft(one, photos(), CONDITIONS, QUIET)
    assert seeds[:3] == seeds[-3:]
    assert len(set(seeds)) == 9


def test_what_leaves_the_budget_is_marked_broken_image_by_image() -> None:
    assert craft(threat(fair, attack=Moves(4, 5 / 255)), photos(), CONDITIONS, QUIET)["broken"].all()
    kept = craft(threat(fair, attack=Moves(4, 3 / 255)), photos(), CONDITIONS, QUIET)["broken"]
    assert kept.tolist() == [bool(p.max() > 252) for p in photos().pixels]  # those leave [0,1]


def test_useless_gradients_are_noticed() -> None:
    def stepped(images: Tensor) -> Tensor:
        return fair((images * 4).round() / 4)

    assert craft(threat(stepped), photos(), CONDITIONS, QUIET)["blind"].all()


def test_gradients_that_are_not_finite_are_noticed_and_leave_the_budget_whole() -> None:
    def broken(images: Tensor) -> Tensor:
        return fair(images) * float("nan")

    found = craft(threat(broken), photos(), CONDITIONS, QUIET)
    assert found["blind"].all()
    assert not found["broken"].any()
    assert (found["pixels"].int() - photos().pixels.int()).abs().max() <= 4


def test_the_watch_sees_one_bad_image_among_good_ones() -> None:
    watch = GradientWatch(3)
    images = torch.ones(3, 3, 2, 2, requires_grad=True)
    weights = torch.tensor([1.0, 0.0, 2.0]).view(3, 1, 1, 1)
    torch.autograd.grad((watch(images) * weights).sum(), images)
    assert watch.blind.tolist() == [False, True, False]


def test_the_watch_sees_a_gradient_too_small_to_be_a_direction() -> None:
    watch = GradientWatch(2)
    images = torch.ones(2, 3, 2, 2, requires_grad=True)
    scale = torch.tensor([1e-13, 1e-25]).view(2, 1, 1, 1)
    torch.autograd.grad((watch(images) * scale).sum(), images)
    assert watch.blind.tolist() == [False, True]


def test_a_gradient_that_vanishes_after_the_first_step_is_no_doubt() -> None:
    watch = GradientWatch(2)
    for scale, expected in ((1.0, [False, False]), (0.0, [False, False]), (float("inf"), [True, True])):
        images = torch.ones(2, 3, 2, 2, requires_grad=True)
        torch.autograd.grad((watch(images) * scale).sum(), images)
        assert watch.blind.tolist() == expected


@pytest.mark.parametrize("part", ["loss", "targeted_loss", "logits", "features", "activations"])
def test_whatever_is_differentiated_is_watched_and_says_the_same(part: str) -> None:
    def network(images: Tensor) -> Tensor:
        return images.square().flatten(1).sum(1)

    calls: dict[str, Callable[[Tensor], Tensor | list[Tensor]]] = {
        "loss": network,
        "targeted_loss": network,
        "logits": fair,
        "features": network,
        "activations": lambda images: [network(images)],
    }
    watch = GradientWatch(2)
    known = watched(Knowledge(**{part: calls[part]}), watch, CONDITIONS)  # type: ignore[arg-type]
    assert [name for name in calls if getattr(known, name) is not None] == [part]
    images = torch.zeros(2, 3, 4, 4)
    images[1] = 1.0
    images.requires_grad_(True)
    found = getattr(known, part)(images)
    expected = calls[part](images)
    both = zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]
    for one, other in both:
        assert torch.equal(one, other)
        torch.autograd.grad(one.sum(), images, retain_graph=True)
    assert watch.blind.tolist() == [part != "logits", False]  # the square is flat at zero, the mean is not


def test_the_attackers_networks_run_in_its_precision() -> None:
    seen: list[torch.dtype] = []

    def network(images: Tensor) -> Tensor:
        out = F.conv2d(images, torch.ones(1, 3, 1, 1))
        seen.append(out.dtype)
        return out.float().flatten(1).sum(1)

    for precision in ("float32", "bfloat16"):
        conditions = replace(CONDITIONS, attack_precision=precision, precision="float32")
        known = watched(Knowledge(loss=network), GradientWatch(1), conditions)
        assert known.loss is not None
        known.loss(torch.rand(1, 3, 4, 4))
    assert seen == [torch.float32, torch.bfloat16]


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
    one = threat(fair)
    base = one.fingerprint("digest", CONDITIONS)
    assert one.fingerprint("digest", replace(CONDITIONS, **changed)) != base  # type: ignore[arg-type]
    assert one.fingerprint("other photos", CONDITIONS) != base
    assert replace(one, identity="other weights").fingerprint("digest", CONDITIONS) != base
    for attack in (PGD(8, iterations=3), PGD(4, iterations=4), PGD(4, targeted=True, iterations=3)):
        assert replace(one, attack=attack).fingerprint("digest", CONDITIONS) != base


def test_the_precision_of_judgement_is_not_the_attackers() -> None:
    one = threat(fair)
    lowered = replace(CONDITIONS, precision="bfloat16")
    assert one.fingerprint("digest", lowered) == one.fingerprint("digest", CONDITIONS)


def test_a_threat_says_who_knows_what() -> None:
    one = threat(fair)
    assert (one.scenario.attack, one.scenario.eps) == ("PGD-3 untargeted", 4)
    assert (one.scenario.attacker, one.scenario.surrogate) == ("white box", None)
    assert replace(one, attacker="aware").scenario.surrogate is None
    assert replace(one, attacker="transfer").scenario.surrogate == "victim"
    assert one.title == "PGD-3 untargeted, eps 4/255 on victim"


def test_a_white_box_has_the_victims_own_loss(victims: tuple[Classifier, ...], examples: Examples) -> None:
    one = white_box(PGD(8), victims[0])
    assert (one.target, one.identity) == ("victim-a", victims[0].identity)
    images = examples.pixels[:5] / 255
    truths = {"labels": examples.truths["labels"][:5]}
    known = one.learn(truths, torch.Generator())
    assert known.loss is not None
    torch.testing.assert_close(known.loss(images), victims[0].loss(images.unsqueeze(1), truths))
