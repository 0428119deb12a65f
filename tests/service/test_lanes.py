"""Several lanes: runs side by side on a CPU."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import pytest
import torch
from PIL import Image

from model_store.inference import InferenceMode
from service import lanes
from service.engine import Engine
from service.errors import EngineStoppedError
from service.job import Job
from service.lanes import LONG_OPERATIONS, Crowd, choose_lanes
from tests.service.test_batcher import Device, until, with_batcher


@pytest.fixture(autouse=True)
def _threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("chosen", "kind", "expected"), [(0, "cpu", 6), (0, "cuda", 1), (3, "cpu", 3), (2, "cuda", 2)])
def test_a_cpu_has_as_many_lanes_as_threads(chosen: int, kind: str, expected: int) -> None:
    assert choose_lanes(chosen, torch.device(kind), threads=6) == expected


def threads_of(crowd: Crowd, operations: float) -> int:
    with crowd.entered(operations):
        return torch.get_num_threads()


def test_a_long_run_alone_has_every_thread_and_a_short_one_a_single_thread() -> None:
    crowd = Crowd(lanes=2, threads=2)
    assert threads_of(crowd, inf) == 2
    assert threads_of(crowd, LONG_OPERATIONS / 2) == 1
    assert threads_of(crowd, LONG_OPERATIONS) == 2


def test_runs_that_overlapped_lately_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(lanes=2, threads=2)
    with crowd.entered(inf):
        assert crowd.alone()
        assert threads_of(crowd, inf) == 1
        assert not crowd.alone()
    assert threads_of(crowd, inf) == 1
    monkeypatch.setattr(lanes, "CROWDED_S", -1.0)
    assert threads_of(crowd, inf) == 2


def test_a_single_lane_leaves_the_threads_alone() -> None:
    torch.set_num_threads(2)
    assert threads_of(Crowd(lanes=1, threads=8), 0.0) == 2


def test_two_lanes_run_at_the_same_time_an_image_each() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        answers = [submit(number) for number in range(4)]
        await until(lambda: len(device.threads) == 2 and batcher.depth == 2)
        device.gate.set()
        assert [waited.result for waited in await asyncio.gather(*answers)] == [f"done {n}" for n in range(4)]
        assert sorted(device.batches) == [[0], [1], [2], [3]]

    with_batcher(device, scenario, lanes=2)


def test_when_one_lane_dies_nobody_is_left_waiting() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        answers = [submit(number) for number in range(6)]
        await until(lambda: len(device.threads) == 2)
        batcher._lanes[1].thread.stop()
        device.gate.set()
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        assert all(isinstance(o, EngineStoppedError) or o.result.startswith("done") for o in outcomes)
        assert not batcher.alive
        with pytest.raises(EngineStoppedError):
            await submit("too late")

    with_batcher(device, scenario, lanes=2)


def test_close_finishes_what_waits_in_every_lane() -> None:
    device = Device()

    async def scenario(batcher: Any, submit: Any) -> None:
        answers = [submit(number) for number in range(20)]
        await asyncio.sleep(0)
        await batcher.close(5)
        assert len(await asyncio.gather(*answers)) == 20

    with_batcher(device, scenario, lanes=3)


def test_an_engine_answers_the_same_from_two_threads_at_a_time(settings_for: Any) -> None:
    engine = Engine(settings_for(lanes=2, threads=2, purifier="noise"))
    pixels = [torch.full((3, 20, 20), level, dtype=torch.uint8) for level in range(0, 160, 20)]
    jobs = [Job(p, "noise", InferenceMode(noise_std=0.1, draws=2), seed, "classifier") for seed, p in enumerate(pixels)]
    alone = [engine.run([job])[0] for job in jobs]
    barrier = threading.Barrier(2)

    def half(part: int) -> list[Any]:
        barrier.wait()
        return [engine.run([job])[0] for job in jobs[part::2]]

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(half, (0, 1)))
    together = [halves[place % 2][place // 2] for place in range(len(jobs))]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.purified, other.purified)
        torch.testing.assert_close(one.defended, other.defended, atol=1e-5, rtol=0)


def test_lanes_share_the_default_budget(settings_for: Any) -> None:
    one, two = (Engine(settings_for(lanes=count), tasks=()).batch_pixels for count in (1, 2))
    assert one == 2 * two


def test_the_service_answers_every_request_of_many_clients_its_own_way(
    client_for: Callable[..., Any], photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(lanes=2, threads=2)
    files = [file_of(photo(16 + n, 20)) for n in range(12)]
    answers = [client.sending("POST", "/purify", content=data) for data in files]
    for data, answer in zip(files, answers, strict=True):
        reply = answer.result(30)
        assert reply.status_code == 200
        with Image.open(io.BytesIO(data)) as sent, Image.open(io.BytesIO(reply.content)) as back:
            assert back.size == sent.size
