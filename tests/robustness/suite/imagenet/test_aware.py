"""The section aware: the protocol's rows, and where the page finds them."""

from __future__ import annotations

from pathlib import Path

from robustness.aware import judging, protocol
from robustness.results import real_networks
from robustness.results.files import read_lines
from tests.robustness.suite.imagenet.conftest import Run


def test_the_page_calls_the_headline_figure_as_the_protocol_does() -> None:
    assert real_networks.WORST == protocol.WORST
    assert real_networks.VOTE == judging.VOTE


def test_aware_figures_stand_beside_the_unaware_ones(run: Run, tmp_path: Path) -> None:
    run("--section", "unaware")
    page = tmp_path / "results" / "RESULTS.md"
    assert "was not measured against attackers who know it" in page.read_text()
    run("--section", "aware")
    text = page.read_text()
    assert "was not measured against attackers who know it" not in text
    assert "## Real networks: attackers who know the purifier" in text
    rows = [row for row in read_lines(tmp_path / "results" / "imagenet.jsonl") if row.section == "aware"]
    worst = {(row.victim, row.defence) for row in rows if row.attack == protocol.WORST and row.series == judging.VOTE}
    assert worst == {(victim, name) for victim in ("net-a", "net-b") for name in ("noisy heavy", "plain static")}
    assert {row.count for row in rows if row.attack == protocol.WORST} == {2}
    judged = [row for row in rows if row.table == "bars"]
    assert {(row.attack, row.eps, row.metric) for row in judged} == {(protocol.WORST, 4, "% of clean")}
    assert {row.defence for row in judged} == {"noisy heavy", "plain static"}


def test_what_is_made_through_one_purifier_is_tried_on_the_other(run: Run, tmp_path: Path) -> None:
    run("--section", "aware")
    rows = [row for row in read_lines(tmp_path / "results" / "imagenet.jsonl") if row.table == "aware"]
    assert {(row.surrogate, row.defence) for row in rows if row.surrogate} == {
        ("noisy heavy", "plain static"),
        ("plain static", "noisy heavy"),
    }
