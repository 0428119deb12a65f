"""Certificates over HTTP."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from service.app import create_app
from tests.service.certificates import SIDE, SIGMA, BrightEngine, HeldEngine, events_of, expected, serving, until

ROUTE = "/classify-robust?certify=true"
STREAM = {"accept": "text/event-stream"}


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (level, level, level))


def on_the_boundary() -> Image.Image:
    image = grey(127)
    image.paste((128, 128, 128), (0, 0, SIDE, SIDE // 2))
    return image


@pytest.fixture
def certifying(client_for: Callable[..., Any]) -> Callable[..., Any]:
    """A started client whose smoothing purifier is the tiny one."""

    def make(engine_class: type[Any] = BrightEngine, **changes: Any) -> Any:
        return client_for(engine_class, **{"smoothing_purifier": "noise", **changes})

    return make


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


def test_when_the_client_leaves_the_work_stops_and_the_device_is_free(
    settings_for: Callable[..., Any], photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    settings = settings_for(smoothing_purifier="noise", batch_pixels=16 * SIDE * SIDE)
    engine = HeldEngine(settings)
    app = create_app(settings, engine)
    state = app.state.service
    with serving(app) as address, httpx.Client(base_url=address, trust_env=False, timeout=20) as http:
        engine.permits.release(2)
        with http.stream("POST", f"{ROUTE}&n=1000", content=file_of(grey(128)), headers=STREAM) as answer:
            events = events_of(answer.iter_lines())
            assert [next(events)[1]["done"] for _ in range(3)] == [0, 16, 32]
            until(lambda: engine.entered == 3)
        until(lambda: state.certifications.running == 0)
        assert (state.pixels.held, state.bodies.held) == (0, 0)
        engine.permits.release(50)
        assert http.post("/purify", content=file_of(photo())).status_code == 200
        assert engine.entered == 3


def test_neighbours_wait_for_one_chunk_however_many_certifications_there_are(
    certifying: Callable[..., Any], photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = certifying(HeldEngine, batch_pixels=16 * SIDE * SIDE)
    engine = client.state.engine
    certificates = [client.sending("POST", f"{ROUTE}&n0=16&n=64", content=file_of(grey(128))) for _ in range(2)]
    until(lambda: engine.entered == 1 and client.state.certifications.running == 2)
    for chunks in (1, 2, 3):
        neighbour = client.sending("POST", "/purify", content=file_of(photo()))
        until(lambda: client.state.batcher.busy_s > 0)
        assert not neighbour.done()
        engine.permits.release()
        assert neighbour.result(20).status_code == 200
        assert engine.ran == chunks
        until(lambda chunks=chunks: engine.entered == chunks + 1)
    engine.permits.release(100)
    assert [c.result(20).status_code for c in certificates] == [200, 200]


def test_more_certifications_than_allowed_are_told_when_to_come_back(
    certifying: Callable[..., Any], photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = certifying(HeldEngine, max_certifications=1)
    first = client.sending("POST", f"{ROUTE}&n=50", content=file_of(grey(128)))
    until(lambda: client.state.engine.entered == 1)
    for headers in ({}, STREAM):
        refused = client.post(ROUTE, content=file_of(grey(128)), headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:nrp:problem:overloaded")
        assert int(refused.headers["retry-after"]) >= 1
    client.state.engine.permits.release(10)
    assert first.result(20).status_code == 200
    assert client.post(f"{ROUTE}&n=50", content=file_of(grey(128))).status_code == 200
    assert 'nrp_rejected_total{reason="certifications"} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize("headers", [{}, STREAM])
def test_past_its_deadline_a_certification_is_given_up(
    certifying: Callable[..., Any], file_of: Callable[..., bytes], headers: dict[str, str]
) -> None:
    client = certifying(HeldEngine, certify_timeout_s=1.5)
    answer = client.post(ROUTE, content=file_of(grey(128)), headers=headers)
    if headers:
        assert answer.status_code == 200
        (_, first), (name, problem) = events_of(iter(answer.text.split("\n")))
        assert (first["done"], name) == (0, "problem")
    else:
        assert answer.status_code == 504
        problem = answer.json()
    assert (problem["status"], problem["type"]) == (504, "urn:nrp:problem:deadline-exceeded")
    assert problem["request_id"] == answer.headers["x-request-id"]
    client.state.engine.permits.release(10)
    assert (client.state.certifications.running, client.state.pixels.held) == (0, 0)
    assert 'nrp_rejected_total{reason="deadline_exceeded"} 1.0' in client.get("/metrics").text


class Tight(BrightEngine):
    """Has memory for ``fits`` images at a time."""

    fits = 3

    def _forward(self, module: nn.Module, images: Tensor) -> Tensor:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("no memory")
        return super()._forward(module, images)


def test_out_of_memory_is_answered_with_fewer_copies_at_a_time(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    found = certifying(Tight).post(f"{ROUTE}&seed=5&n0=20&n=60", content=file_of(grey(128))).json()
    assert found["radius"] == pytest.approx(expected(grey(128), 5, 20, 60).radius)


def test_where_one_copy_does_not_fit_the_problem_is_the_last_event(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying(Tight)
    client.state.engine.fits = 0
    assert client.post(ROUTE, content=file_of(grey(128))).status_code == 503
    streamed = list(events_of(iter(client.post(ROUTE, content=file_of(grey(128)), headers=STREAM).text.split("\n"))))
    assert [name for name, _ in streamed] == ["progress", "problem"]
    assert streamed[-1][1]["type"] == "urn:nrp:problem:out-of-device-memory"


class Deadly(BrightEngine):
    """A certification ends the thread that it is computed on."""

    def label_counts(self, purifier: nn.Module, copies: Any) -> Tensor:
        raise SystemExit(f"{type(purifier)}, {copies.count}")


def test_when_the_device_thread_ends_the_certification_is_answered(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying(Deadly)
    events = list(events_of(iter(client.post(ROUTE, content=file_of(grey(9)), headers=STREAM).text.split("\n"))))
    assert (events[-1][0], events[-1][1]["type"]) == ("problem", "urn:nrp:problem:engine-stopped")
    assert client.post(ROUTE, content=file_of(grey(9))).status_code == 503
    assert client.state.certifications.running == 0


class Endless(nn.Module):
    """Infinity."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 0


def test_an_answer_that_is_no_number_and_a_defect_of_ours_are_problems_too(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    client = certifying()
    client.state.engine._loaded["noise"] = Endless()
    assert client.post(ROUTE, content=file_of(grey(9))).json()["type"] == "urn:nrp:problem:non-finite-output"
    client.state.engine._loaded["noise"] = nn.Linear(1, 1)
    events = list(events_of(iter(client.post(ROUTE, content=file_of(grey(9)), headers=STREAM).text.split("\n"))))
    assert events[-1][0] == "problem"
    assert (events[-1][1]["status"], events[-1][1]["type"]) == (500, "urn:nrp:problem:internal-error")
    assert "shape" not in str(events)


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


def test_a_purifier_without_noise_of_its_own_certifies_at_the_sigma_given(
    certifying: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    query = f"{ROUTE}&purifier=plain&sigma={SIGMA}&seed=5&n0=20&n=60"
    found = certifying().post(query, content=file_of(grey(128))).json()
    assert (found["purifier"], found["radius"]) == ("plain", pytest.approx(expected(grey(128), 5, 20, 60).radius))


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


def test_openapi_describes_the_certificate_and_its_stream(client: Any) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/classify-robust"]["post"]
    assert {"certify", "sigma", "n", "n0", "alpha"} <= {p["name"] for p in operation["parameters"]}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    described = schema["components"]["schemas"]["CertifyAnswer"]["properties"]["radius"]["description"]
    assert "L2 norm" in described
    assert "full size" in described
