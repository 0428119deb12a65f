from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.service.scenes import SIDE, Blackout, SceneEngine

BOX = (16, 8, 40, 24)


@pytest.fixture
def spot() -> Image.Image:
    """A white box on black, aligned with the pixels that half the resolution leaves."""
    image = Image.new("RGB", (64, 2 * SIDE))
    ImageDraw.Draw(image).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill="white")
    return image


@pytest.fixture
def scene_client(client_for: Callable[..., Any]) -> Any:
    return client_for(SceneEngine)


def corners(found: dict[str, Any]) -> list[float]:
    return [found["box"][corner] for corner in ("x0", "y0", "x1", "y1")]


def test_boxes_are_in_pixels_of_the_upload_though_the_detector_saw_half_of_them(
    scene_client: Any, spot: Image.Image, file_of: Callable[..., bytes]
) -> None:
    answer = scene_client.post("/detect-robust", content=file_of(spot)).json()
    assert scene_client.state.engine.spots.seen[-1] == (1, 3, SIDE, 32)
    (found,) = answer["objects"]
    assert (found["label"], found["index"]) == ("bright", 1)
    assert found["score"] == pytest.approx(0.9)
    assert corners(found) == pytest.approx(BOX, abs=2)
    assert answer["undefended"] is None
    assert (answer["model"], answer["width"], answer["height"]) == ("spots", 64, 48)
    assert answer["suspicion"]["prediction_shift"] is None
    assert set(answer["timings_ms"]) == {"decode", "queue", "purify", "downstream", "encode"}


def test_boxes_are_in_the_image_turned_upright(
    scene_client: Any, spot: Image.Image, file_of: Callable[..., bytes]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter to the left
    answer = scene_client.post("/detect-robust", content=file_of(spot, exif=exif)).json()
    assert (answer["width"], answer["height"]) == (48, 64)
    assert corners(answer["objects"][0]) == pytest.approx((48 - BOX[3], BOX[0], 48 - BOX[1], BOX[2]), abs=2)


def test_the_threshold_keeps_what_reaches_it_best_first(
    scene_client: Any, spot: Image.Image, file_of: Callable[..., bytes]
) -> None:
    everything = scene_client.post("/detect-robust?score_threshold=0.1", content=file_of(spot)).json()["objects"]
    assert [found["label"] for found in everything] == ["bright", "faint"]
    assert scene_client.post("/detect-robust?score_threshold=0.95", content=file_of(spot)).json()["objects"] == []


def test_compare_puts_the_answer_about_the_image_as_it_came_beside(
    scene_client: Any, spot: Image.Image, file_of: Callable[..., bytes]
) -> None:
    scene_client.state.engine._loaded["plain"] = Blackout()
    answer = scene_client.post("/detect-robust?compare=true", content=file_of(spot)).json()
    assert answer["objects"] == []
    assert corners(answer["undefended"][0]) == pytest.approx(BOX, abs=2)
    assert answer["suspicion"]["residual_rms"] > 0


def test_the_detector_looks_once_at_the_mean_of_the_draws(
    scene_client: Any, spot: Image.Image, file_of: Callable[..., bytes]
) -> None:
    seen = scene_client.state.engine.spots.seen
    before = len(seen)
    answer = scene_client.post("/detect-robust?mode=noisy&samples=3&seed=1", content=file_of(spot)).json()
    assert answer["mode"]["draws"] == 3
    assert [shape[0] for shape in seen[before:]] == [1]


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [("model=other", 404, "spots"), ("score_threshold=2", 422, "score_threshold"), ("top_k=1", 422, "top_k")],
)
def test_a_wrong_parameter_is_named(
    scene_client: Any, spot: Image.Image, file_of: Callable[..., bytes], query: str, status: int, named: str
) -> None:
    answer = scene_client.post(f"/detect-robust?{query}", content=file_of(spot))
    assert answer.status_code == status
    assert named in answer.text


@pytest.mark.parametrize(
    ("route", "variable"), [("detect", "NRP_DETECTOR"), ("segment", "NRP_SEGMENTER"), ("classify", "NRP_CLASSIFIER")]
)
def test_a_task_that_was_left_out_is_told_with_its_setting(
    client_for: Callable[..., Any], spot: Image.Image, file_of: Callable[..., bytes], route: str, variable: str
) -> None:
    client = client_for(classifier="none", detector="none", segmenter="none")
    answer = client.post(f"/{route}-robust", content=file_of(spot))
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:nrp:problem:no-downstream-model"
    assert variable in answer.json()["detail"]
    assert client.post("/purify", content=file_of(spot)).status_code == 200
    assert [client.get(f"/v2/models/{name}").status_code for name in ("plain", "tiny")] == [200, 404]
    served = client.get("/models").json()
    assert (served["classifier"], served["segmenter"], served["detector"], served["labels"]) == (None, None, None, 0)


def test_models_names_what_serves_each_task(scene_client: Any) -> None:
    served = scene_client.get("/models").json()
    assert (served["segmenter"], served["detector"]) == ("shades", "spots")
