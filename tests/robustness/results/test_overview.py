from __future__ import annotations

import pytest

from robustness.errors import EvaluationError
from robustness.intervals import wilson
from robustness.results.averages import MEAN, lowest, mean_of_victims
from robustness.results.overview import Overview, Threat, headline, overview_table
from robustness.results.row import Row

DOT = "\N{MIDDLE DOT}"
FGSM = Threat("white box", "FGSM")


@pytest.fixture
def overview(rows: tuple[Row, ...]) -> list[Row]:
    return [row for row in rows if row.table == "overview"]


def line_of(markdown: str, head: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {head} |")]
    return [part.strip() for part in line.strip("|").split("|")]


def without(rows: list[Row], **fields: object) -> list[Row]:
    return [row for row in rows if any(getattr(row, name) != value for name, value in fields.items())]


def test_the_mean_is_of_percents_and_its_interval_of_the_photos(overview: list[Row]) -> None:
    some = [row for row in overview if (row.attack, row.defence, row.eps) == ("FGSM", "JPEG 75", 4)]
    mean = mean_of_victims(some)
    assert mean.victim == MEAN
    assert mean.percent == pytest.approx(sum(row.percent or 0 for row in some) / 3)
    low, high = wilson(mean.percent or 0, 100)
    assert mean.interval == pytest.approx((100 * low, 100 * high))
    assert mean.count == 100


def test_the_mean_of_what_was_not_measured_is_not_known(overview: list[Row]) -> None:
    some = [row for row in overview if (row.attack, row.defence, row.eps) == ("FGSM", "none", 4)]
    lacking = some[0].model_copy(update={"percent": None, "interval": None, "missing": "no time"})
    mean = mean_of_victims([lacking, *some[1:]])
    assert mean.percent is None
    assert mean.missing == f"{some[0].victim}: no time"
    assert lowest([lacking, some[1]]) is some[1]


def test_attackers_are_set_apart_and_the_aware_are_in_every_table(overview: list[Row]) -> None:
    whole = Overview(overview)
    for subject in (MEAN, *whole.victims):
        for eps in whole.budgets:
            text = overview_table(whole, eps, subject)
            places = [text.index(f"| **{kind}") for kind in ("no attack", "white box", "transfer", "aware")]
            assert places == sorted(places)
            cells = line_of(text, "BPDA PGD-100")
            assert cells[1] == "32"
            assert cells[2:9] == [DOT] * 7
            assert all("(" in cell for cell in cells[9:])


def test_a_model_is_not_judged_by_what_was_made_on_itself(overview: list[Row]) -> None:
    whole = Overview(overview)
    assert "DIM, from tiny-vgg" not in overview_table(whole, 8, "tiny-vgg")
    assert "DIM, from tiny-vgg" in overview_table(whole, 8, "tiny-resnet")
    mean = whole.cell(Threat("transfer", "DIM", "tiny-vgg"), 8, MEAN, "none")
    others = [row for row in overview if (row.attack, row.defence, row.eps) == ("DIM", "none", 8)]
    assert mean is not None
    assert mean.percent == pytest.approx(sum(row.percent or 0 for row in others) / 2)


def test_surrogates_that_differ_by_victim_make_one_line(overview: list[Row]) -> None:
    more = [
        row.model_copy(update={"victim": "tiny-vgg", "surrogate": "tiny-resnet"})
        for row in overview
        if (row.attack, row.victim) == ("DIM", "tiny-resnet")
    ]
    whole = Overview([*overview, *more])
    assert line_of(overview_table(whole, 8, MEAN), "DIM, from another model for each victim")[1] == "100"
    assert "DIM, from tiny-resnet" in overview_table(whole, 8, "tiny-vgg")
    assert "DIM, from tiny-vgg" in overview_table(whole, 8, "tiny-resnet")


@pytest.mark.parametrize(
    "gone",
    [
        {"attack": "FGSM", "eps": 4, "victim": "tiny-vgg", "defence": "TV 30"},
        {"attack": "clean", "victim": "tiny-resnet", "defence": "none"},
        {"attack": "SSP-100", "eps": 16},
    ],
    ids=str,
)
def test_a_hole_is_an_error(overview: list[Row], gone: dict[str, object]) -> None:
    whole = Overview(without(overview, **gone))
    with pytest.raises(EvaluationError, match=f"no row for {gone['attack']}"):
        [overview_table(whole, eps, MEAN) for eps in whole.budgets]


def test_a_purifier_without_aware_figures_is_an_error(overview: list[Row]) -> None:
    partly = without(overview, attacker="aware", eps=16, victim="tiny-vgg", defence="purifier static")
    with pytest.raises(EvaluationError, match=r"aware attacker for purifier static, victim tiny-vgg, eps 16"):
        Overview(partly)
    with pytest.raises(EvaluationError, match="aware attacker"):
        Overview(without(overview, attacker="aware"))


def test_an_aware_attack_on_some_victims_alone_has_no_mean(overview: list[Row]) -> None:
    other = [
        row.model_copy(update={"attack": "Square"})
        for row in overview
        if (row.attacker, row.eps, row.victim) == ("aware", 8, "tiny-vgg")
    ]
    whole = Overview([*overview, *other])
    assert "Square" in overview_table(whole, 8, "tiny-vgg")
    with pytest.raises(EvaluationError, match="rows for some victims and none for tiny-densenet"):
        overview_table(whole, 8, MEAN)


def test_two_rows_for_one_cell_are_an_error(overview: list[Row]) -> None:
    with pytest.raises(EvaluationError, match="two rows for one cell"):
        Overview([*overview, overview[5].model_copy(update={"seed": 1})])


def test_the_headline_shows_what_the_worst_attack_leaves(overview: list[Row]) -> None:
    whole = Overview(overview)
    text = headline(whole, 8)
    least = whole.least("white box", 8, MEAN, "JPEG 20")
    everyone = [whole.cell(threat, 8, MEAN, "JPEG 20") for threat in (FGSM, Threat("white box", "PGD-10 untargeted"))]
    assert least is not None
    assert least.percent == min(row.percent or 0 for row in everyone if row is not None)
    cells = line_of(text, "JPEG 20")
    assert cells[2].startswith(f"{least.percent:.1f} (")
    assert cells[4] == DOT
    assert "does not make the defence strong" in text
    assert "(" in line_of(text, "purifier static")[4]
