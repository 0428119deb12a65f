"""Judged figures: what the suite imagenet found for one purifier, against its bars, as figures of its card."""

from __future__ import annotations

from collections.abc import Iterable

from model_store.card import Figure
from robustness.results.bars import bar_for, kind_of, verdict
from robustness.results.row import Row


def judged_figures(rows: Iterable[Row], purifier: str) -> tuple[Figure, ...]:
    """One figure for each measured row of table "bars" that is about ``purifier``, the name of a model in the store."""
    mine = (row for row in rows if row.table == "bars" and row.settings.get("purifier") == purifier)
    return tuple(_figure(row, row.percent, row.interval) for row in mine if row.percent is not None)


def _figure(row: Row, value: float, interval: tuple[float, float] | None) -> Figure:
    return Figure(
        name=f"{row.metric}, {_title(row)}, {row.defence}, {row.victim}",
        value=round(value, 2),
        unit="points" if row.metric.startswith("points") else "%",
        count=row.count,
        interval=None if interval is None else (round(interval[0], 2), round(interval[1], 2)),
        command=row.command,
        seed=row.seed,
        note=_note(row),
    )


def _title(row: Row) -> str:
    if row.attacker == "none":
        return row.attack
    source = f" from {row.surrogate}" if row.surrogate else ""
    layer = f" on {row.series}" if row.series else ""
    return f"{row.attack}{source}{layer}, eps {row.eps}/255"


def _note(row: Row) -> str:
    """What the figure was computed from, and its bar."""
    facts = row.settings
    left = [f"{facts['defended']:.1f} % behind the purifier"]
    if facts.get("baseline") is not None:
        left.append(f"{facts['baseline_percent']:.1f} % behind {facts['baseline']}")
    if facts.get("undefended") is not None:
        left.append(f"{facts['undefended']:.1f} % undefended")
    left.append(f"{facts['clean']:.1f} % clean and undefended")
    bar = bar_for(kind_of(row.attacker) if row.task == "classification" else "scenes", row.eps)
    judged = [] if bar is None else [f"bar {bar.least:g}: {verdict(bar, row)}"]
    return "; ".join((", ".join(left), *judged))
