from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from service.batcher import Batcher
from service.errors import DeadlineExceededError, EngineStoppedError, OverloadedError


class Device:
    """Stands in for the engine: records batches, waits at a gate, does what the payload says."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.gate = threading.Event()
        if is_open:
            self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[object]] = []
        self.threads: set[int] = set()

    def run(self, members: Any) -> Any:
        self.threads.add(threading.get_ident())
        self.entered.set()
        self.gate.wait(10)
        self.batches.append(list(members))
        if "bad" in members:
            raise ValueError("bad member")
        return [f"done {member}" for member in members]


def with_batcher(device: Any, scenario: Any, **options: Any) -> Any:
    """Run ``scenario(batcher, submit)`` in an event loop of its own."""

    async def main() -> Any:
        batcher = Batcher(device.run, **{"budget": 100, "max_waiting": 1000, **options})
        batcher.start()

        def submit(payload: Any, key: Any = "k", cost: int = 1, within: float = 10.0) -> Any:
            deadline = asyncio.get_running_loop().time() + within
            return asyncio.create_task(batcher.submit(payload, key=key, cost=cost, deadline=deadline))

        try:
            return await asyncio.wait_for(scenario(batcher, submit), 20)
        finally:
            device.gate.set()
            await batcher.close(5)

    return asyncio.run(main())


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


async def busy(device: Any, submit: Any) -> Any:
    """Occupy the device, so that what comes next queues up."""
    first = submit("first", key="other")
    await until(device.entered.is_set)
    return first


def test_what_waits_while_the_device_is_busy_runs_together() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        rest = [submit(n) for n in range(5)]
        await until(lambda: batcher.depth == 5)
        device.gate.set()
        results = [waited.result for waited in await asyncio.gather(first, *rest)]
        assert results == ["done first", *(f"done {n}" for n in range(5))]

    with_batcher(device, scenario)
    assert device.batches == [["first"], [0, 1, 2, 3, 4]]
    assert len(device.threads) == 1


def test_a_batch_stays_within_the_budget_but_one_member_always_runs() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        rest = [submit(cost, cost=cost) for cost in (60, 40, 1, 500, 100)]
        await until(lambda: batcher.depth == 5)
        device.gate.set()
        await asyncio.gather(first, *rest)

    with_batcher(device, scenario)
    assert device.batches == [["first"], [60, 40], [1], [500], [100]]


def test_keys_are_not_mixed_and_the_longest_waiting_bucket_goes_first() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        order = [submit(1, key="a"), submit(2, key="b"), submit(3, key="a"), submit(4, key="b")]
        await until(lambda: batcher.depth == 4)
        device.gate.set()
        await asyncio.gather(first, *order)

    with_batcher(device, scenario)
    assert device.batches == [["first"], [1, 3], [2, 4]]


def test_a_busy_bucket_does_not_starve_another() -> None:
    device = Device()

    async def scenario(batcher: Any, submit: Any) -> None:
        flood = [submit(n, key="busy") for n in range(50)]
        lonely = submit("lonely", key="rare")
        later = [submit(100 + n, key="busy") for n in range(50)]
        await asyncio.gather(*flood, lonely, *later)

    with_batcher(device, scenario, budget=5)
    place = next(index for index, batch in enumerate(device.batches) if batch == ["lonely"])
    assert place <= 50 / 5 + 1


def test_one_bad_member_fails_alone() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        tasks = [submit(1), submit("bad"), submit(2)]
        await until(lambda: batcher.depth == 3)
        device.gate.set()
        await first
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert good.result == "done 1"
        assert other.result == "done 2"
        assert isinstance(bad, ValueError)
        assert batcher.alive

    with_batcher(device, scenario)


def test_a_device_that_always_raises_answers_everybody_and_the_loop_goes_on() -> None:
    device = Device()

    async def scenario(batcher: Any, submit: Any) -> None:
        failures = await asyncio.gather(*[submit("bad") for _ in range(20)], return_exceptions=True)
        assert all(isinstance(failure, ValueError) for failure in failures)
        assert (await submit(1)).result == "done 1"

    with_batcher(device, scenario)


def test_a_storm_of_cancellations_leaves_the_loop_running() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        tasks = [submit(n, key=n % 7) for n in range(500)]
        await until(lambda: batcher.depth == 500)
        for task in tasks[::2]:
            task.cancel()
        await until(lambda: batcher.depth == 250)
        first.cancel()  # the one on the device
        device.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
        assert [waited.result for waited in results[1::2]] == [f"done {n}" for n in range(1, 500, 2)]
        assert batcher.alive

    with_batcher(device, scenario)
    assert sum(len(batch) for batch in device.batches) == 251


def test_cancelled_while_running_does_not_disturb_the_rest_of_the_batch() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        tasks = [submit(n) for n in range(4)]
        await until(lambda: batcher.depth == 4)
        device.entered.clear()
        device.gate.set()
        await first
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [waited.result for n, waited in enumerate(results) if n != 1] == ["done 0", "done 2", "done 3"]

    with_batcher(device, scenario)


def test_what_is_past_its_deadline_is_not_run() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        late, fine = submit("late", within=0.01), submit("fine")
        await until(lambda: batcher.depth == 2)
        await asyncio.sleep(0.03)
        device.gate.set()
        await first
        with pytest.raises(DeadlineExceededError):
            await late
        assert (await fine).result == "done fine"

    with_batcher(device, scenario)
    assert device.batches == [["first"], ["fine"]]


def test_when_a_whole_bucket_expired_the_next_one_still_runs() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        late, fine = submit("late", key="a", within=0.01), submit("fine", key="b")
        await until(lambda: batcher.depth == 2)
        await asyncio.sleep(0.03)
        device.gate.set()
        await first
        assert (await fine).result == "done fine"
        with pytest.raises(DeadlineExceededError):
            await late

    with_batcher(device, scenario)


def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        waiting = [submit(n) for n in range(3)]
        await until(lambda: batcher.depth == 3)
        with pytest.raises(OverloadedError) as refused:
            await submit("one too many")
        assert refused.value.reason == "queue_full"
        assert 1 <= refused.value.retry_after <= 30
        device.gate.set()
        await asyncio.gather(first, *waiting)

    with_batcher(device, scenario, max_waiting=3)


def test_when_the_loop_dies_every_caller_is_answered_and_it_shows() -> None:
    device = Device(is_open=False)
    calls = []

    def on_batch(size: int) -> None:
        calls.append(size)
        if len(calls) == 2:
            raise RuntimeError("a defect in the loop")

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        waiting = [submit(n, key=n) for n in range(5)]
        await until(lambda: batcher.depth == 5)
        device.gate.set()
        assert (await first).result == "done first"
        for task in waiting:
            with pytest.raises(EngineStoppedError):
                await task
        assert not batcher.alive
        with pytest.raises(EngineStoppedError):
            await submit("later")

    with_batcher(device, scenario, on_batch=on_batch)


def test_when_the_loop_is_cancelled_the_running_batch_is_answered_too() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        next(task for task in asyncio.all_tasks() if task.get_name() == "batcher").cancel()
        with pytest.raises(EngineStoppedError):
            await first
        assert not batcher.alive

    with_batcher(device, scenario)


def test_close_finishes_what_waits_and_takes_no_more() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        waiting = submit("waiting")
        await until(lambda: batcher.depth == 1)
        closing = asyncio.create_task(batcher.close(5))
        await asyncio.sleep(0)
        with pytest.raises(EngineStoppedError):
            await submit("too late")
        device.gate.set()
        await closing
        assert (await first).result == "done first"
        assert (await waiting).result == "done waiting"

    with_batcher(device, scenario)


def test_close_gives_up_after_its_time_and_answers_the_rest() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        first = await busy(device, submit)
        begun = time.monotonic()
        await batcher.close(0.05)
        assert time.monotonic() - begun < 5
        with pytest.raises(EngineStoppedError):
            await first
        device.gate.set()

    with_batcher(device, scenario)


def test_busy_time_is_that_of_the_running_batch() -> None:
    device = Device(is_open=False)

    async def scenario(batcher: Any, submit: Any) -> None:
        assert batcher.busy_s == 0.0
        first = await busy(device, submit)
        await asyncio.sleep(0.02)
        assert batcher.busy_s >= 0.02
        device.gate.set()
        assert (await first).queued_s >= 0.0
        assert batcher.busy_s == 0.0

    with_batcher(device, scenario)
