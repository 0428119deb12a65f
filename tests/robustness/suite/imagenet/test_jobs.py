from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from robustness.errors import OutOfTimeError
from robustness.observations import CLEAN, Observation
from robustness.scores import accuracy
from robustness.suite.imagenet.jobs import Job, Journal, duration, left


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> Callable[[], Sequence[Observation]]:
        def measure() -> Sequence[Observation]:
            self.now += seconds
            return ()

        return measure


def test_a_line_a_job_says_the_time_so_far_and_what_is_to_come() -> None:
    clock, lines = Clock(), list[str]()
    journal = Journal(lines.append, clock)
    jobs = [Job("one", 10, clock.takes(100)), Job("two", 20, clock.takes(200)), Job("bars", 0, clock.takes(0))]
    journal.expect(jobs)
    journal.run("unaware", jobs)
    assert lines == [
        "unaware 1/3 one; 2 min so far, about 3 min to go",
        "unaware 2/3 two; 5 min so far",
        "unaware 3/3 bars; 5 min so far",
    ]


def test_what_was_read_back_says_nothing_about_what_is_to_come() -> None:
    clock, lines = Clock(), list[str]()
    journal = Journal(lines.append, clock)
    jobs = [Job("cached", 50, clock.takes(0.1)), Job("made", 50, clock.takes(600)), Job("last", 50, clock.takes(600))]
    journal.expect(jobs)
    journal.run("transfer", jobs)
    assert lines[0] == "transfer 1/3 cached; 0 s so far"
    assert lines[1].endswith("10 min so far, about 10 min to go")


def late() -> Sequence[Observation]:
    raise OutOfTimeError("time was up between two batches")


def test_after_the_deadline_no_job_is_begun_and_it_says_where_to_go_on() -> None:
    clock, lines = Clock(), list[str]()
    journal = Journal(lines.append, clock, deadline=150)
    jobs = [Job("one", 10, clock.takes(100)), Job("two", 20, clock.takes(200)), Job("three", 20, clock.takes(1))]
    assert journal.run("unaware", jobs) == 2
    assert lines[-1] == "unaware: time was up before three was measured; the same command goes on there"
    assert clock.now == 300


def test_a_job_that_stops_in_time_is_not_counted() -> None:
    clock, lines = Clock(), list[str]()
    jobs = [Job("one", 10, clock.takes(1)), Job("two", 20, late), Job("three", 20, clock.takes(1))]
    assert Journal(lines.append, clock).run("aware", jobs) == 1
    assert "before two was measured" in lines[-1]
    assert clock.now == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.4, "59 s"), (60, "1 min"), (3600, "1 h 00 min"), (5400, "1 h 30 min")]
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_mean_of_the_victims_is_told_without_the_baselines() -> None:
    def seen(victim: str, defence: str, role: str, right: list[int]) -> Observation:
        return Observation(CLEAN, victim, defence, role, accuracy(torch.tensor(right)))  # type: ignore[arg-type]

    told = left(
        [
            seen("a", "none", "none", [1, 1]),
            seen("b", "none", "none", [1, 0]),
            seen("a", "JPEG 20", "baseline", [1, 1]),
            seen("a", "nrp", "purifier", [0, 1]),
        ]
    )
    assert told == "none 75 %, nrp 50 %"
