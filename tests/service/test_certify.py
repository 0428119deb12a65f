"""Certificates over HTTP."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.app import create_app
from tests.service.certificates import (
    ROUTE,
    SIDE,
    SIGMA,
    STREAM,
    BrightEngine,
    events_of,
    expected,
    grey,
    on_the_boundary,
    serving,
)


def test_the_certificate_is_the_model_store_s_own_on_the_same_seed(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying()
    answer = client.post(f"{ROUTE}&seed=5&n0=20&n=300", content=file_of(grey(128)))
    found, wanted = answer.json(), expected(grey(128), 5, 20, 300)
    assert answer.status_code == 200
    assert (found["abstained"], found["label"], found["index"]) == (False, "dog", wanted.label)
    assert found["radius"] == pytest.approx(wanted.radius)
    assert found["count"] == int(wanted.counts[wanted.label])
    assert (found["sigma"], found["n0"], found["n"], found["alpha"]) == (SIGMA, 20, 300, 0.001)
    assert (found["purifier"], found["model"]) == ("noise", "tiny")
    assert (found["width"], found["height"]) == (SIDE, SIDE)
    assert found["request_id"] == answer.headers["x-request-id"]
    assert set(found["timings_ms"]) == {"decode", "queue", "certify"}
    assert answer.headers["cache-control"] == "no-store"
    # The smoothed half space is the half space: its distance is the true radius, which no certificate passes.
    distance = (128 / 255 - 0.5) * math.sqrt(3) * SIDE
    assert 0.5 * distance < found["radius"] < distance


@pytest.mark.parametrize("batch_pixels", [1, 7 * SIDE * SIDE, 10**7])
def test_how_it_is_cut_into_chunks_changes_nothing(
    certifying: Callable[..., Any], file_of: Callable[..., bytes], batch_pixels: int
) -> None:
    client = certifying(batch_pixels=batch_pixels, max_certify_pixels=10**9)
    found = client.post(f"{ROUTE}&seed=5&n0=9&n=60", content=file_of(grey(128))).json()
    wanted = expected(grey(128), 5, 9, 60)
    assert found["radius"] == pytest.approx(wanted.radius)
    assert found["count"] == int(wanted.counts.max())


def test_an_image_between_two_labels_is_abstained_from(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    found = certifying().post(f"{ROUTE}&seed=1&n=200", content=file_of(on_the_boundary())).json()
    assert (found["abstained"], found["label"], found["index"], found["radius"]) == (True, None, None, 0)
    assert 60 < found["count"] < 140


def test_without_a_seed_the_noise_is_fresh_and_more_noise_certifies_farther_at_most(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying()
    counts = {client.post(f"{ROUTE}&n=500", content=file_of(on_the_boundary())).json()["count"] for _ in range(4)}
    assert len(counts) > 1
    white = [client.post(f"{ROUTE}&n=100&sigma={s}", content=file_of(grey(255))).json() for s in (0.1, 0.25)]
    assert white[1]["radius"] == pytest.approx(2.5 * white[0]["radius"])


def test_the_radius_is_about_the_upload_at_its_full_size(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    """Twice the side: the mean that decides is the same, the upload's boundary twice as far away in the L2 norm."""
    client = certifying()
    large = grey(128).resize((2 * SIDE, 2 * SIDE))
    found = client.post(f"{ROUTE}&seed=5&n0=20&n=300", content=file_of(large)).json()
    distance = (128 / 255 - 0.5) * math.sqrt(3) * 2 * SIDE
    assert (found["width"], found["height"]) == (2 * SIDE, 2 * SIDE)
    assert 0.5 * distance < found["radius"] < distance


def test_a_stream_tells_how_far_it_is_and_ends_with_the_same_certificate(
    certifying: Callable[..., Any], settings_for: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    settings = settings_for(smoothing_purifier="noise", batch_pixels=16 * SIDE * SIDE)
    query = f"{ROUTE}&seed=5&n0=20&n=60"
    plain = certifying().post(query, content=file_of(grey(128))).json()
    with (
        serving(create_app(settings, BrightEngine(settings))) as address,
        httpx.Client(base_url=address, trust_env=False, timeout=20) as http,
        http.stream("POST", query, content=file_of(grey(128)), headers=STREAM) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-length" not in answer.headers
        events = list(events_of(answer.iter_lines()))
    assert [name for name, _ in events] == ["progress"] * (len(events) - 1) + ["result"]
    assert [data["done"] for _, data in events[:-1]] == [0, 16, 20, 36, 52, 68, 80]
    assert {data["of"] for _, data in events[:-1]} == {80}
    assert events[0][1]["seconds_left"] is None
    assert events[-2][1]["seconds_left"] == 0
    result = events[-1][1]
    assert result["request_id"] == answer.headers["x-request-id"]
    for field in set(plain) - {"request_id", "timings_ms"}:
        assert result[field] == plain[field]


def test_a_purifier_without_noise_of_its_own_certifies_at_the_sigma_given(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    query = f"{ROUTE}&purifier=plain&sigma={SIGMA}&seed=5&n0=20&n=60"
    found = certifying().post(query, content=file_of(grey(128))).json()
    assert (found["purifier"], found["radius"]) == ("plain", pytest.approx(expected(grey(128), 5, 20, 60).radius))


def test_openapi_describes_the_certificate_and_its_stream(client: Any) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/classify-robust"]["post"]
    assert {"certify", "sigma", "n", "n0", "alpha"} <= {p["name"] for p in operation["parameters"]}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    described = schema["components"]["schemas"]["CertifyAnswer"]["properties"]["radius"]["description"]
    assert "L2 norm" in described
    assert "full size" in described
