"""Certifications that are refused before they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.certificates import (
    ROUTE,
    SIDE,
    STREAM,
    grey,
)


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("certify=true&mode=noisy", 422, "mode"),
        ("certify=true&dynamic=false", 422, "dynamic"),
        ("certify=true&samples=2", 422, "samples"),
        ("certify=true&compare=true", 422, "compare"),
        ("certify=true&top_k=1", 422, "top_k"),
        ("certify=true&sigma=0", 422, "sigma"),
        ("certify=true&sigma=nan", 422, "sigma"),
        ("certify=true&sigma=inf", 422, "sigma"),
        ("certify=true&alpha=0", 422, "alpha"),
        ("certify=true&alpha=1", 422, "alpha"),
        ("certify=true&n=0", 422, "'n'"),
        ("certify=true&n0=0", 422, "'n0'"),
        ("certify=true&n=9", 422, "ask for 10 or more"),
        ("certify=true&n=501", 422, "NRP_MAX_CERTIFY_SAMPLES"),
        ("certify=true&n0=501", 422, "NRP_MAX_CERTIFY_SAMPLES"),
        ("certify=true&purifier=plain", 422, "give sigma, or the purifier noise"),
        ("certify=true&purifier=nope", 404, "there is no purifier 'nope'; name one of: noise, plain"),
        ("certify=true&model=nope", 404, "there is: tiny"),
        ("certify=maybe", 422, "certify"),
        ("n=100", 422, "add certify=true"),
        ("sigma=0.1", 422, "add certify=true"),
    ],
)
def test_what_cannot_be_certified_is_refused_with_the_next_step(
    certifying: Callable[..., Any], file_of: Callable[..., bytes], query: str, status: int, says: str
) -> None:
    client = certifying(max_certify_samples=500)
    answer = client.post(f"/classify-robust?{query}", content=file_of(grey(9)))
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.json()


def test_where_the_smoothing_purifier_is_missing_the_setting_is_named(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    answer = certifying(smoothing_purifier="nrp-smoothing").post(ROUTE, content=file_of(grey(9)))
    assert answer.status_code == 404
    assert "NRP_SMOOTHING_PURIFIER" in answer.json()["detail"]


def test_where_there_is_no_classifier_nothing_is_certified(
    client_for: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    answer = client_for(classifier="none", smoothing_purifier="noise").post(ROUTE, content=file_of(grey(9)))
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:nrp:problem:no-downstream-model")


def test_bad_images_and_media_types_are_refused_before_the_stream_begins(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying()
    for data, status in ((b"", 422), (b"no image at all", 415)):
        refused = client.post(ROUTE, content=data, headers=STREAM)
        assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
    assert client.post(ROUTE, content=file_of(grey(9)), headers={"accept": "image/png"}).status_code == 406
    assert client.post("/classify-robust", content=file_of(grey(9)), headers=STREAM).status_code == 406
    assert client.state.certifications.running == 0


def test_one_request_gets_no_more_of_the_device_than_the_settings_allow(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying(max_certify_pixels=110 * SIDE * SIDE, tile_pixels=4 * SIDE * SIDE)
    assert client.post(f"{ROUTE}&n=10", content=file_of(grey(9))).status_code == 200
    for image, says in (
        (grey(9), "110 copies of this image"),
        (grey(9).resize((2 * SIDE + 1, 2 * SIDE)), "whole noisy"),
    ):
        refused = client.post(f"{ROUTE}&n=11", content=file_of(image), headers=STREAM)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:nrp:problem:too-many-pixels")
        assert says in refused.json()["detail"]
