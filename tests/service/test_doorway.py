"""Who cannot be queued is refused at the door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from service.doorway import SINGLE_IMAGE
from tests.service.test_faults import until


@pytest.fixture
def full(
    client_for: Any, gated_engine: Any, file_of: Callable[..., bytes], photo: Callable[..., Image.Image]
) -> Iterator[Any]:
    """A service whose device is busy and whose queue of one is full."""
    client = client_for(gated_engine, max_waiting=1)
    client.held = [client.sending("POST", "/purify", content=file_of(photo()))]
    assert client.state.engine.entered.wait(20)
    client.held.append(client.sending("POST", "/purify", content=file_of(photo())))
    until(lambda: client.state.batcher.depth == 1)
    yield client
    client.state.engine.gate.set()
    assert [answer.result(30).status_code for answer in client.held] == [200, 200]


@pytest.mark.parametrize("path", sorted(SINGLE_IMAGE))
def test_a_full_queue_refuses_before_the_image_is_looked_at(full: Any, path: str) -> None:
    refused = full.post(path, content=b"no image at all")
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:nrp:problem:overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_the_refusal_is_counted_by_route_and_reason(full: Any) -> None:
    full.post("/purify", content=b"x")
    metrics = full.get("/metrics").text
    assert 'nrp_requests_total{route="/purify",status="429"} 1.0' in metrics
    assert 'nrp_rejected_total{reason="queue_full"} 1.0' in metrics


def test_other_routes_stay_open(full: Any) -> None:
    assert full.get("/health/live").status_code == 200
    assert full.get("/models").status_code == 200
    assert full.get("/purify").status_code == 405
