"""Verdicts: each figure of each purifier against its bar."""

from __future__ import annotations

from collections.abc import Sequence

from robustness.results.averages import mean_of_victims
from robustness.results.bars import Bar, Kind, bar_for, kind_of, unmeasured, verdict
from robustness.results.cells import NOT_APPLICABLE, Footnotes, blocks, grid, photos
from robustness.results.certified import certified_bar
from robustness.results.order import ATTACKERS, attack_key, defences_of, natural
from robustness.results.row import Attacker, Row

READING = """\
Each line is one attack: what is left without an attack and under it, behind nothing, behind the baseline that keeps
most and behind the purifier, in percent. *Over it* is the purifier's lead in points, *of clean* what is left in
percent of what an untouched image without a defence gets. The figure that is judged stands next, with its 95 %
interval: of photos that of paired differences, of scenes that of the figure behind the purifier. It is met or missed
by the figure itself; one whose interval holds the bar may be either."""
HEADS = (
    "attack",
    "eps",
    "images",
    "clean",
    "attacked",
    "best baseline",
    "purifier",
    "over it",
    "of clean",
    "judged",
    "95 % interval",
    "bar",
    "verdict",
)
Attack = tuple[Attacker, str, int, str]
KINDS: Sequence[Kind] = ("clean", "unaware", "transfer", "aware", "scenes", "certified")


def bars_section(rows: Sequence[Row], certified: Sequence[Row]) -> list[str]:
    """The blocks of one suite: a table of bars for each purifier; none without rows.

    Of ``rows``, those of the table "bars" are shown; ``certified`` are those of the table "certified".
    """
    judged = [row for row in rows if row.table == "bars"]
    if not judged:
        return []
    parts = [f"## Purifiers against their bars, suite {judged[0].suite}", READING]
    for name, _ in defences_of(judged):
        parts += [f"**{name}**", _purifier([row for row in judged if row.defence == name], certified)]
    return parts


def _purifier(rows: Sequence[Row], certified: Sequence[Row]) -> str:
    """One purifier's lines; a bar that nothing was measured for has a line that says how to."""
    purifier = next((row.settings["purifier"] for row in rows if row.settings.get("purifier")), "")
    weights = {row.weights.get(purifier) for row in rows}
    found = [(_kind(row), _at(row), row) for row in rows]
    bound = certified_bar([row for row in certified if row.weights.get(purifier) in weights - {None}])
    found += [("certified", _at(row), row) for row in bound]
    notes, lines = Footnotes(), []
    for kind, at, row in sorted(found, key=_line_key):
        lines.append(_line(bar_for(kind, at), at, row, notes))
    absent = unmeasured((kind, at) for kind, at, _ in found)
    lines += [(bar.kind, f"{at:g}", *[NOT_APPLICABLE] * 9, _bar(bar), "not measured") for bar, at in absent]
    told = "\n".join(f"* {bar.kind} at {at:g} was not measured: {bar.how}." for bar, at in absent)
    return blocks(grid(HEADS, lines), notes.lines(), told)


def _line(bar: Bar | None, at: float, row: Row, notes: Footnotes) -> tuple[str, ...]:
    facts = row.settings
    baseline = facts.get("baseline")
    best = NOT_APPLICABLE if baseline is None else f"{facts['baseline_percent']:.1f}, {baseline}"
    shown = [notes.cell(row), NOT_APPLICABLE]
    if row.percent is not None and row.interval is not None:
        shown = [f"{row.percent:.1f} {row.metric}", "{:.1f} to {:.1f}".format(*row.interval)]
    return (
        _title(row),
        f"{at:g}",
        photos([row]),
        *(_number(facts.get(key)) for key in ("clean", "undefended")),
        best,
        *(_number(facts.get(key)) for key in ("defended", "points", "share")),
        *shown,
        NOT_APPLICABLE if bar is None else _bar(bar),
        verdict(bar, row),
    )


def _bar(bar: Bar) -> str:
    return f"\N{GREATER-THAN OR EQUAL TO} {bar.least:g}"


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else NOT_APPLICABLE


def _kind(row: Row) -> Kind:
    return kind_of(row.attacker) if row.task == "classification" else "scenes"


def _at(row: Row) -> float:
    return float(row.eps) if row.x is None else row.x


def _title(row: Row) -> str:
    if row.table == "certified":
        return f"certified, {row.series}, {row.victim}"
    words = [row.attack, f"from {row.surrogate}" if row.surrogate else "", row.series]
    words += [row.victim] if row.task != "classification" else []
    return ", ".join(word for word in words if word)


def _line_key(found: tuple[Kind, float, Row]) -> tuple[object, ...]:
    kind, at, row = found
    return (KINDS.index(kind), row.task, natural(row.victim), attack_key(row.attack), natural(row.series), at)


def attacks_table(rows: Sequence[Row]) -> str:
    """One line an attack and budget, one column a defence; several victims' rows are averaged."""
    cells: dict[Attack, dict[str, list[Row]]] = {}
    for row in rows:
        line = (row.attacker, row.attack, row.eps, row.surrogate or "")
        cells.setdefault(line, {}).setdefault(row.defence, []).append(row)
    names = [name for name, _ in defences_of(rows)]
    notes, lines = Footnotes(), []
    for line in sorted(cells, key=_attack_key):
        attacker, attack, eps, surrogate = line
        found = {name: mean_of_victims(cells[line][name]) for name in names if name in cells[line]}
        title = f"{attack}, from {surrogate}" if surrogate else attack
        shown = [notes.cell(found[name]) if name in found else NOT_APPLICABLE for name in names]
        lines.append((title, attacker, str(eps), photos(found.values()), *shown))
    return blocks(grid(("attack", "attacker", "eps", "photos", *names), lines, words=2), notes.lines())


def _attack_key(line: Attack) -> tuple[object, ...]:
    attacker, attack, eps, surrogate = line
    return (ATTACKERS.index(attacker), attack_key(attack), eps, natural(surrogate))
