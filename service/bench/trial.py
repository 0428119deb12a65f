"""One arm under load: every phase in turn, with its memory and its liveness watched."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from service.bench.bars import setting_of
from service.bench.errors import BenchError
from service.bench.figures import Sample, percentile, summary
from service.bench.load import Target, beside, closed_loop, open_loop, probing
from service.bench.processes import resident_bytes
from service.bench.rows import Row
from service.bench.schedule import Phase, arrivals, settling
from service.bench.servers import Arm, Server, mean_batch
from service.bench.task import Task

PROBE_S = 0.05
MEMORY_S = 0.5
MEBI = 1 << 20
# A queue that no server empties in this many times the phase's length counts as unanswered.
GRACE = 2.0


@dataclass
class Trial:
    """One residence of one arm."""

    arm: Arm
    task: Task
    server: Server
    round: int
    reference: bytes
    capacity: float = 0.0

    def check(self) -> None:
        """The first answer, which must be the same image as without a server. Raises BenchError."""
        answer = self.server.wait_until(self.arm.upload(self.task, self.task.image()))
        off = difference(answer, self.reference)
        if off > 1:
            raise BenchError(f"{self.arm.words} answers another image than the bare model: {off} levels apart")

    def measure(self, phases: Sequence[Phase], seconds_for: Callable[[], float]) -> list[Row]:
        """A row a phase; open loops come after the closed ones that tell the capacity."""
        return [asyncio.run(self._phase(phase, seconds_for())) for phase in phases]

    async def _phase(self, phase: Phase, seconds: float) -> Row:
        target = Target(self.server.port)
        live: list[Sample] = []
        memory: list[int] = []
        before, begun = self.server.metrics(), time.perf_counter()
        try:
            samples = await beside(
                self._load(target, phase, seconds),
                probing(self.server.port, self.arm.live, PROBE_S, live),
                self._watch_memory(memory),
            )
        finally:
            target.close()
        figures = summary(samples, begun, seconds, busy=phase.busy)
        if phase.kind == "closed":
            self.capacity = max(self.capacity, figures["goodput_per_s"])
        elif self.capacity:
            figures["share_of_capacity"] = figures["goodput_per_s"] / self.capacity
            figures["offered_per_s"] = self.capacity * phase.level / 100
        figures |= {"full_load": float(phase.full_load)} | watched(live, memory)
        batch = mean_batch(before, self.server.metrics(), self.arm.batches)
        figures |= {} if batch is None else {"mean_batch": batch}
        rounded = {name: round(value, 4) for name, value in figures.items()}
        return Row(measure="load", subject=self.arm.name, setting=setting_of(phase), round=self.round, figures=rounded)

    async def _load(self, target: Target, phase: Phase, seconds: float) -> list[Sample]:
        request = self.arm.upload(self.task, self.task.image())
        if phase.kind == "closed":
            return await closed_loop(target, lambda: request, phase.level, seconds)
        if not self.capacity:
            raise BenchError(f"{self.arm.words} answered nothing in a closed loop, so it has no capacity to load")
        wait, rate = settling(phase, seconds), self.capacity * phase.level / 100
        times = [wait + time for time in arrivals(rate, seconds - wait, self.task.seed + self.round)]
        grace = GRACE * seconds
        return await open_loop(target, request, times, standing=phase.standing_queue, seconds=seconds, grace_s=grace)

    async def _watch_memory(self, found: list[int]) -> None:
        while True:
            # In a thread: reading about every process would hold up the clients.
            found.append(resident_bytes(await asyncio.to_thread(self.server.processes)))
            await asyncio.sleep(MEMORY_S)


def watched(live: Sequence[Sample], memory: Sequence[int]) -> dict[str, float]:
    """Figures of the probes and of memory; a probe that was not answered well counts as long as it took."""
    found = {"live_p99_ms": percentile([sample.milliseconds for sample in live], 99)} if live else {}
    found |= {"live_failed": float(sum(sample.status != 200 for sample in live))} if live else {}
    if memory and memory[-1]:
        found |= {"rss_peak_mib": max(memory) / MEBI, "rss_end_mib": memory[-1] / MEBI}
    return found


def difference(answer: bytes, reference: bytes) -> int:
    """The largest difference of two image files in levels; 255 where they are not of one size."""
    with Image.open(io.BytesIO(answer)) as one, Image.open(io.BytesIO(reference)) as other:
        if one.size != other.size:
            return 255
        levels = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in (one, other)]
    return int(np.abs(levels[0] - levels[1]).max(initial=0))


def run_trial(
    arm: Arm,
    task: Task,
    start: Callable[[], Server],
    number: int,
    reference: bytes,
    phases: Sequence[Phase],
    seconds_for: Callable[[], float],
) -> list[Row]:
    """Start an arm, measure it, stop it. One that fails gives a row that says how, and the others go on."""
    try:
        with start() as server:
            trial = Trial(arm, task, server, number, reference)
            trial.check()
            return trial.measure(phases, seconds_for)
    except BenchError as error:
        return [Row(measure="absent", subject=arm.name, round=number, note=f"failed: {error}")]
