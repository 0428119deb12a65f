"""Real networks: the suite `imagenet` on the page, what is bad first, then who knows what, victim by victim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustness.results.averages import lowest, mean_of_victims
from robustness.results.cells import NOT_APPLICABLE, Footnotes, blocks, figure, grid, photos
from robustness.results.order import attack_key, defence_key, defences_of, natural, victims_of
from robustness.results.row import Attacker, Row
from robustness.results.verdicts import attacks_table

SUITE = "imagenet"
TABLES = ("unaware", "transfer", "aware")
# What the suite adds to the name of a victim that a purifier's training has seen.
SEEN = " (seen in training)"
# Of the aware protocol: what the strongest attack on each photo leaves, and how a decision is made in use.
WORST, VOTE = "worst of attacks", "vote"
EPS = 4
UNMEASURED = "not measured"

READING = """\
Photos of the NeurIPS 2017 competition, which are those of the NRP paper's tables, 224 pixels wide, before networks that
nobody of this project trained. *Unaware* attackers hold the network and know of no defence; each column shows the
attack that leaves least at that budget. *Transfer* attacks were made on another network. *Aware* attackers know the
network and the purifier (exact gradients, BPDA, margins, draws averaged): the vote is what the service answers, *worst*
counts a photo only if several votes about it are all right, which is what an attacker leaves who may try again. A
network that a purifier's training has seen says so and flatters it."""
AWARE_NOTE = """\
Each figure stands before that of the same decisions about the same photos without an attack. A gradient is averaged
over the draws that EOT says; the curve must be flat at its end, and at a budget that nothing withstands about nothing
may be left, or the attack is too weak."""


def real_section(rows: Sequence[Row]) -> list[str]:
    """The blocks that the page begins with; none without rows of the suite."""
    mine = [row for row in rows if row.suite == SUITE and row.table in TABLES]
    if not any(row.table == "unaware" for row in mine):
        return []
    parts = ["## Real networks: what is left of accuracy", *shortcomings(mine), READING]
    for victim in ordered_victims(mine):
        parts += [f"**{victim}**, % of photos (95 % interval)", headline(mine, victim)]
    return parts


def detail_section(rows: Sequence[Row]) -> list[str]:
    """Every attack, folded, and the aware protocol figure by figure."""
    mine = [row for row in rows if row.suite == SUITE]
    unaware = [row for row in mine if row.table in ("unaware", "transfer")]
    parts = ["## Real networks: every attack"] if unaware else []
    for victim in ordered_victims(unaware):
        lines = [row for row in unaware if row.victim == victim]
        parts += [f"<details><summary>{victim}</summary>", attacks_table(lines), "</details>"]
    aware = [row for row in mine if row.table == "aware"]
    return [
        *parts,
        *(["## Real networks: attackers who know the purifier", AWARE_NOTE, *_aware(aware)] if aware else []),
    ]


def ordered_victims(rows: Sequence[Row]) -> list[str]:
    """Their victims, those that a training has seen last."""
    return sorted(victims_of(rows), key=lambda name: (name.endswith(SEEN), natural(name)))


def headline(rows: Sequence[Row], victim: str) -> str:
    """One line a defence: clean, the least of the unaware at each budget, of transfer, and the aware attacker's."""
    mine = [row for row in rows if row.victim == victim]
    white = sorted({row.eps for row in mine if row.attacker == "white box"})
    moved = sorted({row.eps for row in mine if row.attacker == "transfer" and row.percent is not None})
    notes, lines = Footnotes(), []
    for name, role in defences_of([row for row in mine if row.table == "unaware"]):
        cells = [_least(mine, name, "none", 0)]
        cells += [_least(mine, name, "white box", eps) for eps in white]
        cells += [_least(mine, name, "transfer", eps) for eps in moved]
        shown = [NOT_APPLICABLE if cell is None else notes.cell(cell) for cell in cells]
        lines.append((name, *shown, *_known(mine, name, role)))
    counts = photos(row for row in mine if row.table == "unaware")
    heads = ["clean", *(f"unaware {eps}" for eps in white), *(f"transfer {eps}" for eps in moved)]
    known = photos(row for row in mine if row.table == "aware" and row.attack == WORST)
    below = f"{counts} photos under unaware attackers, {known} under aware ones."
    return blocks(grid(("defence", *heads, f"aware {EPS}, vote", f"aware {EPS}, worst"), lines), below, notes.lines())


def _least(rows: Sequence[Row], defence: str, attacker: Attacker, eps: int) -> Row | None:
    found = [
        row
        for row in rows
        if (row.defence, row.attacker, row.eps) == (defence, attacker, eps) and row.table in ("unaware", "transfer")
    ]
    return lowest(found) if found else None


def _known(rows: Sequence[Row], defence: str, role: str) -> tuple[str, str]:
    """The vote and the worst of several under the strongest aware attack; of purifiers alone."""
    if role != "purifier":
        return NOT_APPLICABLE, NOT_APPLICABLE
    found = {row.series: row for row in worst_rows(rows) if row.defence == defence}
    again = next((row for series, row in found.items() if series.startswith("worst of")), None)
    return tuple(UNMEASURED if row is None else figure(row) for row in (found.get(VOTE), again))  # type: ignore[return-value]


def worst_rows(rows: Sequence[Row]) -> list[Row]:
    """What the strongest aware attack on each photo leaves."""
    return [row for row in rows if (row.table, row.attack, row.eps) == ("aware", WORST, EPS)]


def unseen_mean(rows: Sequence[Row], defence: str, attacker: Attacker, eps: int) -> Row | None:
    """The mean over victims that no training has seen of the least that attacks of this kind leave."""
    victims = [name for name in victims_of(rows) if not name.endswith(SEEN)]
    found = [_least([row for row in rows if row.victim == name], defence, attacker, eps) for name in victims]
    there = [row for row in found if row is not None]
    if not there or len(there) < len(found):
        return None
    return mean_of_victims(there)


def shortcomings(rows: Sequence[Row]) -> list[str]:
    """What is bad about each purifier, in sentences, worst first: one block, none without a purifier."""
    lines = [
        f"* **{name}** {words}" for name, role in defences_of(rows) if role == "purifier" for words in _bad(rows, name)
    ]
    return (
        ["What is bad comes first (means of the networks that no training has seen):\n\n" + "\n".join(lines)]
        if lines
        else []
    )


def _bad(rows: Sequence[Row], name: str) -> Iterator[str]:
    votes = [row for row in worst_rows(rows) if row.defence == name and row.series == VOTE and row.percent is not None]
    if votes:
        row = mean_of_victims(votes)
        yield f"keeps {figure(row)} % at eps {EPS} against attackers who know it ({row.count} photos)."
    else:
        yield f"was not measured against attackers who know it at eps {EPS}: believe none of its figures to be robust."
    bare, clean = unseen_mean(rows, "none", "none", 0), unseen_mean(rows, name, "none", 0)
    if bare is not None and clean is not None and bare.percent is not None and clean.percent is not None:
        words = f"{clean.percent:.1f} % of untouched photos are right behind it, {bare.percent:.1f} % without it"
        yield f"costs {bare.percent - clean.percent:.1f} points of clean accuracy: {words}."
    mine = unseen_mean(rows, name, "white box", EPS)
    others = {
        other: found
        for other, role in defences_of(rows)
        if role == "baseline" and (found := unseen_mean(rows, other, "white box", EPS)) is not None
    }
    if mine is not None and mine.percent is not None and others:
        best = max(others, key=lambda other: others[other].percent or 0.0)
        lead = mine.percent - (others[best].percent or 0.0)
        words = "more than" if lead > 0 else "less than"
        yield (
            f"leaves {mine.percent:.1f} % at eps {EPS} to attackers who do not know it, {abs(lead):.1f} points {words} "
            f"{best} alone."
        )


def _aware(rows: Sequence[Row]) -> Iterator[str]:
    for victim in ordered_victims(rows):
        mine = [row for row in rows if row.victim == victim]
        yield f"**{victim}**"
        yield aware_table([row for row in mine if row.x is None])
        curve = [row for row in mine if row.x is not None]
        if curve:
            yield curve_table(curve)


def aware_table(rows: Sequence[Row]) -> str:
    """One line a defence and attack, a column a series, each with its clean twin behind it."""
    series = sorted({row.series for row in rows}, key=natural)
    lines = {(row.defence, row.role, row.attack, row.eps, row.surrogate or "") for row in rows if row.eps}
    at = {(row.defence, row.attack, row.eps, row.surrogate or "", row.series): row for row in rows}
    shown = []
    for defence, _, attack, eps, source in sorted(
        lines, key=lambda line: (defence_key(line[0], line[1]), line[3], line[2] != WORST, attack_key(line[2]), line[4])
    ):
        found = [at.get((defence, attack, eps, source, each)) for each in series]
        title = f"{attack}, made through {source}" if source else attack
        there = [row for row in found if row is not None]
        shown.append((defence, title, str(eps), photos(there), *map(_twin, found)))
    return grid(("defence", "attack", "eps", "photos", *series), shown, words=2)


def curve_table(rows: Sequence[Row]) -> str:
    """The vote that is left against the number of draws that each gradient averages over."""
    places = sorted({row.x for row in rows if row.x is not None})
    at = {(row.defence, row.x): row for row in rows}
    lines = [(name, *(_twin(at.get((name, x))) for x in places), photos(rows)) for name, _ in defences_of(rows)]
    return grid(("EOT curve", *(f"{x:g} draws" for x in places), "photos"), lines)


def _twin(row: Row | None) -> str:
    if row is None or row.percent is None:
        return NOT_APPLICABLE
    clean = row.settings.get("clean_percent")
    return figure(row) if clean is None else f"{figure(row)}, clean {clean:.1f}"
