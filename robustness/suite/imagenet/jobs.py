"""Jobs: what a section is made of, and the journal that says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from robustness.errors import OutOfTimeError
from robustness.observations import Observation

# What judging one adversary behind every defence costs, in gradients of one photo.
JUDGING = 20.0
# A job that was over sooner was read back from the cache, so it says nothing about how long others take.
CACHED = 1.0
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Job:
    """One attack and its judgement. ``cost`` is in gradients of one photo, for the estimate alone."""

    title: str
    cost: float
    measure: Callable[[], Sequence[Observation]] = field(repr=False)


@dataclass
class Journal:
    """Tells a line for every finished job: what is left, the time so far and an estimate of the time to go.

    No job is begun after ``deadline``, a time of ``clock``; one that is under way then may stop by OutOfTimeError.
    """

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    deadline: float | None = None
    began: float = field(init=False)
    _done: float = field(default=0.0, init=False)
    _total: float = field(default=0.0, init=False)
    _worked: tuple[float, float] = field(default=(0.0, 0.0), init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def expect(self, jobs: Sequence[Job]) -> None:
        """Count ``jobs`` in."""
        self._total += sum(job.cost for job in jobs)

    def run(self, section: str, jobs: Sequence[Job]) -> int:
        """Measure ``jobs``, one after another, while there is time; how many were measured whole."""
        for number, job in enumerate(jobs, start=1):
            start = self.clock()
            late = self.deadline is not None and start >= self.deadline
            try:
                seen = None if late else job.measure()
            except OutOfTimeError:
                seen = None
            if seen is None:
                self.say(f"{section}: time was up before {job.title} was measured; the same command goes on there")
                return number - 1
            took = self.clock() - start
            self._done += job.cost
            if took >= CACHED:
                self._worked = self._worked[0] + took, self._worked[1] + job.cost
            told = [part for part in (f"{section} {number}/{len(jobs)} {job.title}", left(seen)) if part]
            self.say(f"{': '.join(told)}; {duration(self.clock() - self.began)} so far{self._to_go()}")
        return len(jobs)

    def _to_go(self) -> str:
        seconds, cost = self._worked
        if not cost or self._done >= self._total:
            return ""
        return f", about {duration((self._total - self._done) * seconds / cost)} to go"


def left(seen: Sequence[Observation]) -> str:
    """What is left without a defence and behind each purifier, the mean of the victims, in words."""
    groups: dict[str, list[float]] = {}
    for one in seen:
        if one.role != "baseline":
            groups.setdefault(one.defence, []).append(one.score.percent)
    return ", ".join(f"{name} {sum(percents) / len(percents):.0f} %" for name, percents in groups.items())


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds where there are no more."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    hours, rest = divmod(round(seconds / MINUTE), HOUR // MINUTE)
    return f"{hours} h {rest:02d} min" if hours else f"{rest} min"
