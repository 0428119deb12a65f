"""The service with a remote model behind it that does not answer as it should."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"no json", 200, "the body"),
        ({"predictions": []}, 200, "predictions"),
        (b"x" * 3000, 200, "2000 bytes"),
        ({"error": "s3cret of theirs"}, 500, "answered 500"),
        ({"error": "s3cret of theirs"}, 403, "answered 403"),
    ],
)
def test_an_answer_that_is_none_is_a_bad_gateway(
    remote_client: Any, fake: Any, image: bytes, answer: Any, status: int, reason: str
) -> None:
    client = remote_client(remote_max_answer_bytes=2000)
    fake.answer, fake.status = answer, status
    told = client.post("/classify-robust", content=image)
    assert told.status_code == 502
    assert told.headers["content-type"] == "application/problem+json"
    problem = told.json()
    assert problem["type"] == "urn:nrp:problem:bad-gateway"
    assert problem["detail"].startswith("remote:classifier")
    assert reason in problem["detail"]
    assert "s3cret" not in problem["detail"]
    assert client.state.pixels.held == 0


def test_a_slow_model_is_a_gateway_timeout(remote_client: Any, fake: Any, image: bytes, until: Any) -> None:
    client = remote_client(remote_timeout_s=0.5)

    async def slow(path: str, body: bytes) -> Any:
        await asyncio.sleep(20)

    fake.respond = slow
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, told.json()["type"]) == (504, "urn:nrp:problem:remote-timeout")
    until(lambda: fake.left > 0 and fake.busy == 0)  # nobody asks on; not every question may have got there


def test_the_deadline_of_the_request_comes_first(remote_client: Any, fake: Any, image: bytes, until: Any) -> None:
    client = remote_client(request_timeout_s=1.5)

    async def slow(path: str, body: bytes) -> Any:
        await asyncio.sleep(20)

    fake.respond = slow
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, told.json()["type"]) == (504, "urn:nrp:problem:deadline-exceeded")
    until(lambda: fake.left > 0 and fake.busy == 0)
    assert client.state.pixels.held == 0


def test_a_client_that_goes_away_ends_the_call(remote_client: Any, fake: Any, image: bytes, until: Any) -> None:
    client = remote_client()

    both = asyncio.Semaphore(0)

    async def slow(path: str, body: bytes) -> Any:
        client.begin(released())
        await asyncio.sleep(20)

    async def released() -> None:
        both.release()

    fake.respond = slow
    events = [{"type": "http.request", "body": image, "more_body": False}]

    async def receive() -> Any:
        if events:
            return events.pop()
        await both.acquire()
        await both.acquire()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "POST", "path": "/classify-robust", "raw_path": b"/classify-robust",
        "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("x", 80),
        "client": ("y", 1), "root_path": "",
    }  # fmt: skip
    client.run(client.app(scope, receive, send))
    until(lambda: fake.left == 2)
    until(lambda: client.state.pixels.held == 0)
    assert sample(client, "nrp_remote_requests_total", outcome="cancelled") == 2


def sample(client: Any, series: str, model: str = "remote:classifier", **labels: str) -> float | None:
    value: float | None = client.state.metrics.registry.get_sample_value(series, {"model": model, **labels})
    return value


def test_dead_then_back_the_breaker_opens_and_closes_and_readiness_never_falls(
    remote_client: Any, fake: Any, image: bytes, until: Any
) -> None:
    client = remote_client(remote_breaker_failures=3, remote_breaker_s=0.5, remote_retries=0)
    fake.stop()
    for _ in range(3):  # the greeting at the start may have counted too
        told = client.post("/classify-robust", content=image)
        assert (told.status_code, told.json()["type"]) == (503, "urn:nrp:problem:remote-unavailable")
    ran = client.state.metrics.registry.get_sample_value("nrp_batch_images_count")
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    assert client.state.metrics.registry.get_sample_value("nrp_batch_images_count") == ran  # the device did nothing
    assert "remote:classifier" in told.json()["detail"]
    assert "left alone" in told.json()["detail"]
    assert sample(client, "nrp_remote_breaker_state") == 2
    assert client.get("/health/ready").status_code == 200
    assert client.get("/models").json()["remotes"][0]["breaker"] == "open"
    assert client.post("/purify", content=image).status_code == 200
    fake.start()
    until(lambda: sample(client, "nrp_remote_breaker_state") == 1)
    assert client.post("/classify-robust", content=image).status_code == 200
    assert sample(client, "nrp_remote_breaker_state") == 0
    assert sample(client, "nrp_remote_requests_total", outcome="ok") >= 2
