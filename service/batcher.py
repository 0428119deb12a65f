"""The batcher: what waits for the device, and the loops that feed it, one for each of its lanes.

Pull when free: nothing waits for a timer. While the device works, callers queue up in buckets of equal key; when it
is free, the bucket of the caller who has waited longest is run, as many of its members as the budget permits, or just
that caller where several lanes run side by side. The loops know nothing of tensors: ``run`` is passed in and is only
ever called on the lanes' own threads.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import structlog

from service.device_thread import DeviceThread
from service.errors import DeadlineExceededError, EngineStoppedError, OverloadedError
from service.isolation import Run, run_isolated

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

LONGEST_RETRY_AFTER = 30

log = structlog.get_logger()


@dataclass(frozen=True)
class Waited(Generic[R]):
    """A result, and the seconds it waited for the device."""

    result: R
    queued_s: float


@dataclass(eq=False)
class _Waiting(Generic[P, R]):
    """One caller's place in the queue. Times are the event loop's clock."""

    payload: P
    cost: int
    deadline: float
    order: int
    since: float
    future: asyncio.Future[Waited[R]]


@dataclass(eq=False)
class _Lane(Generic[P, R]):
    """One of the device's threads, the loop that feeds it, and what it runs now."""

    thread: DeviceThread = field(default_factory=DeviceThread)
    loop: asyncio.Task[None] | None = None
    running: list[_Waiting[P, R]] = field(default_factory=list)
    busy_since: float | None = None

    @property
    def alive(self) -> bool:
        return self.loop is not None and not self.loop.done() and self.thread.alive


class Batcher(Generic[P, R]):
    """One queue; a loop and a device thread for each of ``lanes``.

    ``budget`` bounds the summed cost of a batch (one member may exceed it alone) and may change from batch to batch;
    ``max_waiting`` bounds the queue.
    """

    def __init__(
        self,
        run: Run[P, R],
        *,
        budget: int | Callable[[], int],
        max_waiting: int,
        lanes: int = 1,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._budget: Callable[[], int] = budget if callable(budget) else partial(int, budget)
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._buckets: dict[Hashable, deque[_Waiting[P, R]]] = {}
        self._orders = 0
        self._expected = 0
        self._wake = asyncio.Event()
        self._accepting = False
        self._seconds_per_cost = 0.0
        self._lanes: tuple[_Lane[P, R], ...] = tuple(_Lane() for _ in range(lanes))

    def start(self) -> None:
        """Start the loops. Call once, inside the event loop."""
        self._accepting = True
        for lane in self._lanes:
            lane.loop = asyncio.create_task(self._serve(lane), name="batcher")

    @property
    def alive(self) -> bool:
        """True while all loops and device threads run. Once false, it stays so and submit raises EngineStoppedError."""
        return all(lane.alive for lane in self._lanes)

    @property
    def depth(self) -> int:
        """Callers waiting, not counting those being run."""
        return sum(len(bucket) for bucket in self._buckets.values())

    @property
    def busy_s(self) -> float:
        """Seconds that the longest of the present batches has been running; 0 when the device is free."""
        begun = [lane.busy_since for lane in self._lanes if lane.busy_since is not None]
        return time.monotonic() - min(begun) if begun else 0.0

    @contextmanager
    def expecting(self, count: int = 1) -> Iterator[None]:
        """Hold room in the queue for ``count`` callers who are about to submit; leave the block just before they do.

        Raises OverloadedError where there is none, so that whoever cannot be queued is told before any work is done.
        """
        self.check_room(count)
        self._expected += count
        try:
            yield
        finally:
            self._expected -= count

    def retry_after(self) -> int:
        """Whole seconds until what waits now should be done, by the pace of recent batches."""
        cost = sum(item.cost for bucket in self._buckets.values() for item in bucket)
        cost += sum(item.cost for lane in self._lanes for item in lane.running)
        return min(LONGEST_RETRY_AFTER, max(1, math.ceil(cost * self._seconds_per_cost / len(self._lanes))))

    async def on_device(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a device thread, between batches. Raises EngineStoppedError once that has ended.

        Other lanes go on meanwhile.
        """
        return await asyncio.wrap_future(self._lanes[0].thread.submit(work))

    async def submit(self, payload: P, *, key: Hashable, cost: int, deadline: float) -> Waited[R]:
        """Queue ``payload`` and wait for its result; cancelling the call drops it from the queue.

        ``deadline`` is in event loop time: what has not begun by then gets DeadlineExceededError. Raises
        OverloadedError when the queue is full, EngineStoppedError when the loop does not run, or whatever
        ``run`` raised for this member.
        """
        if not (self.alive and self._accepting):
            raise EngineStoppedError("the engine does not take work any more; try another instance or retry later")
        self.check_room()
        loop = asyncio.get_running_loop()
        self._orders += 1
        item = _Waiting[P, R](payload, cost, deadline, self._orders, loop.time(), loop.create_future())
        self._buckets.setdefault(key, deque()).append(item)
        self._wake.set()
        try:
            return await item.future
        finally:
            if not item.future.cancel():  # an answer that crossed with a cancellation counts as read
                _ = item.future.cancelled() or item.future.exception()
            self._forget_if_waiting(key, item)

    async def close(self, within_s: float) -> None:
        """Take no more work, finish what waits, end the loops; what is left after ``within_s`` is answered with
        EngineStoppedError."""
        self._accepting = False
        self._wake.set()
        loops = [lane.loop for lane in self._lanes if lane.loop is not None]
        if loops:
            _, late = await asyncio.wait(loops, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.wait(loops)
        for lane in self._lanes:
            lane.thread.stop()

    def check_room(self, count: int = 1) -> None:
        """Raises OverloadedError where ``count`` more callers would find no room in the queue."""
        if self.depth + self._expected + count > self._max_waiting:
            raise OverloadedError(
                f"{self._max_waiting} images are waiting already; retry later", "queue_full", self.retry_after()
            )

    def _forget_if_waiting(self, key: Hashable, item: _Waiting[P, R]) -> None:
        bucket = self._buckets.get(key)
        if bucket is not None and item in bucket:
            bucket.remove(item)
            if not bucket:
                del self._buckets[key]

    async def _serve(self, lane: _Lane[P, R]) -> None:
        """A lane's loop. However it ends, every caller is answered."""
        try:
            while True:
                batch = self._next_batch()
                if batch:
                    await self._run_batch(lane, batch)
                elif self._accepting:
                    await self._wake.wait()
                    self._wake.clear()
                elif not self._buckets:
                    return
        except asyncio.CancelledError:
            raise
        except BaseException:  # the end of the loop shows in ``alive``; its reason belongs in the log
            log.exception("batcher_died")
        finally:
            self._answer_all(lane)

    def _answer_all(self, lane: _Lane[P, R]) -> None:
        left = [*lane.running, *(item for bucket in self._buckets.values() for item in bucket)]
        self._buckets.clear()
        lane.running = []
        for item in left:
            _fail(item, EngineStoppedError("the engine stopped before this image was done; retry later"))

    def _next_batch(self) -> list[_Waiting[P, R]]:
        """What to run next; empty only when nobody waits."""
        batch: list[_Waiting[P, R]] = []
        while self._buckets and not batch:
            key = min(self._buckets, key=lambda k: self._buckets[k][0].order)
            batch = self._take_from(self._buckets[key])
            if not self._buckets[key]:
                del self._buckets[key]
        return batch

    def _take_from(self, bucket: deque[_Waiting[P, R]]) -> list[_Waiting[P, R]]:
        """The head of ``bucket`` up to the budget, without those that gave up or came too late."""
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting[P, R]] = []
        left = self._budget() if len(self._lanes) == 1 else 0
        while bucket and (not batch or bucket[0].cost <= left):
            item = bucket.popleft()
            if item.deadline <= now:
                _fail(item, DeadlineExceededError("the image waited for the device past its deadline; retry later"))
            elif not item.future.done():
                batch.append(item)
                left -= item.cost
        return batch

    async def _run_batch(self, lane: _Lane[P, R], batch: list[_Waiting[P, R]]) -> None:
        loop = asyncio.get_running_loop()
        begun, lane.busy_since, lane.running = loop.time(), time.monotonic(), batch
        self._on_batch(len(batch))
        work = partial(run_isolated, self._run, [item.payload for item in batch])
        try:
            outcomes = await asyncio.wrap_future(lane.thread.submit(work))
        finally:
            lane.busy_since = None
        self._learn_pace(loop.time() - begun, sum(item.cost for item in batch))
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                _fail(item, outcome)
            elif not item.future.done():
                item.future.set_result(Waited(outcome, begun - item.since))
        lane.running = []

    def _learn_pace(self, seconds: float, cost: int) -> None:
        latest = seconds / max(1, cost)
        known = self._seconds_per_cost
        self._seconds_per_cost = latest if known == 0.0 else 0.8 * known + 0.2 * latest


def _fail(item: _Waiting[P, R], error: Exception) -> None:
    """Answer with ``error`` unless the caller is gone."""
    if not item.future.done():
        item.future.set_exception(error)
