"""The whole benchmark in order: absent peers, rounds of arms and of the loop, one image, the soak."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from service.bench.errors import BenchError
from service.bench.rows import Row
from service.bench.schedule import LEAST_SECONDS, Phase, seconds_each, turns
from service.bench.servers import ARMS, Server, absent, environment
from service.bench.soak import soak
from service.bench.task import Task
from service.bench.trial import run_trial

PARTS = ("load", "single", "soak")
LOOP = "loop"
# Shares of the time that other parts than load get, and how long one of their processes may take beyond that.
SINGLE_SHARE, SOAK_SHARE, LOOP_SHARE = 0.1, 0.15, 0.05
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Plan:
    """What to measure. ``scratch`` takes the logs of the servers."""

    task: Task
    arms: tuple[str, ...]
    phases: tuple[Phase, ...]
    rounds: int
    minutes: float
    soak_requests: int
    parts: tuple[str, ...]
    peers: Path | None
    scratch: Path
    say: Callable[[str], None]

    @property
    def seconds(self) -> float:
        """All the time there is."""
        return 60 * self.minutes


def conduct(plan: Plan) -> Iterator[Row]:
    """Rows as they are measured."""
    if "load" in plan.parts:
        yield from _load(plan)
    if "single" in plan.parts:
        plan.say("one image: the authors' way and ours")
        yield from child(plan, "service.bench.single", plan.seconds * SINGLE_SHARE / 12)
    if "soak" in plan.parts:
        plan.say(f"soak: {plan.soak_requests} requests of mixed sizes")
        limit = max(LEAST_SECONDS, plan.seconds * SOAK_SHARE)
        yield soak(plan.task, plan.peers, plan.scratch / "soak.log", plan.soak_requests, limit)


def _load(plan: Plan) -> Iterator[Row]:
    missing = {name: why for name in plan.arms if (why := absent(ARMS[name], plan.peers))}
    yield from (Row(measure="absent", subject=name, note=why) for name, why in missing.items())
    present = [name for name in plan.arms if name not in missing]
    shares = {"single": SINGLE_SHARE, "soak": SOAK_SHARE}
    taken = LOOP_SHARE + sum(share for part, share in shares.items() if part in plan.parts)
    end = time.monotonic() + plan.seconds * (1 - taken)
    loop_s = plan.seconds * LOOP_SHARE / plan.rounds
    order = turns([*present, LOOP], plan.rounds, plan.task.seed)
    # The loop's first round goes before all: its answer is what the servers' are compared with.
    order.insert(0, order.pop(next(place for place, (_, arm) in enumerate(order) if arm == LOOP)))
    phases = {name: ARMS[name].phases(plan.phases) for name in present}
    left = sum(map(len, phases.values())) * plan.rounds

    def seconds_for() -> float:
        nonlocal left
        left -= 1
        return seconds_each(end - time.monotonic(), left + 1)

    for number, name in order:
        plan.say(f"round {number + 1} of {plan.rounds}: {name}")
        if name == LOOP:
            yield from (row.model_copy(update={"round": number}) for row in child(plan, "service.bench.loop", loop_s))
            continue
        before = left
        reference = (plan.scratch / "loop.png").read_bytes()
        log = plan.scratch / f"{name}-{number}.log"
        start = partial(Server.of, ARMS[name], plan.task, plan.peers, log)
        yield from run_trial(ARMS[name], plan.task, start, number, reference, phases[name], seconds_for)
        left = before - len(phases[name])


def child(plan: Plan, module: str, seconds: float) -> Sequence[Row]:
    """The rows of a measurement in a process of its own. Raises BenchError with the end of what it said."""
    target = plan.scratch / f"{module.rpartition('.')[2]}.jsonl"
    done = subprocess.run(  # noqa: S603 - our own interpreter and our own modules
        [sys.executable, "-m", module, f"{seconds:.2f}", str(target)],
        env=environment(plan.peers, **plan.task.environment()),
        capture_output=True,
        text=True,
        timeout=plan.seconds + PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{module} failed: {' '.join(done.stderr.split())[-600:]}")
    try:
        return [Row.model_validate_json(line) for line in target.read_text().splitlines()]
    except ValidationError as error:
        raise BenchError(f"{target} is damaged; measure again") from error
