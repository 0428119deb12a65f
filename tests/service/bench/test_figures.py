from __future__ import annotations

import pytest

from service.bench.figures import UNANSWERED, Sample, middle, percentile, summary


def good(due: float, ended: float, *, counts: bool = True) -> Sample:
    return Sample(due, ended, 200, good=True, counts=counts)


@pytest.mark.parametrize(("share", "expected"), [(1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_of_few_values_p99_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_the_middle_of_an_even_number_is_between_the_two() -> None:
    assert middle([4.0, 1.0, 3.0]) == 3.0
    assert middle([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_latency_is_counted_from_when_a_request_was_due() -> None:
    found = summary([good(10.0, 10.5), good(10.0, 12.0)], 10.0, 4.0, busy=False)
    assert found["p50_ms"] == pytest.approx(500)
    assert found["p99_ms"] == pytest.approx(2000)


def test_an_answer_after_the_end_has_a_latency_but_is_no_goodput() -> None:
    found = summary([good(0.0, 1.0), good(0.0, 9.0)], 0.0, 4.0, busy=False)
    assert found["goodput_per_s"] == pytest.approx(0.25)
    assert found["p99_ms"] == pytest.approx(9000)


def test_of_a_busy_server_the_time_ends_with_its_last_answer() -> None:
    batches = [good(0.0, ended) for ended in (1.0, 1.0, 2.0, 2.0, 3.0, 3.0)]
    assert summary(batches, 0.0, 3.9, busy=True)["goodput_per_s"] == pytest.approx(2.0)
    assert summary(batches, 0.0, 3.9, busy=False)["goodput_per_s"] == pytest.approx(6 / 3.9)


def test_a_busy_server_too_slow_for_the_phase_has_a_rate_all_the_same() -> None:
    assert summary([good(0.0, 10.0), good(0.0, 20.0)], 0.0, 4.0, busy=True)["goodput_per_s"] == pytest.approx(0.1)
    assert summary([good(0.0, 10.0)], 0.0, 4.0, busy=False)["goodput_per_s"] == 0


def test_what_became_of_each_request_is_counted_once() -> None:
    samples = [
        good(0.0, 0.1),
        Sample(0.0, 0.02, 429, says_when=True),
        Sample(0.0, 0.04, 429),
        Sample(0.0, 0.1, 500),
        Sample(0.0, 0.1, UNANSWERED),
        Sample(0.0, 0.1, 200),  # 200 without an image is an error
    ]
    found = summary(samples, 0.0, 1.0, busy=False)
    assert (found["good"], found["rejected"], found["errors"], found["unanswered"]) == (1, 2, 2, 1)
    assert found["rejected_without_retry_after"] == 1
    assert found["rejected_p99_ms"] == pytest.approx(40)


def test_a_standing_queue_counts_for_goodput_but_not_for_latencies() -> None:
    found = summary([good(0.0, 0.9, counts=False), good(0.5, 0.6)], 0.0, 1.0, busy=False)
    assert found["goodput_per_s"] == pytest.approx(2.0)
    assert found["p99_ms"] == pytest.approx(100)


def test_without_a_good_answer_there_is_no_latency() -> None:
    assert "p50_ms" not in summary([Sample(0.0, 1.0, 500)], 0.0, 1.0, busy=True)
