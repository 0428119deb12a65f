from __future__ import annotations

import pytest

from service.remote.breaker import Breaker, Verdict


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(breaker: Breaker, times: int, verdict: Verdict = "failure") -> None:
    for _ in range(times):
        assert breaker.enter()
        breaker.leave(verdict)


def test_it_opens_after_failures_in_a_row_and_no_earlier(clock: Clock) -> None:
    breaker = Breaker(3, 10, clock)
    fail(breaker, 2)
    fail(breaker, 1, "success")
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert (breaker.state, breaker.enter(), breaker.retry_after) == ("open", False, 10)


def test_what_says_nothing_of_the_server_counts_neither_way(clock: Clock) -> None:
    breaker = Breaker(2, 10, clock)
    fail(breaker, 1)
    fail(breaker, 5, "neither")
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(1, 10, clock)
    fail(breaker, 1)
    clock.now += 9.5
    assert (breaker.enter(), breaker.retry_after) == (False, 1)
    clock.now += 0.5
    assert breaker.state == "half-open"
    return breaker


def test_half_open_lets_one_through_which_closes_it(clock: Clock) -> None:
    breaker = opened(clock)
    assert (breaker.enter(), breaker.enter()) == (True, False)
    assert breaker.retry_after == 1
    breaker.leave("success")
    assert (breaker.state, breaker.enter(), breaker.enter()) == ("closed", True, True)


def test_or_opens_it_again(clock: Clock) -> None:
    breaker = opened(clock)
    assert breaker.enter()
    breaker.leave("failure")
    assert (breaker.state, breaker.retry_after) == ("open", 10)


def test_a_probe_that_was_given_up_leaves_its_place_to_the_next(clock: Clock) -> None:
    breaker = opened(clock)
    assert breaker.enter()
    breaker.leave("neither")
    assert (breaker.state, breaker.enter()) == ("half-open", True)


def test_a_closed_breaker_needs_as_many_failures_again(clock: Clock) -> None:
    breaker = Breaker(2, 10, clock)
    fail(breaker, 2)
    clock.now += 10
    fail(breaker, 1, "success")
    fail(breaker, 1)
    assert breaker.state == "closed"
