"""The bench as a whole, against a tiny server in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from service.bench import conductor
from service.bench.bars import verdicts
from service.bench.conductor import Plan, conduct
from service.bench.figures import Sample
from service.bench.rows import Report, Row
from service.bench.schedule import phases
from service.bench.servers import ARMS, OURS, Server
from service.bench.soak import soak, soak_figures
from service.bench.task import Task, picture
from service.bench.trial import difference, run_trial, watched

StartServer = Callable[..., Server]


def test_every_phase_of_an_arm_gives_a_row(task: Task, fake_server: StartServer) -> None:
    image = task.image()
    rows = run_trial(ARMS[OURS], task, fake_server, 1, image, phases((1, 4), (50, 200)), lambda: 0.4)
    assert [row.setting for row in rows] == ["closed 1 client", "closed 4 clients", "open 50 %", "open 200 %"]
    assert {(row.measure, row.subject, row.round) for row in rows} == {("load", OURS, 1)}
    one, four, half, double = (row.figures for row in rows)
    assert min(one["goodput_per_s"], four["goodput_per_s"]) > 0
    capacity = max(one["goodput_per_s"], four["goodput_per_s"])
    assert half["offered_per_s"] == pytest.approx(capacity / 2, rel=0.01)
    assert double["offered_per_s"] == pytest.approx(capacity * 2, rel=0.01)
    assert one["mean_batch"] == 2
    assert one["live_p99_ms"] > 0
    assert one["errors"] == 0
    assert double["rejected"] > 0  # a standing queue of 160 meets room for eight
    assert double["rejected_without_retry_after"] == 0
    assert double["full_load"] == 1


def test_an_arm_that_answers_another_image_is_not_measured(task: Task, fake_server: StartServer) -> None:
    other = picture(16, 16, seed=99)
    (row,) = run_trial(ARMS["mosec"], task, fake_server, 0, other, phases((1,), ()), lambda: 0.1)
    assert (row.measure, row.subject) == ("absent", "mosec")
    assert "answers another image" in row.note


def test_images_are_compared_level_by_level() -> None:
    assert difference(picture(8, 8, 1), picture(8, 8, 1)) == 0
    assert difference(picture(8, 8, 1), picture(8, 8, 2)) > 1
    assert difference(picture(8, 8, 1), picture(9, 8, 1)) == 255


def test_probes_that_failed_are_counted() -> None:
    found = watched([Sample(0.0, 0.01, 200), Sample(0.0, 0.03, 503)], [5 << 20, 9 << 20, 7 << 20])
    assert found == {
        "live_p99_ms": pytest.approx(30),
        "live_failed": 1.0,
        "rss_peak_mib": 9.0,
        "rss_end_mib": 7.0,
    }
    assert watched([], [0]) == {}


def test_a_soak_sends_as_many_requests_as_it_was_told(
    task: Task, fake_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Server, "of", fake_server)
    row = soak(task, None, tmp_path / "log", 30, 30.0)
    assert (row.measure, row.figures["requests"], row.figures["good"]) == ("soak", 30, 30)


def test_growth_is_the_end_over_the_beginning() -> None:
    found = soak_figures([Sample(0.0, 1.0, 200, good=True)], 100 << 20, 110 << 20, 1.0)
    assert (found["rss_first_mib"], found["rss_end_mib"], found["growth"]) == (100, 110, 1.1)
    assert "growth" not in soak_figures([], 0, 0, 1.0)


def fake_child(plan: Plan, module: str, seconds: float) -> Sequence[Row]:
    """What a process of its own would measure."""
    assert seconds > 0
    if module.endswith("loop"):
        (plan.scratch / "loop.png").write_bytes(plan.task.image())
        return [Row(measure="loop", subject="loop", setting="batch 1", figures={"goodput_per_s": 50.0, "p50_ms": 20.0})]
    return [Row(measure="single", subject="default", setting="ours", figures={"ms": 1.0})]


def test_a_whole_run_measures_every_part_and_names_what_is_absent(
    task: Task,
    fake_server: StartServer,
    report_of: Callable[..., Report],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(Server, "of", fake_server)
    monkeypatch.setattr(conductor, "child", fake_child)
    monkeypatch.setattr(conductor, "absent", lambda arm, _: "not installed" if arm.name == "ray" else "")
    said: list[str] = []
    parts = ("load", "single", "soak")
    arms = (OURS, "mosec", "ray")
    plan = Plan(task, arms, phases((1,), (50,)), 2, 0.01, 10, parts, None, tmp_path, said.append)
    monkeypatch.setattr("service.bench.schedule.LEAST_SECONDS", 0.2)
    rows = list(conduct(plan))
    assert [(row.subject, row.note) for row in rows if row.measure == "absent"] == [("ray", "not installed")]
    assert [row.measure for row in rows][1] == "loop"  # its answer is what the servers' are compared with
    assert sorted(row.round for row in rows if row.measure == "loop") == [0, 1]
    load = [(row.round, row.subject, row.setting) for row in rows if row.measure == "load"]
    assert sorted(load) == sorted(
        (number, arm, setting)
        for number in range(2)
        for arm in (OURS, "mosec")
        for setting in ("closed 1 client", "open 50 %")
    )
    assert [row.measure for row in rows][-2:] == ["single", "soak"]
    assert len(said) == 2 * 3 + 2
    added = next(one for one in verdicts(report_of(*rows)) if "p50 at 1 client" in one.bar.words)
    assert added.value is not None
