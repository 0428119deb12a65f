"""The calibrated report over HTTP, and the policy that stands on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model_store.calibration import ClassifierCalibration, CleanSignal, SuspicionCalibration
from model_store.store import ModelStore
from tests.service.scenes import SceneEngine

# Noise moves the identity's images by more than any clean image in these tables.
RESIDUAL = CleanSignal(tails=(1.0, 0.01), values=(0.0, 1.0), count=99)
SHIFT = CleanSignal(tails=(1.0, 0.01), values=(0.0, 1e-12), count=99)
ASK = "/classify-robust?purifier=noise&seed=1&top_k=3"


@pytest.fixture
def calibrated_store(store_root: Path, tmp_path: Path) -> Path:
    """The tiny store, whose purifier ``noise`` is calibrated in its default mode for ``tiny``."""
    root = tmp_path / "calibrated"
    shutil.copytree(store_root, root)
    store = ModelStore(root)
    card = store.card("noise")
    assert card.inference is not None
    known = SuspicionCalibration(
        mode=card.inference.modes["noisy"],
        residual_rms=RESIDUAL,
        threshold=1.5,
        classifiers={
            "tiny": ClassifierCalibration(sha256=store.card("tiny").sha256, prediction_shift=SHIFT, threshold=3.5)
        },
        false_positives=0.01,
        height=24,
        width=16,
        data="none",
        command="none",
        seed=0,
    )
    store.rewrite_card(card.model_copy(update={"suspicion": {"noisy": known}}))
    return root


@pytest.fixture
def calibrated(client_for: Callable[..., Any], calibrated_store: Path) -> Any:
    return client_for(model_store=calibrated_store)


@pytest.fixture
def data(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> bytes:
    return file_of(photo())


def test_the_report_is_calibrated_where_the_card_is(calibrated: Any, data: bytes) -> None:
    answer = calibrated.post(ASK, content=data)
    report = answer.json()["suspicion"]
    assert report["calibrated"] is True
    assert report["score"] == pytest.approx(4.0)
    assert (report["threshold"], report["suspicious"]) == (3.5, True)
    assert answer.headers["x-nrp-suspicion"] == "4.0000"
    assert answer.headers["x-nrp-suspicion-threshold"] == "3.5000"


def test_where_no_model_is_asked_the_residual_has_a_threshold_of_its_own(calibrated: Any, data: bytes) -> None:
    answer = calibrated.post("/purify?purifier=noise&seed=1", content=data, headers={"accept": "application/json"})
    report = answer.json()["suspicion"]
    assert (report["calibrated"], report["threshold"], report["suspicious"]) == (True, 1.5, True)
    assert report["score"] == pytest.approx(2.0)


@pytest.mark.parametrize("asked", ["mode=static", "samples=2", "purifier=plain"])
def test_another_mode_number_of_draws_or_purifier_is_not_calibrated(calibrated: Any, data: bytes, asked: str) -> None:
    url = f"/classify-robust?{asked}" if "purifier" in asked else f"/classify-robust?purifier=noise&{asked}"
    answer = calibrated.post(url, content=data)
    report = answer.json()["suspicion"]
    assert (report["calibrated"], report["threshold"], report["suspicious"]) == (False, None, None)
    assert report["score"] == report["residual_rms"]
    assert "x-nrp-suspicion-threshold" not in answer.headers


def test_another_classifier_s_weights_are_not_calibrated(
    client_for: Callable[..., Any], calibrated_store: Path, data: bytes
) -> None:
    store = ModelStore(calibrated_store)
    known = store.card("noise").suspicion["noisy"]
    other = known.classifiers["tiny"].model_copy(update={"sha256": "0" * 64})
    changed = known.model_copy(update={"classifiers": {"tiny": other}})
    store.rewrite_card(store.card("noise").model_copy(update={"suspicion": {"noisy": changed}}))
    report = client_for(model_store=calibrated_store).post(ASK, content=data).json()["suspicion"]
    assert report["calibrated"] is False


def test_always_decides_on_the_purified_image_whatever_the_score(
    client_for: Callable[..., Any], calibrated_store: Path, data: bytes
) -> None:
    client = client_for(model_store=calibrated_store, suspicion_threshold=100.0)
    answer = client.post(f"{ASK}&compare=true", content=data).json()
    assert answer["suspicion"]["suspicious"] is False
    assert answer["decided_on"] == "purified"
    assert answer["predictions"] != answer["undefended"]


def test_policy_suspicious_decides_on_the_purified_image_where_it_is_suspicious(calibrated: Any, data: bytes) -> None:
    always = calibrated.post(f"{ASK}&compare=true", content=data).json()
    answer = calibrated.post(f"{ASK}&compare=true&policy=suspicious", content=data).json()
    assert answer["suspicion"]["suspicious"] is True
    assert answer["decided_on"] == "purified"
    assert answer["predictions"] == always["predictions"] != answer["undefended"]


def test_and_on_the_image_as_it_came_elsewhere(
    client_for: Callable[..., Any], calibrated_store: Path, data: bytes
) -> None:
    client = client_for(model_store=calibrated_store, suspicion_threshold=4.5)
    answer = client.post(f"{ASK}&compare=true&policy=suspicious", content=data).json()
    assert (answer["suspicion"]["threshold"], answer["suspicion"]["suspicious"]) == (4.5, False)
    assert answer["decided_on"] == "original"
    assert answer["predictions"] == answer["undefended"]
    without = client.post(f"{ASK}&policy=suspicious", content=data).json()
    assert without["undefended"] is None
    assert without["predictions"] == answer["predictions"]


@pytest.mark.parametrize("asked", ["purifier=noise&mode=static", "purifier=noise&samples=2", "purifier=plain"])
def test_without_a_calibration_there_is_no_such_policy(calibrated: Any, data: bytes, asked: str) -> None:
    answer = calibrated.post(f"/classify-robust?policy=suspicious&{asked}", content=data)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert "leave policy at always" in detail
    assert "nrp evaluate suspicion" in detail
    assert "--classifier tiny --inference" in detail


@pytest.mark.parametrize("route", ["/detect-robust", "/segment-robust"])
def test_nor_for_scenes(client_for: Callable[..., Any], calibrated_store: Path, data: bytes, route: str) -> None:
    client = client_for(SceneEngine, model_store=calibrated_store)
    answer = client.post(f"{route}?purifier=noise&policy=suspicious", content=data)
    assert answer.status_code == 422
    assert "for classifiers alone" in answer.json()["detail"]
    scene = client.post(f"{route}?purifier=noise", content=data, headers={"accept": "application/json"}).json()
    assert scene["suspicion"]["calibrated"] is False


@pytest.mark.parametrize("route", ["/purify?policy=suspicious", "/classify-robust?policy=never"])
def test_a_policy_that_is_none_is_refused(calibrated: Any, data: bytes, route: str) -> None:
    assert calibrated.post(route, content=data).status_code == 422


def test_metrics_keep_calibrated_scores_apart_and_count_the_suspicious(calibrated: Any, data: bytes) -> None:
    calibrated.post(ASK, content=data)
    calibrated.post("/purify?purifier=noise&mode=static", content=data)
    text = calibrated.get("/metrics").text
    for series in (
        'nrp_suspicion_count{calibrated="true"} 1.0',
        'nrp_suspicion_sum{calibrated="true"} 4.0',
        'nrp_suspicion_count{calibrated="false"} 1.0',
        "nrp_suspicious_total 1.0",
    ):
        assert series in text, series


def test_the_inference_protocol_counts_calibrated_scores_too(calibrated: Any) -> None:
    image = {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [100] * 12}
    answer = calibrated.post("/v2/models/noise/infer", json={"inputs": [image], "parameters": {"seed": 1}})
    assert answer.status_code == 200
    text = calibrated.get("/metrics").text
    assert 'nrp_suspicion_sum{calibrated="true"} 2.0' in text
    assert "nrp_suspicious_total 1.0" in text
