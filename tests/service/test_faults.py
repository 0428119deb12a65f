"""What goes wrong in operation, and that it harms nobody else: every other request gets its own right answer."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from service.engine import Engine

SIZES = ((16, 16), (24, 16), (16, 24), (40, 17), (33, 33))


def until(condition: Any) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


class Poisoned(nn.Module):
    """The identity, but infinity for what is dark."""

    def forward(self, images: Tensor) -> Tensor:
        dark = images.amax(dim=(1, 2, 3), keepdim=True) < 0.2
        return torch.where(dark, torch.inf, images)


def test_in_a_storm_of_mixed_sizes_aborts_and_bad_images_everyone_else_is_answered(
    client_for: Any,
    gated_engine: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    client = client_for(gated_engine, batch_pixels=4 * 33 * 33)
    client.state.engine._loaded["plain"] = Poisoned()
    busy = client.sending("POST", "/purify", content=file_of(photo(8, 8)))
    assert client.state.engine.entered.wait(20)
    images = [photo(*SIZES[n % len(SIZES)], seed=n) for n in range(60)]
    dark = {n for n in range(60) if n % 12 == 5}
    broken = {n for n in range(60) if n % 12 == 7}
    aborted = {n for n in range(60) if n % 10 in {1, 4, 8}} - dark - broken
    for n in dark:
        images[n] = Image.new("RGB", images[n].size)
    sent = [
        client.sending("POST", "/purify", content=file_of(image)[: 60 if n in broken else None])
        for n, image in enumerate(images)
    ]
    until(lambda: client.state.batcher.depth == 60 - len(broken))
    for n in aborted:
        sent[n].cancel()
    until(lambda: client.state.batcher.depth == 60 - len(broken) - len(aborted))
    client.state.engine.gate.set()
    for n, answer in enumerate(sent):
        if n in aborted:
            continue
        expected = 500 if n in dark else 422 if n in broken else 200
        assert answer.result(30).status_code == expected, n
        if expected == 200:
            assert np.array_equal(np.asarray(image_of(answer.result().content)), np.asarray(images[n])), n
    assert busy.result(30).status_code == 200
    assert sum(client.state.engine.ran) == 1 + 60 - len(broken) - len(aborted)
    assert max(client.state.engine.ran) > 1
    assert client.state.pixels.held == 0
    assert client.state.bodies.held == 0
    assert client.get("/health/ready").status_code == 200


class Deadly(Engine):
    """An image 40 pixels wide ends the thread it is computed on."""

    def run(self, jobs: Any) -> Any:
        if jobs[0].pixels.shape[-1] == 40:
            raise SystemExit
        return super().run(jobs)


def stopped_for_good(client: Any, data: bytes) -> None:
    until(lambda: client.get("/health/ready").status_code == 503)
    assert "device thread" in client.get("/health/ready").json()["detail"]
    assert client.get("/health/live").status_code == 200
    later = client.post("/purify", content=data)
    assert (later.status_code, later.json()["type"]) == (503, "urn:nrp:problem:engine-stopped")
    assert client.state.pixels.held == 0


def test_when_the_device_thread_is_killed_at_work_all_callers_are_answered(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    deadly = type("GatedAndDeadly", (gated_engine, Deadly), {})
    client = client_for(deadly)
    before = client.sending("POST", "/purify", content=file_of(photo()))
    assert client.state.engine.entered.wait(20)
    sizes = [(40, 16), (40, 16), (16, 16), (24, 24)]
    waiting = []
    for place, size in enumerate(sizes):
        waiting.append(client.sending("POST", "/purify", content=file_of(photo(*size))))
        until(lambda place=place: client.state.batcher.depth == place + 1)
    client.state.engine.gate.set()
    assert before.result(30).status_code == 200
    assert [answer.result(30).status_code for answer in waiting] == [503] * 4
    stopped_for_good(client, file_of(photo()))


def test_when_the_device_thread_is_killed_at_rest_the_next_caller_is_answered(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    assert client.post("/purify", content=file_of(photo())).status_code == 200
    ident = ctypes.c_ulong(client.state.batcher._lanes[0].thread.ident)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit)) == 1
    assert client.post("/purify", content=file_of(photo())).status_code == 503
    stopped_for_good(client, file_of(photo()))


@pytest.mark.parametrize("route", ["/purify", "/classify-robust"])
def test_cancelled_storms_leave_nothing_behind(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], route: str
) -> None:
    client = client_for(gated_engine)
    data = file_of(photo())
    busy = client.sending("POST", route, content=data)
    assert client.state.engine.entered.wait(20)
    for _ in range(3):
        storm = [client.sending("POST", route, content=data) for _ in range(15)]
        until(lambda: client.state.batcher.depth == 15)
        for one in storm:
            one.cancel()
        until(lambda: client.state.batcher.depth == 0)
    client.state.engine.gate.set()
    assert busy.result(30).status_code == 200
    assert client.state.engine.ran == [1]
    assert (client.state.pixels.held, client.state.bodies.held) == (0, 0)
    assert client.post(route, content=data).status_code == 200
