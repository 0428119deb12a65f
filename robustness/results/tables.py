"""Tables 1 to 7 of the paper in Markdown: our figures from rows, the paper's beside or below them.

Each takes the rows of one table of one suite, and raises EvaluationError for a cell that has no row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from robustness.results import published
from robustness.results.cells import NOT_APPLICABLE, Cells, Footnotes, blocks, grid, only, paper, photos
from robustness.results.costs import CostLine
from robustness.results.order import attack_key, defence_key, defences_of, family, natural, victims_of
from robustness.results.published import PUBLISHED, PublishedTable
from robustness.results.row import Attacker, Row

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "T1": "Against adversarial training (accuracy)",
        "T2": "What training costs",
        "T3": "SSP against FSA: accuracy that transferred attacks leave, no defence",
        "T4": "SSP against CDA on a detector: mAP@0.5 that is left, no defence",
        "T5": "The classifiers unattacked",
        "T6": "Segmentation behind transformations and the purifier",
        "T7": "Detection behind transformations and the purifier",
    }
)

AWARE_NOTE = """\
The paper attacks NRP through its backward pass and under dynamic inference, so its figures of NRP stand beside ours of
the attacker who knows the purifier."""

# Our series, and the line of the paper's table 1 that is the same thing; what else is a purifier's name.
SERIES: Mapping[str, str] = MappingProxyType({"original": "Original", "adversarial training": "Feature Denoising"})
# The end of a purifier's name where the attacker knows it, as the paper's attacker of NRP does.
KNOWN = ", purifier-aware"
TARGETED = "PGD-10 targeted"
# The order of the columns that the paper's tables 6 and 7 do not have: its own attacker's first.
_OTHERS: Sequence[Attacker] = ("none", "transfer", "white box", "aware")
GENERATORS: Mapping[str, str] = MappingProxyType({"CDA imagenette": "CDA-ImageNet", "CDA camvid": ""})


def against_training(rows: Sequence[Row]) -> str:
    """T1: one line a series, victim and attack; clean accuracy and what the attack leaves, the paper's beside."""
    cells = Cells(rows, ("series", "victim", "attack", "eps"), lambda r: (r.series, r.victim, r.attack, r.eps))
    notes, lines = Footnotes(), []
    for series, theirs in _series({row.series for row in rows}):
        for victim in victims_of(row for row in rows if row.series == series) or ("any",):
            attacks = {(row.attack, row.eps) for row in rows if (row.series, row.victim) == (series, victim)}
            attacks = {(TARGETED, 16), *attacks} - {("clean", 0)}
            for attack, eps in sorted(attacks, key=lambda pair: (pair[1], attack_key(pair[0]))):
                clean, robust = cells.at(series, victim, "clean", 0), cells.at(series, victim, attack, eps)
                ours = (notes.cell(clean), notes.cell(robust), photos((clean, robust)))
                is_papers = (attack, eps) == (TARGETED, 16)
                beside = [paper(published.T1.at(theirs, c) if is_papers else None) for c in published.T1.columns]
                lines.append((series, victim, f"{attack}, eps {eps}", *ours, *beside))
    cells.all_placed()
    heads = ("defence", "victim", "attack", "clean", "attacked", "photos", "paper: clean", "paper: attacked")
    return blocks(grid(heads, lines, words=3), AWARE_NOTE, notes.lines())


def cost_table(costs: Sequence[CostLine]) -> str:
    """T2: the paper's lines, then ours."""
    sources = (*(("paper", cost) for cost in published.T2), *(("ours", cost) for cost in costs))
    lines = [
        (
            cost.method,
            source,
            cost.hardware,
            "yes" if cost.needs_labels else "no",
            "yes" if cost.dataset_specific else "no",
            str(cost.devices),
            f"{cost.hours:.1f}".removesuffix(".0"),
        )
        for source, cost in sources
    ]
    heads = ("method", "source", "hardware", "needs labels or a task", "bound to a data set", "devices", "hours")
    return grid(heads, lines, words=5)


def transfer(rows: Sequence[Row]) -> str:
    """T3: one line an attack and surrogate, one column a victim; a victim that is the surrogate itself has no cell."""
    names = ("attack", "eps", "surrogate", "victim")
    cells = Cells(rows, names, lambda r: (family(r.attack), r.eps, r.surrogate, r.victim))
    victims, notes = victims_of(rows), Footnotes()
    wanted = {(family(row.attack), row.eps, row.surrogate) for row in rows}
    for attack in ("FSA", "SSP"):
        if (attack, 16) not in {(known, eps) for known, eps, _ in wanted}:
            wanted.add((attack, 16, None))
    lines = []
    for attack, eps, surrogate in sorted(wanted, key=lambda w: (w[1], attack_key(w[0]), natural(w[2] or ""))):
        used = [v for v in victims if v != surrogate or cells.has(attack, eps, surrogate, v)]
        found = {victim: cells.at(attack, eps, surrogate, victim) for victim in used}
        figures = [notes.cell(found[v]) if v in found else NOT_APPLICABLE for v in victims]
        lines.append((attack, str(eps), surrogate or NOT_APPLICABLE, photos(found.values()), *figures))
    cells.all_placed()
    table = grid(("attack", "eps", "surrogate", "photos", *victims), lines, words=3)
    legend = f"{NOT_APPLICABLE}: the attack was made on this very model, or on none." if NOT_APPLICABLE in table else ""
    return blocks(table, legend, notes.lines(), _papers(published.T3, "attack"))


def generators(rows: Sequence[Row]) -> str:
    """T4: one line an attack, columns eps 8 and 16, the paper's beside; the clean figure, where there is one, above."""
    names = ("attack", "surrogate", "eps", "victim")
    cells = Cells(rows, names, lambda r: (family(r.attack), r.surrogate, r.eps, r.victim))
    budgets = sorted({8, 16} | {row.eps for row in rows if row.attack != "clean"})
    notes = Footnotes()
    victims = victims_of(rows)
    lines = [line for victim in victims for line in _generator_lines(victim, rows, budgets, cells, notes)]
    clean = [cells.at("clean", None, 0, victim) for victim in victims if cells.has("clean", None, 0, victim)]
    above = "\n".join(f"Unattacked, {row.victim}: {notes.cell(row)} on {photos([row])} images." for row in clean)
    cells.all_placed()
    empty = [NOT_APPLICABLE] * (3 + len(budgets))
    known = ("SSP", *GENERATORS.values())
    lines += [
        (f"{name} (paper only)", *empty, *map(str, theirs))
        for name, theirs in published.T4.lines.items()
        if name not in known
    ]
    ours = [f"eps {eps}" for eps in budgets]
    heads = ("attack", "made on", "victim", "images", *ours, *(f"paper: eps {eps}" for eps in published.T4.columns))
    return blocks(above, grid(heads, lines, words=3), notes.lines())


def _generator_lines(
    victim: str, rows: Sequence[Row], budgets: Sequence[int], cells: Cells, notes: Footnotes
) -> list[tuple[str, ...]]:
    attacks = {(family(row.attack), row.surrogate) for row in rows if row.victim == victim}
    attacks -= {("clean", None)}
    lines: list[tuple[str, ...]] = []
    lacking = {"SSP", *GENERATORS} - {attack for attack, _ in attacks}
    for attack, surrogate in sorted(attacks | {(attack, None) for attack in lacking}, key=_attack_and_surrogate):
        found = [cells.at(attack, surrogate, eps, victim) for eps in budgets]
        theirs = [paper(published.T4.at(GENERATORS.get(attack, attack), eps)) for eps in published.T4.columns]
        figures = [notes.cell(row) for row in found]
        lines.append((attack, surrogate or NOT_APPLICABLE, victim, photos(found), *figures, *theirs))
    return lines


def _attack_and_surrogate(pair: tuple[str, str | None]) -> tuple[object, ...]:
    return (attack_key(pair[0]), natural(pair[1] or ""))


def classifiers(rows: Sequence[Row]) -> str:
    """T5: top-1 and top-5 accuracy, one column a victim, the paper's below."""
    cells = Cells(rows, ("attack", "eps", "metric", "victim"), lambda r: (r.attack, r.eps, r.metric, r.victim))
    victims, notes, lines = victims_of(rows), Footnotes(), []
    for metric in dict.fromkeys(("top-1", "top-5", *sorted({row.metric for row in rows}))):
        found = [cells.at("clean", 0, metric, victim) for victim in victims]
        lines.append((metric, photos(found), *(notes.cell(row) for row in found)))
    cells.all_placed()
    table = grid(("accuracy", "photos", *victims), lines)
    return blocks(table, notes.lines(), _papers(published.T5, "accuracy"))


def transformations(rows: Sequence[Row]) -> str:
    """T6 and T7: one line a defence; clean, SSP at 8 and at 16 with the paper's beside, then what else was measured.

    A column of attackers who know the defence has cells for the purifiers, and for others where they were measured.
    """
    theirs = PUBLISHED[only((row.table for row in rows), "table")]
    victims = victims_of(rows)
    found = [_transformations([row for row in rows if row.victim == victim], theirs) for victim in victims]
    return blocks(
        *(
            part
            for victim, text in zip(victims, found, strict=True)
            for part in (f"**{victim}**" if len(victims) > 1 else "", text)
        )
    )


def _transformations(rows: Sequence[Row], theirs: PublishedTable) -> str:
    columns = (("clean", 0, "none", ""), ("SSP", 8, "transfer", ""), ("SSP", 16, "transfer", ""))
    names = ("attack", "eps", "attacker", "series", "defence")
    cells = Cells(rows, names, lambda r: (family(r.attack), r.eps, r.attacker, r.series, r.defence))
    seen = {(family(row.attack), row.eps, row.attacker, row.series) for row in rows} - set(columns)
    others = sorted(seen, key=lambda c: (_OTHERS.index(c[2]), natural(c[3]), c[1], attack_key(c[0])))
    defences = {
        **dict(defences_of(rows)),
        **{name: "baseline" for name in theirs.lines if name != "none"},
        "none": "none",
    }
    notes, lines = Footnotes(), []
    for defence, role in sorted(defences.items(), key=lambda pair: defence_key(*pair)):
        wanted = [c for c in (*columns, *others) if c[2] != "aware" or role == "purifier" or cells.has(*c, defence)]
        found = {column: cells.at(*column, defence) for column in wanted}
        ours = [notes.cell(found[c]) if c in found else NOT_APPLICABLE for c in (*columns, *others)]
        beside = [paper(theirs.at(defence, column)) for column in theirs.columns]
        pairs = [part for pair in zip(ours, beside, strict=False) for part in pair]
        lines.append((defence, *pairs, *ours[len(columns) :], photos(found.values())))
    cells.all_placed()
    heads = [part for column in theirs.columns for part in (column, f"paper: {column}")]
    heads += [
        _words(f"{attack} {eps}", attacker if attacker != "transfer" else "", series)
        for attack, eps, attacker, series in others
    ]
    return blocks(grid(("defence", *heads, "images"), lines), notes.lines())


def _words(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _series(seen: set[str]) -> list[tuple[str, str]]:
    """Each series with the paper's line that stands beside it: the known ones, then purifiers."""
    others = sorted(seen - set(SERIES), key=natural)
    return [*SERIES.items(), *((name, "NRP" if name.endswith(KNOWN) else "") for name in others)]


def _papers(table: PublishedTable, head: str) -> str:
    lines = [(name, *map(str, figures)) for name, figures in table.lines.items()]
    return blocks("The paper's:", grid((head, *table.columns), lines))


TABLES: Mapping[str, Callable[[Sequence[Row]], str]] = MappingProxyType(
    {
        "T1": against_training,
        "T3": transfer,
        "T4": generators,
        "T5": classifiers,
        "T6": transformations,
        "T7": transformations,
    }
)


def table_of(name: str, rows: Sequence[Row]) -> str:
    """The table ``name`` from the rows of one suite (others are passed over); empty if the suite has no such rows."""
    mine = [row for row in rows if row.table == name]
    if not mine:
        return ""
    only((row.suite for row in mine), f"suite in table {name}")
    return TABLES[name](mine)
