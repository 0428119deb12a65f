"""The soak: many requests of mixed sizes to this service, and what its memory comes to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from service.bench.connection import Request
from service.bench.figures import Sample, summary
from service.bench.load import Target, closed_loop
from service.bench.processes import resident_bytes
from service.bench.rows import Row
from service.bench.servers import ARMS, OURS, Server
from service.bench.task import Task, picture
from service.bench.trial import MEBI

CLIENTS = 8
FIRST = 500
SHAPES = 48
SIDES = (16, 96)


def sizes(seed: int) -> list[tuple[int, int]]:
    """Shapes that requests take turns with: many, so that memory kept for each shape would show."""
    chance = random.Random(seed)  # noqa: S311 - shapes, not secrets
    return [(chance.randint(*SIDES), chance.randint(*SIDES)) for _ in range(SHAPES)]


def soak(task: Task, peers: Path | None, log: Path, requests: int, seconds: float) -> Row:
    """``requests`` requests, or as many as ``seconds`` allow."""
    arm = ARMS[OURS]
    uploads = [arm.upload(task, picture(width, height, task.seed)) for width, height in sizes(task.seed)]
    with Server.of(arm, task, peers, log) as server:
        server.wait_until(uploads[0])
        figures = asyncio.run(_soak(server, uploads, requests, seconds))
    return Row(measure="soak", subject=OURS, setting="mixed sizes", figures=figures)


async def _soak(server: Server, uploads: list[Request], requests: int, seconds: float) -> dict[str, float]:
    """First some hundreds, after which memory should stay as it is, then the rest."""
    target = Target(server.port)
    left = iter(itertools.islice(itertools.cycle(uploads), requests))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        first = await closed_loop(target, _limited(left, min(FIRST, requests)), CLIENTS, seconds)
        early = resident_bytes(server.processes())
        rest = await closed_loop(target, lambda: next(left, None), CLIENTS, max(0.0, seconds - (loop.time() - begun)))
        late = resident_bytes(server.processes())
    finally:
        target.close()
    return soak_figures([*first, *rest], early, late, loop.time() - begun)


def soak_figures(samples: list[Sample], early: int, late: int, seconds: float) -> dict[str, float]:
    """Memory in MiB after the first and at the end, and the one over the other where the system tells."""
    begun = min((sample.due for sample in samples), default=0.0)
    found = summary(samples, begun, seconds, busy=True)
    if early:
        found |= {"rss_first_mib": early / MEBI, "rss_end_mib": late / MEBI, "growth": late / early}
    return {name: round(value, 4) for name, value in found.items()}


def _limited(requests: Iterator[Request], count: int) -> Callable[[], Request | None]:
    few = itertools.islice(requests, count)
    return lambda: next(few, None)
