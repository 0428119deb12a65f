from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model_store.pixels import image_to_bytes, to_float
from tests.service.scenes import SHADES, SIDE, Blackout, SceneEngine, Shades


@pytest.fixture
def bands() -> Image.Image:
    """Black, grey and white bands of 24, 12 and 12 columns."""
    levels = np.zeros((2 * SIDE, 48, 3), dtype=np.uint8)
    levels[:, 24:36] = 128
    levels[:, 36:] = 255
    return Image.fromarray(levels)


@pytest.fixture
def scene_client(client_for: Callable[..., Any]) -> Any:
    return client_for(SceneEngine)


def mask_in(part: dict[str, Any], image_of: Callable[[bytes], Image.Image]) -> Any:
    return np.asarray(image_of(base64.b64decode(part["mask"]["base64"])))


def test_the_mask_is_a_palette_png_of_the_upload_s_size(
    scene_client: Any, bands: Image.Image, file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image]
) -> None:
    answer = scene_client.post("/segment-robust", content=file_of(bands))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-nrp-purifier"] == "plain"
    assert "downstream" in answer.headers["server-timing"]
    mask = image_of(answer.content)
    assert (mask.mode, mask.size) == ("P", bands.size)
    classes = np.asarray(mask)
    assert (classes[:, :22] == 0).all()
    assert (classes[:, 26:34] == 1).all()
    assert (classes[:, 38:] == 2).all()


def test_json_has_the_shares_of_the_classes_largest_first(
    scene_client: Any, bands: Image.Image, file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image]
) -> None:
    answer = scene_client.post("/segment-robust", content=file_of(bands), headers={"accept": "application/json"}).json()
    classes = mask_in(answer["defended"], image_of)
    shares = answer["defended"]["classes"]
    assert [share["share"] for share in shares] == sorted((share["share"] for share in shares), reverse=True)
    assert shares[0]["label"] == "black"
    for share in shares:
        assert share["share"] == pytest.approx((classes == share["index"]).mean())
        assert share["label"] == SHADES[share["index"]]
    assert answer["undefended"] is None
    assert answer["model"] == "shades"
    assert answer["suspicion"]["prediction_shift"] is None


def test_compare_is_answered_in_json_with_both_masks(
    scene_client: Any, bands: Image.Image, file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image]
) -> None:
    scene_client.state.engine._loaded["plain"] = Blackout()
    answer = scene_client.post("/segment-robust?compare=true", content=file_of(bands)).json()
    assert [share["label"] for share in answer["defended"]["classes"]] == ["black"]
    assert (mask_in(answer["defended"], image_of) == 0).all()
    assert (mask_in(answer["undefended"], image_of)[:, 38:] == 2).all()
    refused = scene_client.post("/segment-robust?compare=true", content=file_of(bands), headers={"accept": "image/png"})
    assert refused.status_code == 406


def test_probabilities_are_averaged_over_the_draws_pixel_by_pixel(
    scene_client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_of: Any
) -> None:
    image = photo(40, SIDE)  # already of the size that the segmenter takes
    answer = scene_client.post("/segment-robust?mode=noisy&seed=3&samples=3", content=file_of(image))
    generator = torch.Generator().manual_seed(3)
    original = to_float(image_to_bytes(image))
    draws = torch.stack([original + 0.1 * torch.randn(original.shape, generator=generator) for _ in range(3)])
    each = Shades()(draws.clamp(0, 1)).softmax(dim=1)
    mean = each.mean(dim=0)
    top = mean.topk(2, dim=0).values
    sure = ((top[0] - top[1]) > 1e-4).numpy()
    got = np.asarray(image_of(answer.content))
    assert (got == mean.argmax(dim=0).numpy())[sure].all()
    assert (got != each[0].argmax(dim=0).numpy()).any()


def test_a_sliver_gets_its_mask(
    scene_client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_of: Any
) -> None:
    answer = scene_client.post("/segment-robust", content=file_of(photo(5000, 2)))
    assert image_of(answer.content).size == (5000, 2)


def test_a_bad_image_is_a_problem_here_too(scene_client: Any) -> None:
    for route in ("/segment-robust", "/detect-robust"):
        answer = scene_client.post(route, content=b"text")
        assert answer.status_code == 415
        assert answer.headers["content-type"] == "application/problem+json"
