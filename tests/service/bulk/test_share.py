"""How much of the queue and of the memory one request of many images takes, and how long it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.bulk import items
from tests.service.bulk.requests import URL, form, opened, wait_for


def test_no_more_than_a_window_is_queued_and_held(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any]
) -> None:
    client = client_for(gated_engine, max_waiting=items.WINDOW)
    depths: list[int] = []
    run = client.state.batcher._run

    def watched(jobs: Sequence[Any]) -> Any:
        depths.append(client.state.batcher.depth + len(jobs))
        return run(jobs)

    client.state.batcher._run = watched
    sent = client.sending("POST", URL, files=form(*photos(30)))
    wait_for(lambda: client.state.pixels.held == items.WINDOW * 24 * 16)
    time.sleep(0.05)
    assert client.state.pixels.held == items.WINDOW * 24 * 16
    client.state.engine.gate.set()
    _, report = opened(sent.result(30))
    assert report.succeeded == 30
    assert max(depths) <= items.WINDOW
    assert client.state.pixels.held == 0


def test_large_images_take_turns_within_the_share_of_one_request(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any]
) -> None:
    client = client_for(gated_engine, max_pixels=1024, max_pixels_in_flight=8 * 1024)
    sent = client.sending("POST", URL, files=form(*photos(6, 32, 32)))
    wait_for(lambda: client.state.pixels.held == 2 * 1024)
    time.sleep(0.05)
    assert client.state.pixels.held == 2 * 1024
    single = client.sending("POST", "/purify", content=photos(1, 32, 32)[0][1])
    wait_for(lambda: client.state.pixels.held == 3 * 1024)
    client.state.engine.gate.set()
    assert single.result(20).status_code == 200
    assert opened(sent.result(20))[1].succeeded == 6


def test_an_image_larger_than_the_share_goes_alone(client_for: Any, photos: Callable[..., Any]) -> None:
    client = client_for(max_pixels=1024, max_pixels_in_flight=1024)
    _, report = opened(client.post(URL, files=form(*photos(4, 32, 32), *photos(1, 33, 32))))
    assert [item.status for item in report.items] == [200, 200, 200, 200, 422]


def test_a_neighbour_waits_for_a_window_at_the_most(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any]
) -> None:
    client = client_for(gated_engine, batch_pixels=24 * 16)  # one image a run
    many = client.sending("POST", URL, files=form(*photos(40)))
    assert client.state.engine.entered.wait(10)
    wait_for(lambda: client.state.batcher.depth == items.WINDOW - 1)
    neighbour = client.sending("POST", "/purify", content=photos(1, 20, 20)[0][1])
    wait_for(lambda: client.state.batcher.depth == items.WINDOW)
    order: list[int] = []
    run = client.state.batcher._run

    def noted(jobs: Sequence[Any]) -> Any:
        order.append(int(jobs[0].pixels.shape[-1]))
        return run(jobs)

    client.state.batcher._run = noted
    client.state.engine.gate.set()
    assert neighbour.result(20).status_code == 200
    assert opened(many.result(30))[1].succeeded == 40
    assert order.index(20) <= items.WINDOW


@pytest.mark.parametrize("full", ["pixels", "queue"])
def test_an_image_waits_where_one_alone_would_be_told_429(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    monkeypatch.setattr(items, "RETRY_S", 0.02)
    limits = {"pixels": {"max_pixels": 1024, "max_pixels_in_flight": 1024}, "queue": {"max_waiting": 1}}[full]
    client = client_for(gated_engine, **limits)
    large = photos(1, 32, 32)[0][1]
    held = [client.sending("POST", "/purify", content=large)]
    assert client.state.engine.entered.wait(10)
    if full == "queue":
        held.append(client.sending("POST", "/purify", content=large))
        wait_for(lambda: client.state.batcher.depth == 1)
    assert client.post("/purify", content=large).status_code == 429
    waiting = client.sending("POST", URL, files=form(*photos(3)))
    time.sleep(0.1)
    assert not waiting.done()
    client.state.engine.gate.set()
    assert [answer.result(20).status_code for answer in held] == [200] * len(held)
    assert opened(waiting.result(20))[1].succeeded == 3


def test_what_finds_no_room_in_time_is_a_429_and_what_is_late_a_504(
    client_for: Any, gated_engine: Any, photos: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "RETRY_S", 0.05)
    client = client_for(gated_engine, max_pixels=1024, max_pixels_in_flight=1024, request_timeout_s=0.4)
    first = client.sending("POST", URL, files=form(*photos(2, 32, 32)))
    assert client.state.engine.entered.wait(10)
    wait_for(lambda: client.state.pixels.held == 1024)
    second = client.sending("POST", URL, files=form(*photos(1, 32, 32)))
    assert [item.status for item in opened(first.result(20))[1].items] == [504, 504]
    (refused,) = opened(second.result(20))[1].items
    assert refused.status == 429
    assert refused.problem is not None
    assert (refused.problem.retry_after or 0) >= 1
    client.state.engine.gate.set()
    wait_for(lambda: client.state.batcher.busy_s == 0)
    assert client.state.pixels.held == client.state.batcher.depth == client.state.bodies.held == 0
