"""Certifications that share the device, are left, or go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from service.app import create_app
from tests.service.certificates import (
    ROUTE,
    SIDE,
    STREAM,
    BrightEngine,
    HeldEngine,
    events_of,
    expected,
    grey,
    serving,
    until,
)


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
