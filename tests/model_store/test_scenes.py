from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from model_store.card import Card, InputConvention
from model_store.errors import InvalidCardError
from model_store.scenes import DETECTOR_PIXELS, Boxes, Masks, SceneScale, scene_scale, trained_size


@pytest.mark.parametrize(
    ("height", "width", "brought_to"),
    [(180, 240, (180, 240)), (720, 960, (180, 240)), (960, 720, (240, 180)), (90, 160, (180, 320)), (1, 1, (180, 180))],
)
def test_the_shorter_side_is_brought_to_that_of_the_training(
    height: int, width: int, brought_to: tuple[int, int]
) -> None:
    assert SceneScale(short_side=180).size(height, width) == brought_to


@pytest.mark.parametrize("size", [(2, 100_000), (100_000, 2), (1, 80_000_000)])
def test_a_sliver_is_neither_blown_up_nor_lost(size: tuple[int, int]) -> None:
    height, width = SceneScale(short_side=180).size(*size)
    assert max(height, width) == 4 * 180
    assert min(height, width) == 16
    assert min(SceneScale().size(*size)) == 84
    assert max(SceneScale().size(*size)) == 1333


def test_a_network_that_scales_by_itself_gets_scenes_as_they_are() -> None:
    scale = SceneScale()
    images = torch.rand(1, 3, 30, 480)
    assert scale(images) is images
    assert scale.pixels(30, 480) == DETECTOR_PIXELS
    assert SceneScale(short_side=10).pixels(20, 40) == 200


def test_an_exact_size_goes_before_everything() -> None:
    scale = SceneScale(short_side=10, exact=(24, 16))
    assert scale(torch.rand(2, 3, 7, 50)).shape == (2, 3, 24, 16)


def test_scaling_keeps_the_range_and_the_mean() -> None:
    images = torch.rand(1, 3, 64, 96)
    small = SceneScale(short_side=16)(images)
    assert small.shape == (1, 3, 16, 24)
    assert small.min() >= 0
    assert small.max() <= 1
    assert small.mean().item() == pytest.approx(images.mean().item(), abs=0.01)


def test_the_card_s_own_short_side_goes_before_the_size_of_its_training(make_card: Callable[..., Card]) -> None:
    assert scene_scale(make_card(recipe={"size": [240, 320]})) == SceneScale(short_side=240)
    card = make_card(recipe={"size": [240, 320]}, input=InputConvention(short_side=100))
    assert scene_scale(card) == SceneScale(short_side=100)


@pytest.mark.parametrize("recipe", [{}, {"size": 240}, {"size": [240]}, {"size": [0, 320]}, {"size": ["a", "b"]}])
def test_a_card_without_a_size_is_refused(make_card: Callable[..., Card], recipe: dict[str, Any]) -> None:
    with pytest.raises(InvalidCardError, match=r"recipe\.size"):
        trained_size(make_card(recipe=recipe))


def test_torchvision_s_answers_take_one_form() -> None:
    class Network(nn.Module):
        def forward(self, images: Any) -> Any:
            if isinstance(images, list):
                return [{"boxes": image.flatten()[:4]} for image in images]
            return {"out": images + 1, "aux": images}

    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(Masks(Network())(images), images + 1)
    found = Boxes(Network())(images)
    assert torch.equal(found[1]["boxes"], images[1].flatten()[:4])
