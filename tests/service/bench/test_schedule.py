from __future__ import annotations

import itertools

import pytest

from service.bench.schedule import LEAST_SECONDS, MOST_SECONDS, arrivals, phases, seconds_each, settling, turns


def test_arrivals_come_at_the_rate_asked_for_within_the_time() -> None:
    times = arrivals(50.0, 100.0, seed=1)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 100


def test_gaps_between_arrivals_are_those_of_a_poisson_process() -> None:
    times = arrivals(10.0, 1000.0, seed=2)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance**0.5 == pytest.approx(mean, rel=0.05)  # exponential gaps; an even clock would give 0


def test_a_seed_decides_the_arrivals() -> None:
    assert arrivals(10.0, 5.0, 3) == arrivals(10.0, 5.0, 3)
    assert arrivals(10.0, 5.0, 3) != arrivals(10.0, 5.0, 4)


def test_closed_loops_come_before_the_open_ones_that_need_their_capacity() -> None:
    found = phases((32, 1, 32), (200, 50))
    assert [phase.name for phase in found] == ["1 client", "32 clients", "50 %", "200 %"]
    assert [phase.busy for phase in found] == [True, True, False, True]
    assert [phase.full_load for phase in found] == [False, True, False, True]
    assert [phase.standing_queue > 0 for phase in found] == [False, False, False, True]


def test_only_a_standing_queue_settles_before_arrivals() -> None:
    assert [settling(phase, 12.0) for phase in phases((32,), (120, 200))] == [0.0, 0.0, 2.0]
    assert settling(phases((), (200,))[0], 4.0) == 1.0


def test_the_time_left_is_shared_among_the_phases_left() -> None:
    assert seconds_each(100.0, 10) == pytest.approx(6.0)
    assert seconds_each(-5.0, 10) == LEAST_SECONDS
    assert seconds_each(1e6, 1) == MOST_SECONDS


def test_whatever_the_order_every_arm_has_its_turn_in_every_round() -> None:
    order = turns(("a", "b", "c", "d"), 6, seed=0)
    assert [number for number, _ in order] == sorted(number for number, _ in order)
    by_round = [[arm for number, arm in order if number == wanted] for wanted in range(6)]
    assert all(sorted(arms) == ["a", "b", "c", "d"] for arms in by_round)
    assert len({tuple(arms) for arms in by_round}) > 1
