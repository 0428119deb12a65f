"""Supervised training on adversaries: what the adversarially trained classifier is fitted to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.photos import read_photos
from training.recipe import SupervisedRecipe
from training.supervised import SupervisedTraining

CPU = torch.device("cpu")


def training(photos: Path, **changes: object) -> SupervisedTraining:
    recipe = SupervisedRecipe(
        name="tiny",
        summary="tiny",
        architecture="resnet_small",
        arguments={"widths": [4, 4], "blocks": 1},
        epochs=4,
        side=24,
        crop_start=16,
        crop=16,
        short_side=18,
        batch=4,
        learning_rate=1e-3,
        precision="float32",
        **changes,  # type: ignore[arg-type]
    )
    torch.manual_seed(0)
    return SupervisedTraining(recipe, read_photos([photos], 24, quiet=True), CPU)


def fitted_to(work: SupervisedTraining, number: int) -> Tensor:
    """The images that a step's weights are fitted to: those of its one pass in training mode."""
    seen: list[Tensor] = []

    def hear(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        if module.training:
            seen.append(inputs[0].detach().clone())

    with work.module.register_forward_hook(hear):
        work.step(number)
    (images,) = seen
    return images


@pytest.mark.parametrize("eps", [2.0, 8.0])
def test_adversarial_training_is_fitted_to_adversaries_within_the_budget(photos: Path, eps: float) -> None:
    clean = training(photos).batch(3)[0]
    attacked = fitted_to(training(photos, adversarial_eps=eps, adversarial_ramp=0), 3)
    distance = (attacked - clean).abs()
    assert distance.max() <= eps / 255 + 1e-6
    assert distance.mean() > 0.3 * eps / 255
    assert 0 <= attacked.min() <= attacked.max() <= 1


def test_the_adversaries_raise_the_loss_of_the_module_as_it_is(photos: Path) -> None:
    work = training(photos, adversarial_eps=8.0, adversarial_iterations=4)
    images, labels = work.batch(0)
    before = {key: value.clone() for key, value in work.module.state_dict().items()}
    attacked = fitted_to(work, 0)
    work.module.load_state_dict(before)
    work.module.eval()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(work.module(x), labels).item() for x in (images, attacked)]
    assert losses[1] > losses[0]


def test_without_a_budget_the_photos_themselves_are_learnt(photos: Path) -> None:
    work = training(photos)
    assert torch.equal(fitted_to(work, 0), work.batch(0)[0])


def test_the_module_can_still_be_trained_afterwards(photos: Path) -> None:
    work = training(photos, adversarial_eps=8.0)
    before = [p.clone() for p in work.module.parameters()]
    work.step(0)
    assert work.module.training
    assert all(p.requires_grad for p in work.module.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, work.module.parameters(), strict=True))


def test_a_step_does_not_depend_on_those_before_it_but_for_the_weights(photos: Path) -> None:
    one, other = (training(photos, adversarial_eps=8.0) for _ in range(2))
    one.step(0)
    other.restore(one.state())
    torch.rand(7)
    assert torch.equal(fitted_to(one, 1), fitted_to(other, 1))


def test_the_budget_grows_to_the_whole_over_the_ramp(photos: Path) -> None:
    work = training(photos, adversarial_eps=8.0, adversarial_ramp=0.5)
    budgets = [work.eps_at(number) for number in range(work.total)]
    assert budgets == sorted(budgets)
    assert 0 < budgets[0] <= 8 / (0.5 * work.total) + 1e-6
    assert budgets[work.total // 2] == budgets[-1] == 8.0
    small = (fitted_to(work, 0) - training(photos).batch(0)[0]).abs()
    assert small.max() <= budgets[0] / 255 + 1e-6
