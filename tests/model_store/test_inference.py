from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from model_store.architectures import build
from model_store.inference import PUBLISHED, STANDARD_MODES, STATIC, InferenceMode, PurifierDraws, noisy_draws, seeded

HEAVY = InferenceMode(noise_std=0.2, draws=3)


def test_the_standard_modes_are_the_static_and_the_published_one() -> None:
    assert dict(STANDARD_MODES) == {"static": STATIC, "published": PUBLISHED}
    assert (PUBLISHED.noise_std, PUBLISHED.ball, PUBLISHED.draws) == (0.05, 16.0, 1)
    assert STATIC.static
    assert not PUBLISHED.static


def test_the_published_noise_stays_in_its_ball_and_in_the_pixel_range() -> None:
    image = torch.rand(3, 64, 64)
    image[:, :8], image[:, 8:16] = 0, 1
    (noisy,) = noisy_draws(image, PUBLISHED, seeded(1))
    assert (noisy - image).abs().max() <= 16 / 255 + 1e-6
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_the_published_noise_has_std_0_05_before_the_ball_cuts_it() -> None:
    image = torch.full((3, 200, 200), 0.5)
    (noisy,) = noisy_draws(image, PUBLISHED, seeded(1))
    at_the_edge = ((noisy - image).abs() > 16 / 255 - 1e-6).float().mean().item()
    beyond = 1 - torch.erf(torch.tensor(16 / 255 / 0.05 / 2**0.5)).item()
    assert at_the_edge == pytest.approx(beyond, abs=0.005)


def test_unclipped_noise_has_the_stated_std_and_leaves_the_pixel_range() -> None:
    image = torch.zeros(3, 200, 200)
    noisy = noisy_draws(image, HEAVY, seeded(1))
    assert noisy.shape == (3, *image.shape)
    assert noisy.std().item() == pytest.approx(0.2, rel=0.01)
    assert noisy.min() < 0


def test_draws_are_independent_and_the_first_does_not_depend_on_how_many_follow() -> None:
    image = torch.rand(3, 8, 8)
    three = noisy_draws(image, HEAVY, seeded(1))
    assert not torch.equal(three[0], three[1])
    one = noisy_draws(image, HEAVY.model_copy(update={"draws": 1}), seeded(1))
    assert torch.equal(one[0], three[0])


def test_a_static_mode_adds_nothing() -> None:
    image = torch.rand(3, 8, 8)
    assert torch.equal(noisy_draws(image, InferenceMode(draws=2), seeded(1)), torch.stack([image, image]))


def test_an_image_gets_the_same_noise_whatever_its_neighbours() -> None:
    purifier = PurifierDraws(build("identity"), HEAVY)
    images = torch.rand(3, 3, 8, 8)
    together = purifier.draws(images, seeds=[5, 6, 7])
    alone = purifier.draws(images[1:2], seeds=[6])
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0] - images[0], together[1] - images[1])


def test_the_purifiers_answer_is_the_mean_of_its_draws() -> None:
    purifier = PurifierDraws(build("identity"), HEAVY)
    images = torch.rand(2, 3, 8, 8)
    draws = purifier.draws(images, seeds=[1, 2])
    assert draws.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(purifier(images, seeds=[1, 2]), (draws[:, 0] + draws[:, 1] + draws[:, 2]) / 3)


def test_each_draw_is_clamped_before_the_mean() -> None:
    draws = PurifierDraws(build("identity"), HEAVY).draws(torch.zeros(1, 3, 8, 8), seeds=[1])
    assert draws.min() == 0
    assert draws.max() > 0


class ChannelsLast(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)


def test_a_purifier_that_answers_channels_last_keeps_images_and_draws_apart() -> None:
    images = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(PurifierDraws(ChannelsLast(), InferenceMode(draws=2))(images, seeds=[1, 2]), images)


def test_one_seed_an_image_is_required() -> None:
    with pytest.raises(ValueError, match="shorter"):
        PurifierDraws(build("identity"), HEAVY)(torch.rand(2, 3, 4, 4), seeds=[1])


@pytest.mark.parametrize(
    "wrong",
    [{"noise_std": -0.1}, {"draws": 0}, {"draws": 65}, {"ball": 0.0}, {"std": 0.1}, {"jpeg": 0}, {"jpeg": 101}],
)
def test_a_mode_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        InferenceMode.model_validate(wrong)
