from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD

Seeded = Callable[..., torch.Generator]
Linear = Callable[[Tensor], Callable[[Tensor], Tensor]]


def test_pgd_on_a_linear_model_moves_against_its_label_or_towards_its_target(seeded: Seeded) -> None:
    weights = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])

    def entropy(label: int) -> Callable[[Tensor], Tensor]:
        return lambda x: F.cross_entropy(x.flatten(1) @ weights.T, torch.tensor([label]), reduction="none")

    images = torch.full((1, 1, 1, 2), 0.5)
    wrong = entropy(1)
    knowledge = Knowledge(loss=entropy(0), targeted_loss=lambda x: -wrong(x))
    for targeted in (False, True):  # with two classes, away from one is towards the other
        found = PGD(4, targeted=targeted, start="clean")(images, knowledge, seeded())
        assert torch.allclose((found - images).flatten() * 255, torch.tensor([-4.0, 4.0]), atol=1e-4)


@pytest.mark.parametrize(
    ("eps", "targeted", "moved"),
    [(2.0, False, 1.0), (8.0, False, 2.0), (16.0, False, 4.0), (16.0, True, 2.0), (8.0, True, 1.0)],
)
def test_the_default_steps(eps: float, *, targeted: bool, moved: float, linear: Linear, seeded: Seeded) -> None:
    loss = linear(torch.tensor(1.0))
    images = torch.full((1, 1, 1, 1), 0.5)
    attack = PGD(eps, targeted=targeted, iterations=1, start="clean")
    found = attack(images, Knowledge(loss=loss, targeted_loss=loss), seeded())
    assert float((found - images) * 255) == pytest.approx(moved, abs=1e-4)


def two_slopes(candidates: Tensor) -> Tensor:
    """A valley at 0.5 that is twice as steep on its dark side, so that the start decides which height is reached."""
    offset = candidates.flatten(1).sum(1) - 0.5
    return torch.maximum(offset, -2 * offset)


def terraces(candidates: Tensor) -> Tensor:
    """Many heights and no slope, so that each run stays where it starts."""
    return candidates.detach().mul(1e4).sin().flatten(1).sum(1) + 0 * candidates.sum()


@pytest.mark.parametrize("loss", [two_slopes, terraces])
def test_restarts_keep_the_highest_loss_of_each_image(loss: Callable[[Tensor], Tensor], seeded: Seeded) -> None:
    images = torch.full((20, 1, 1, 1), 0.5)
    generator, knowledge = seeded(), Knowledge(loss=loss)
    runs = torch.stack([PGD(8)(images, knowledge, generator) for _ in range(3)])
    chosen = torch.stack([loss(run) for run in runs]).argmax(0)
    assert len(set(chosen.tolist())) > 1
    assert torch.equal(PGD(8, restarts=3)(images, knowledge, seeded()), runs[chosen, torch.arange(20)])


def test_names_state_iterations_restarts_and_what_is_not_default() -> None:
    assert PGD(8).name == "PGD-10 untargeted"
    assert PGD(8, targeted=True, iterations=50, restarts=2).name == "PGD-50 x2 targeted"
    assert PGD(8, step=2.0, start="clean").name == "PGD-10 untargeted (step 2, start clean)"
