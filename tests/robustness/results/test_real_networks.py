"""The head of the page: real networks, what is bad first, aware rows beside the others."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from robustness.results.page import render
from robustness.results.real_networks import aware_table, detail_section, headline, real_section
from robustness.results.row import Row
from robustness.results.timing import Timing
from robustness.results.tradeoff import plot_tradeoff
from tests.robustness.results.conftest import made_up

SEEN = "net-c (seen in training)"
DEFENCES = (("none", "none"), ("JPEG 20", "baseline"), ("nrp-x heavy", "purifier"))
LEFT = {"none": 0.0, "JPEG 20": 50.0, "nrp-x heavy": 40.0}


def unaware_rows() -> list[Row]:
    rows = []
    for victim, (defence, role) in itertools.product(("net-a", "net-b", SEEN), DEFENCES):
        where = {"suite": "imagenet", "table": "unaware", "victim": victim, "defence": defence, "role": role}
        rows.append(made_up(80 if role != "purifier" else 60, 200, **where))
        for eps in (2, 4):
            for attack, less in (("FGSM", 0), ("PGD-50 untargeted", 10)):
                left = max(0, LEFT[defence] - less - 2 * eps)
                rows.append(made_up(left, 200, attacker="white box", attack=attack, eps=eps, **where))
        transferred = {"attacker": "transfer", "attack": "MI-FGSM", "eps": 16, "surrogate": "net-z"}
        rows.append(made_up(30, 200, **{**where, "table": "transfer"}, **transferred))
    return rows


def aware_rows() -> list[Row]:
    rows = []
    for victim, (series, left) in itertools.product(("net-a", "net-b"), (("vote", 12.5), ("worst of 8", 3.1))):
        where = {"suite": "imagenet", "table": "aware", "victim": victim, "defence": "nrp-x heavy", "series": series}
        known = {"attacker": "aware", "eps": 4, "role": "purifier", "settings": {"clean_percent": 58.0}}
        rows.append(made_up(58, 64, **where, role="purifier"))
        rows += [made_up(left, 64, attack=attack, **where, **known) for attack in ("worst of attacks", "exact PGD-40")]
    curve = {**where, "series": "EOT curve"}
    return [*rows, *(made_up(20 - x, 8, attack=f"exact PGD-40 EOT-{x}", x=x, **curve, **known) for x in (1, 5))]


def test_each_victim_has_a_table_of_what_every_kind_of_attacker_leaves() -> None:
    table = headline([*unaware_rows(), *aware_rows()], "net-a")
    lines = table.splitlines()
    assert lines[0] == ("| defence | clean | unaware 2 | unaware 4 | transfer 16 | aware 4, vote | aware 4, worst |")
    purifier = next(line for line in lines if line.startswith("| nrp-x heavy"))
    figures = [cell.split(" (")[0].strip() for cell in purifier.split("|")[2:-1]]
    assert figures == ["60.0", "26.0", "22.0", "30.0", "12.5", "3.1"]
    assert "200 photos under unaware attackers, 64 under aware ones." in table


def test_an_aware_figure_that_was_not_measured_says_so() -> None:
    purifier = next(line for line in headline(unaware_rows(), "net-a").splitlines() if line.startswith("| nrp-x heavy"))
    assert purifier.count("not measured") == 2


def test_the_bad_comes_first_and_the_seen_network_last() -> None:
    section = real_section([*unaware_rows(), *aware_rows()])
    assert section[0].startswith("## Real networks")
    assert "keeps 12.5 (" in section[1]
    assert "costs 20.0 points of clean accuracy: 60.0 % of untouched photos are right behind it, 80.0 %" in section[1]
    assert "leaves 22.0 % at eps 4 to attackers who do not know it, 10.0 points less than JPEG 20 alone" in section[1]
    victims = [part for part in section if part.startswith("**net")]
    assert [part.split("**")[1] for part in victims] == ["net-a", "net-b", SEEN]
    assert "was not measured against attackers who know it" in real_section(unaware_rows())[1]
    assert real_section(aware_rows()) == []


def test_the_mean_leaves_out_what_training_has_seen() -> None:
    spoiled = [row.model_copy(update={"percent": 100.0}) if row.victim == SEEN else row for row in unaware_rows()]
    assert real_section(spoiled)[1] == real_section(unaware_rows())[1]


def test_aware_figures_stand_before_their_clean_twins() -> None:
    rows = [row for row in aware_rows() if row.x is None and row.victim == "net-a"]
    lines = aware_table(rows).splitlines()
    assert lines[0] == "| defence | attack | eps | photos | vote | worst of 8 |"
    assert lines[2].startswith("| nrp-x heavy | worst of attacks | 4 | 64 | 12.5 (")
    assert lines[2].count("clean 58.0") == 2
    section = "\n".join(detail_section(aware_rows()))
    assert "| EOT curve | 1 draws | 5 draws | photos |" in section


def test_the_page_begins_with_them(tmp_path: Path, rows: tuple[Row, ...]) -> None:
    text = render([*rows, *unaware_rows(), *aware_rows()], (), (), tmp_path).read_text()
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads[0] == "## Real networks: what is left of accuracy"
    assert heads.index("## Real networks: every attack") < heads.index("## The tables of the paper")


def timing(defence: str, milliseconds: float, **given: object) -> Timing:
    fields: dict[str, object] = {"role": "purifier", "side": 224, "repeats": 5, "threads": 2, "device": "cpu"}
    fields |= {"precision": "float32", "quartiles": (milliseconds, milliseconds), **given}
    return Timing.model_validate({"defence": defence, "milliseconds": milliseconds, **fields})


def test_accuracy_is_drawn_against_time_with_the_papers_points(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    timings = [timing("nrp-x heavy", 90), timing("JPEG 20", 4, role="baseline"), timing("nrp untrained", 9000)]
    (picture,) = plot_tradeoff(unaware_rows(), timings, tmp_path)
    assert picture.file.is_file()
    for name in ("DiffPure", "DISCO", "NRP"):
        assert name in picture.caption
    assert "not comparable one to one" in picture.caption


def test_without_timings_or_rows_nothing_is_drawn(tmp_path: Path) -> None:
    assert list(plot_tradeoff(unaware_rows(), [], tmp_path)) == []
    assert list(plot_tradeoff([], [timing("JPEG 20", 4)], tmp_path)) == []
    assert list(plot_tradeoff(unaware_rows(), [timing("JPEG 20", 4, side=128)], tmp_path)) == []
