from __future__ import annotations

from collections.abc import Callable

import pytest

from service.bench.bars import BARS, Verdict, against_peer, throughput_at, verdicts
from service.bench.rows import Report, Row

ReportOf = Callable[..., Report]


def load(arm: str, setting: str, number: int = 0, **figures: float) -> Row:
    return Row(measure="load", subject=arm, setting=setting, round=number, figures=figures)


def loop(batch: int, number: int = 0, **figures: float) -> Row:
    return Row(measure="loop", subject="loop", setting=f"batch {batch}", round=number, figures=figures)


def single(network: str, setting: str, **figures: float) -> Row:
    return Row(measure="single", subject=network, setting=setting, figures=figures)


def verdict(report: Report, words: str) -> Verdict:
    (found,) = [one for one in verdicts(report) if words in one.bar.words]
    return found


def test_a_run_without_rows_meets_nothing_and_misses_nothing(report_of: ReportOf) -> None:
    assert [one.word for one in verdicts(report_of())] == ["not measured"] * len(BARS)


def test_throughput_is_over_the_best_batch_of_the_loop(report_of: ReportOf) -> None:
    rows = [loop(1, goodput_per_s=8.0), loop(8, goodput_per_s=10.0), loop(16, goodput_per_s=9.0)]
    met = verdict(report_of(*rows, load("nrp", "closed 32 clients", goodput_per_s=9.0)), "loop without HTTP")
    missed = verdict(report_of(*rows, load("nrp", "closed 32 clients", goodput_per_s=8.9)), "loop without HTTP")
    assert (met.value, met.word) == (pytest.approx(0.9), "met")
    assert missed.word == "missed"


def test_added_latency_is_taken_round_by_round(report_of: ReportOf) -> None:
    rows = [
        *(loop(1, number, p50_ms=ms) for number, ms in enumerate((100.0, 150.0, 100.0))),
        *(load("nrp", "closed 1 client", number, p50_ms=ms) for number, ms in enumerate((102.0, 152.0, 104.0))),
    ]
    found = verdict(report_of(*rows), "p50 at 1 client")
    assert (found.value, found.word) == (pytest.approx(2.0), "met")


def test_throughput_at_a_latency_lies_between_measured_points() -> None:
    known = [(100.0, 5.0), (300.0, 9.0), (900.0, 8.0)]
    assert throughput_at(known, 99.0) == 0.0
    assert throughput_at(known, 100.0) == 5.0
    assert throughput_at(known, 200.0) == pytest.approx(7.0)
    assert throughput_at(known, 600.0) == 9.0
    assert throughput_at(known, 5000.0) == 9.0


def test_the_best_peer_is_the_one_that_leaves_us_least(report_of: ReportOf) -> None:
    rows = [
        load("nrp", "closed 8 clients", goodput_per_s=10.0, p99_ms=500.0),
        load("nrp", "closed 32 clients", goodput_per_s=12.0, p99_ms=1000.0),
        load("ray", "closed 32 clients", goodput_per_s=6.0, p99_ms=2000.0),
        load("ray", "closed 8 clients", goodput_per_s=5.0, p99_ms=400.0),
        load("mosec", "closed 32 clients", goodput_per_s=11.0, p99_ms=750.0),
    ]
    report = report_of(*rows)
    assert against_peer(report, "ray") == pytest.approx(2.0)
    assert against_peer(report, "mosec") == pytest.approx(1.0)
    assert against_peer(report, "bentoml") is None
    assert verdict(report, "best peer").value == pytest.approx(1.0)


def test_overload_is_judged_by_goodput_and_by_how_fast_refusals_come(report_of: ReportOf) -> None:
    row = load("nrp", "open 200 %", share_of_capacity=0.97, rejected_p99_ms=20.0, rejected_without_retry_after=0.0)
    report = report_of(row)
    assert verdict(report, "goodput at 200 %").word == "met"
    assert verdict(report, "rejected").word == "met"
    silent = load("nrp", "open 200 %", rejected_p99_ms=20.0, rejected_without_retry_after=1.0)
    assert verdict(report_of(silent), "rejected").word == "missed"


def test_the_worst_phase_under_full_load_decides_about_liveness(report_of: ReportOf) -> None:
    rows = [
        load("nrp", "closed 1 client", live_p99_ms=90.0, full_load=0.0),
        load("nrp", "closed 32 clients", live_p99_ms=5.0, full_load=1.0),
        load("nrp", "open 120 %", live_p99_ms=15.0, full_load=1.0),
        load("ray", "open 120 %", live_p99_ms=500.0, full_load=1.0),
    ]
    assert verdict(report_of(*rows), "/health/live").value == 15.0


def test_networks_are_compared_with_their_authors_way(report_of: ReportOf) -> None:
    rows = [
        single("default", "ours", ms=10.0),
        single("nrp", "authors", ms=4100.0),
        single("nrp", "ours", ms=2000.0),
        single("nrp_resg", "authors", ms=490.0),
    ]
    report = report_of(*rows)
    assert verdict(report, "default purifier against nrp_resg").word == "missed"
    assert verdict(report, "default purifier against nrp as").value == pytest.approx(410)
    assert verdict(report, "nrp through this engine").value == pytest.approx(2.05)
    assert verdict(report, "nrp_resg through this engine").word == "not measured"


def test_the_share_of_the_matrix_rate_is_a_gpu_s(report_of: ReportOf) -> None:
    row = single("nrp", "ours, batch", ms=1.0, share_of_matmul=0.6)
    assert verdict(report_of(row, device="cuda"), "GPU").word == "met"
    assert verdict(report_of(row, device="cpu"), "GPU").word == "not measured"


@pytest.mark.parametrize(
    ("requests", "growth", "word"), [(10_000, 1.05, "met"), (10_000, 1.06, "missed"), (9_999, 1.0, "not measured")]
)
def test_a_soak_counts_only_when_it_was_long_enough(
    report_of: ReportOf, requests: int, growth: float, word: str
) -> None:
    row = Row(measure="soak", subject="nrp", setting="mixed sizes", figures={"good": float(requests), "growth": growth})
    assert verdict(report_of(row), "memory after").word == word
