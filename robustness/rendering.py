"""Rendering: a report as the figures of a card, and as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_store.card import Figure
from model_store.inference import InferenceMode
from robustness.observations import CLEAN, Observation, Scenario
from robustness.report import AVERAGE, Accuracy, Report

Interval = tuple[float, float]


class FigureMaker:
    """Figures that share one command and seed; percentages and points keep two decimals."""

    def __init__(self, command: str, seed: int, notes: Mapping[str, str]) -> None:
        self.command = command
        self.seed = seed
        self.notes = notes

    def figures(self, report: Report) -> tuple[Figure, ...]:
        """Every figure of ``report``: what is kept, margins, averages, adaptive attackers, then each victim."""
        averages = [a for a in report.accuracies if a.victim == AVERAGE]
        return (
            *(
                self._figure(f"clean accuracy kept, {k.defence}, {k.victim}", k.percent, "%", k.count, None, k.defence)
                for k in report.kept
            ),
            *(
                self._figure(
                    f"margin over the best baseline ({m.baseline}), {Scenario(m.attack, m.eps).title}, {m.defence}",
                    m.points,
                    "points",
                    m.count,
                    m.interval,
                    m.defence,
                )
                for m in report.margins
            ),
            *(self._accuracy(a) for a in averages),
            *(self._accuracy(a, "attacker knows the purifier") for a in report.adaptive),
            *(self._accuracy(a) for a in report.accuracies if a.victim != AVERAGE),
        )

    def _accuracy(self, accuracy: Accuracy, note: str = "") -> Figure:
        name = f"accuracy, {accuracy.scenario.title}, {accuracy.defence}, {accuracy.victim}"
        if accuracy.role == "none":
            name = f"accuracy, {accuracy.scenario.title}, undefended, {accuracy.victim}"
        return self._figure(name, accuracy.percent, "%", accuracy.count, accuracy.interval, accuracy.defence, note)

    def _figure(
        self, name: str, value: float, unit: str, count: int, interval: Interval | None, defence: str, note: str = ""
    ) -> Figure:
        return Figure(
            name=name,
            value=round(value, 2),
            unit=unit,
            count=count,
            interval=None if interval is None else (round(interval[0], 2), round(interval[1], 2)),
            command=self.command,
            seed=self.seed,
            note="; ".join(part for part in (self.notes.get(defence, ""), note) if part),
        )


def clean_figure(seen: Observation, command: str, seed: int) -> Figure:
    """A victim's own score on clean images, for its card."""
    low, high = seen.score.interval
    return Figure(
        name=f"{seen.score.metric}, clean, undefended, {seen.victim}",
        value=round(seen.score.percent, 2),
        unit="%",
        count=seen.score.count,
        interval=(round(low, 2), round(high, 2)),
        command=command,
        seed=seed,
    )


def mode_note(mode: InferenceMode, *, default: bool) -> str:
    """A purifier's mode in words."""
    words = mode.in_words()
    if mode.draws > 1:
        words += f", mean probability of {mode.draws} draws"
    return words + (", the default" if default else "")


def report_text(report: Report) -> str:
    """Tables of accuracy in percent, one for the average and one a victim; then what is kept, margins, doubts."""
    blocks = [
        _table(f"Accuracy in %, {victim}", [a for a in report.accuracies if a.victim == victim])
        for victim in dict.fromkeys(a.victim for a in report.accuracies)
    ]
    if report.kept:
        blocks.append(
            "Clean accuracy kept\n" + "\n".join(f"  {k.victim}, {k.defence}: {k.percent:.1f} %" for k in report.kept)
        )
    if report.margins:
        blocks.append(
            "Margin over the best baseline, average of victims (95 % interval)\n"
            + "\n".join(
                f"  {m.defence}, {Scenario(m.attack, m.eps).title}: {m.points:+.1f} points over {m.baseline} "
                f"({m.interval[0]:+.1f} to {m.interval[1]:+.1f})"
                for m in report.margins
            )
        )
    if report.adaptive:
        blocks.append(
            "Attackers who know the purifier\n"
            + "\n".join(f"  {a.scenario.title}, {a.victim}, {a.defence}: {_cell(a)}" for a in report.adaptive)
        )
    blocks += [f"WARNING: {warning}" for warning in report.warnings]
    return "\n\n".join(blocks)


def _cell(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return f"{accuracy.percent:.1f} ({low:.1f}-{high:.1f})"


def _table(title: str, accuracies: Sequence[Accuracy]) -> str:
    scenarios = list(dict.fromkeys(a.scenario for a in accuracies))
    defences = list(dict.fromkeys(a.defence for a in accuracies))
    cells = {(a.defence, a.scenario): _cell(a) for a in accuracies}
    heads = ["clean" if s == CLEAN else f"{s.attack.split()[-1]} {s.eps}/255" for s in scenarios]
    rows = [["defence", *heads]]
    rows += [[name, *(cells.get((name, s), "-") for s in scenarios)] for name in defences]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{title} ({accuracies[0].count} photos, 95 % interval)", *lines])
