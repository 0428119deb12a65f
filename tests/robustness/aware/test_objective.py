"""The attacker's gradient: exactly autograd's through the parts, the mean over draws, or BPDA's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_store.jpeg import Rounding, jpeg, softly_rounded
from model_store.pixels import to_8bit
from robustness.aware.defended import FLOAT32, Defended, Mode
from robustness.aware.losses import LOSSES, LossName
from robustness.aware.objective import Noise, Objective, Route, fresh_noise, known_noise
from robustness.errors import AttackError
from tests.robustness.aware.conftest import NOISY, MakeDefended, Wavy

COMPRESSED = Mode(noise_std=0.05, draws=2, ball=16.0, jpeg=30)
NOISE = torch.randn(6, 3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
LABELS = torch.arange(6) % 3


def objective(
    defended: Defended, *, loss: LossName = "CE", route: Route = "exact", noise: Noise | None = None, chunk: int = 64
) -> Objective:
    return Objective(defended, LABELS, LOSSES[loss], route, noise or known_noise(NOISE), FLOAT32, chunk)


def gradient(of: Objective, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_(True)
    value = of(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


@pytest.mark.parametrize("loss", ["CE", "margin"])
def test_the_exact_gradient_is_autograds_through_jpeg_noise_purifier_and_classifier(
    loss: LossName, images: Tensor, make_defended: MakeDefended
) -> None:
    defended = make_defended(COMPRESSED, Wavy())
    leaf = images.clone().requires_grad_(True)
    compressed = jpeg(leaf, torch.full((6,), 30), softly_rounded).unsqueeze(1)
    noisy = (compressed + (0.05 * NOISE).clamp(-16 / 255, 16 / 255)).clamp(0, 1).flatten(0, 1)
    logits = defended.classifier(Wavy()(noisy).clamp(0, 1))
    expected = LOSSES[loss](logits, LABELS.repeat_interleave(3)).view(6, 3).mean(dim=1)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    found, there = gradient(objective(defended, loss=loss), images)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(there, slope)
    assert slope.abs().max() > 0


def test_what_is_in_flight_changes_nothing(images: Tensor, make_defended: MakeDefended) -> None:
    defended = make_defended(COMPRESSED, Wavy())
    whole, parts = (gradient(objective(defended, chunk=chunk), images) for chunk in (64, 5))
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("route", ["exact", "BPDA"])
def test_the_gradient_is_the_mean_of_the_draws_gradients(
    route: Route, images: Tensor, make_defended: MakeDefended
) -> None:
    defended = make_defended(NOISY, Wavy())
    each = [
        gradient(objective(defended, route=route, noise=known_noise(NOISE[:, place : place + 1])), images)
        for place in range(3)
    ]
    value, slope = gradient(objective(defended, route=route), images)
    torch.testing.assert_close(value, torch.stack([one[0] for one in each]).mean(dim=0))
    torch.testing.assert_close(slope, torch.stack([one[1] for one in each]).mean(dim=0))
    assert not torch.allclose(each[0][1], each[1][1])


def test_bpda_goes_forward_through_the_defence_and_back_as_if_there_were_none(
    images: Tensor, make_defended: MakeDefended
) -> None:
    defended = make_defended(Mode(jpeg=20), Wavy())
    noise = known_noise(torch.zeros(6, 1, 1, 1, 1))
    there = Wavy()(jpeg(images, torch.full((6,), 20))).clamp(0, 1).requires_grad_(True)
    losses = LOSSES["CE"](defended.classifier(there), LABELS)
    (expected,) = torch.autograd.grad(losses.sum(), there)
    value, slope = gradient(objective(defended, route="BPDA", noise=noise), images)
    torch.testing.assert_close((value, slope), (losses.detach(), expected))
    assert not torch.allclose(gradient(objective(defended, noise=noise), images)[1], expected)


def test_without_a_gradient_the_value_is_the_same_and_parameters_never_get_one(
    images: Tensor, make_defended: MakeDefended
) -> None:
    defended = make_defended()
    value, _ = gradient(objective(defended), images)
    torch.testing.assert_close(objective(defended)(images), value)
    with torch.no_grad():
        torch.testing.assert_close(objective(defended)(images.clone().requires_grad_(True)), value)
    assert all(parameter.grad is None for parameter in defended.classifier.parameters())


def test_jpeg_is_computed_once_whatever_the_draws(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(batch: Tensor, quality: Tensor, quantised: Rounding) -> Tensor:
        calls.append(len(batch))
        return jpeg(batch, quality, quantised)

    monkeypatch.setattr("robustness.aware.defended.jpeg", counted)
    defended = Defended("toy", "hue", COMPRESSED, "", "", nn.Identity(), nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    gradient(objective(defended, chunk=4), images)
    assert calls == [6]


def test_the_forward_pass_sees_eight_bits(images: Tensor, make_defended: MakeDefended) -> None:
    static = make_defended(Mode())
    noise = known_noise(torch.zeros(6, 1, 1, 1, 1))
    shifted = images + 0.3 / 255
    torch.testing.assert_close(
        objective(static, noise=noise)(shifted), objective(static, noise=noise)(to_8bit(shifted))
    )


def test_fresh_noise_differs_from_call_to_call_and_known_noise_does_not(images: Tensor) -> None:
    fresh = fresh_noise(3, torch.Generator().manual_seed(0))
    first = fresh(images)
    assert first.shape == (6, 3, 3, 16, 16)
    assert not torch.equal(first, fresh(images))
    assert torch.equal(first, fresh_noise(3, torch.Generator().manual_seed(0))(images))
    assert torch.equal(known_noise(NOISE)(images), NOISE)


def test_a_purifier_that_hides_its_gradient_is_refused_by_name(images: Tensor, make_defended: MakeDefended) -> None:
    class Detached(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach()

    defended = make_defended(NOISY, Detached())
    with pytest.raises(AttackError, match=r"toy has no gradient of its own; attack it by BPDA"):
        gradient(objective(defended), images)
    assert gradient(objective(defended, route="BPDA"), images)[1].abs().max() > 0
