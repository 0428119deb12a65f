from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_store.inference import InferenceMode, noisy_draws, seeded
from model_store.pixels import image_to_bytes, to_bytes, to_float


@pytest.mark.parametrize("multipart", [False, True])
def test_a_form_and_a_raw_body_give_the_same_png(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
    multipart: bool,
) -> None:
    image = photo()
    data = file_of(image)
    sent = {"files": {"file": ("a.png", data, "image/png")}} if multipart else {"content": data}
    answer = client.post("/purify", **sent)
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(image_of(answer.content)), np.asarray(image))


def test_any_content_type_but_multipart_is_taken_as_the_image(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    for content_type in ("application/x-www-form-urlencoded", "image/jpeg", "application/octet-stream", "text/plain"):
        answer = client.post("/purify", content=file_of(photo()), headers={"content-type": content_type})
        assert answer.status_code == 200


def test_an_answer_says_what_was_done(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    headers = client.post("/purify?purifier=noise&seed=1", content=file_of(photo())).headers
    assert headers["x-nrp-purifier"] == "noise"
    assert 0 < int(headers["x-nrp-linf"]) <= 255
    assert 0 < float(headers["x-nrp-suspicion"]) < int(headers["x-nrp-linf"])
    stages = [part.split(";")[0].strip() for part in headers["server-timing"].split(",")]
    assert stages == ["decode", "queue", "purify", "encode"]
    assert headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("accept", "kind", "exact"), [("image/webp", "WEBP", True), ("image/jpeg", "JPEG", False), ("image/*", "PNG", True)]
)
def test_accept_chooses_the_format(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
    accept: str | None,
    kind: str,
    exact: bool,
) -> None:
    image = photo()
    answer = client.post("/purify", content=file_of(image), headers={"accept": accept})
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    back = image_of(answer.content)
    assert back.format == kind
    assert back.size == image.size
    assert np.array_equal(np.asarray(back), np.asarray(image)) == exact


def test_json_holds_the_image_and_the_report(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    image = photo()
    answer = client.post(
        "/purify?mode=published&seed=4", content=file_of(image), headers={"accept": "application/json"}
    ).json()
    back = image_of(base64.b64decode(answer["image"]["base64"]))
    assert (answer["image"]["width"], answer["image"]["height"]) == back.size == image.size
    assert answer["mode"] == {"name": "published", "noise_std": 0.05, "draws": 1, "ball": 16.0, "jpeg": None}
    difference = np.asarray(back).astype(int) - np.asarray(image)
    assert answer["suspicion"]["linf"] == np.abs(difference).max() <= 16
    assert answer["suspicion"]["residual_rms"] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-5)
    assert answer["suspicion"]["score"] == answer["suspicion"]["residual_rms"]
    assert answer["suspicion"]["calibrated"] is False
    assert answer["suspicion"]["prediction_shift"] is None
    assert set(answer["timings_ms"]) == {"decode", "queue", "purify", "encode"}


def test_an_accept_that_cannot_be_met_is_refused(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    answer = client.post("/purify", content=file_of(photo()), headers={"accept": "text/html"})
    assert answer.status_code == 406
    assert "image/png" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "name", "draws"),
    [
        ("", "static", 1),
        ("dynamic=false", "static", 1),
        ("dynamic=true", "published", 1),
        ("dynamic=true&samples=4", "published", 4),
        ("mode=noisy", "noisy", 3),
        ("mode=noisy&samples=2", "noisy", 2),
        ("mode=default", "static", 1),
        ("purifier=noise", "noisy", 3),
        ("purifier=noise&dynamic=true", "noisy", 3),
        ("purifier=noise&dynamic=false", "static", 1),
        ("purifier=noise&mode=published", "published", 1),
        ("samples=1", "static", 1),
    ],
)
def test_the_mode_is_the_one_asked_for(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], query: str, name: str, draws: int
) -> None:
    answer = client.post(f"/purify?{query}", content=file_of(photo()), headers={"accept": "application/json"}).json()
    assert (answer["mode"]["name"], answer["mode"]["draws"]) == (name, draws)


def test_the_answer_is_the_mean_of_draws_from_the_seed(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    image = photo(16, 16)  # a multiple of 16 values, so that torch draws the noise alike in one piece and in three
    answer = client.post("/purify?mode=noisy&seed=11", content=file_of(image))
    mode = InferenceMode(noise_std=0.1, draws=3)
    draws = noisy_draws(to_float(image_to_bytes(image)), mode, seeded(11)).clamp(0, 1)
    wanted = to_bytes(draws.mean(dim=0)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(np.asarray(image_of(answer.content)) - wanted).max() <= 1


def test_a_seed_gives_the_same_answer_alone_and_among_others(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine)
    client.state.engine.gate.set()
    data = file_of(photo())
    alone = client.post("/purify?mode=noisy&seed=5", content=data).content
    client.state.engine.gate.clear()
    client.state.engine.entered.clear()
    busy = client.sending("POST", "/purify", content=file_of(photo(8, 8)))
    assert client.state.engine.entered.wait(10)
    others = [client.sending("POST", f"/purify?mode=noisy&seed={n}", content=file_of(photo(seed=n))) for n in range(6)]
    again = client.sending("POST", "/purify?mode=noisy&seed=5", content=data)
    wait_for(lambda: client.state.batcher.depth == 7)
    client.state.engine.gate.set()
    assert again.result(20).content == alone
    assert len({other.result(20).content for other in others}) == 6
    assert busy.result(20).status_code == 200
    assert client.state.engine.ran[-1] == 7


def test_without_a_seed_the_noise_is_fresh_and_the_seed_stays_secret(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    data = file_of(photo())
    first, second = (client.post("/purify?mode=noisy", content=data) for _ in range(2))
    assert first.content != second.content
    answer = client.post("/purify?mode=noisy", content=data, headers={"accept": "application/json"})
    assert "seed" not in answer.text
    assert not any("seed" in name for name in answer.headers)


def test_too_many_pixels_in_flight_are_refused_with_a_time_to_come_back(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine, max_pixels=1024, max_pixels_in_flight=2048)
    held = [client.sending("POST", "/purify", content=file_of(photo(32, 32))) for _ in range(2)]
    wait_for(lambda: client.state.pixels.held == 2048)
    refused = client.post("/purify", content=file_of(photo(16, 16)))
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["type"] == "urn:nrp:problem:overloaded"
    client.state.engine.gate.set()
    assert [answer.result(20).status_code for answer in held] == [200, 200]
    assert client.post("/purify", content=file_of(photo(16, 16))).status_code == 200
    assert client.state.pixels.held == 0
    assert 'nrp_rejected_total{reason="pixels_in_flight"} 1.0' in client.get("/metrics").text


def test_an_answer_that_takes_too_long_is_given_up(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine, request_timeout_s=0.2)
    on_device = client.sending("POST", "/purify", content=file_of(photo()))
    assert client.state.engine.entered.wait(10)
    queued = client.sending("POST", "/purify", content=file_of(photo()))
    assert queued.result(10).status_code == 504
    assert on_device.result(10).status_code == 504
    assert client.state.pixels.held == 0
    assert client.state.batcher.depth == 0
    client.state.engine.gate.set()


def test_work_is_dropped_when_the_client_leaves(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine)
    busy = client.sending("POST", "/purify", content=file_of(photo()))
    assert client.state.engine.entered.wait(10)

    async def leave_early() -> Any:
        """A client that hangs up once its image is queued, as a server would report it."""
        hung_up = asyncio.Event()
        messages = [{"type": "http.request", "body": file_of(photo(32, 32)), "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        sent = []
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/purify", "raw_path": b"/purify",
            "query_string": b"", "headers": [], "scheme": "http", "server": ("test", 80), "client": ("test", 1),
            "root_path": "",
        }  # fmt: skip
        request = asyncio.create_task(client.app(scope, receive, send))
        while client.state.batcher.depth < 1:  # noqa: ASYNC110 - a queue has no event for outsiders
            await asyncio.sleep(0.001)
        hung_up.set()
        await request
        return sent

    sent = client.run(leave_early())
    assert sent[0]["status"] == 499
    assert client.state.batcher.depth == 0
    client.state.engine.gate.set()
    assert busy.result(20).status_code == 200
    assert client.state.engine.ran == [1]
    assert client.state.pixels.held == 0


def test_a_request_cancelled_by_the_server_gives_everything_back(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine)
    sent = client.sending("POST", "/purify", content=file_of(photo()))
    assert client.state.engine.entered.wait(10)
    sent.cancel()
    wait_for(lambda: client.state.pixels.held == 0)
    client.state.engine.gate.set()
    assert client.post("/purify", content=file_of(photo())).status_code == 200


def wait_for(condition: Any) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)
