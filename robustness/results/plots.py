"""Plots: accuracy against eps, figures 1 and 6 of the paper, and bars for tables 6 and 7."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from robustness.errors import EvaluationError
from robustness.results.averages import MEAN
from robustness.results.canvas import Look, Point, bars, finish, line, looks, panels
from robustness.results.cells import only, photos
from robustness.results.order import attack_key, defences_of, family, natural, suites_of
from robustness.results.overview import CLEAN, Overview
from robustness.results.picture import Picture
from robustness.results.published import PUBLISHED
from robustness.results.row import Attacker, Row

Draw = Callable[[Sequence[Row], Path], Picture]

PANELS: Mapping[Attacker, str] = MappingProxyType(
    {
        "white box": "white box: knows the victim,\nnot the defence",
        "transfer": "transfer: knows\nanother model",
        "aware": "aware: knows the victim\nand the defence",
    }
)
COLUMNS = (("clean", 0), ("SSP", 8), ("SSP", 16))


def plot_all(rows: Sequence[Row], folder: Path) -> tuple[Picture, ...]:
    """Every plot that ``rows`` hold the figures of, as PNG files in ``folder``, each suite and victim apart."""
    kinds: tuple[tuple[str, str, Draw], ...] = (
        ("overview", "accuracy", plot_overview),
        ("F1", "figure 1", plot_layers),
        ("F6", "figure 6", plot_iterations),
        ("T6", "table 6", plot_defences),
        ("T7", "table 7", plot_defences),
    )
    pictures = []
    for suite in suites_of(rows):
        for table, name, draw in kinds:
            mine = [row for row in rows if (row.suite, row.table) == (suite, table)]
            groups = _groups(mine)
            for words, group in groups.items():
                title = f"{suite} {name} {words if len(groups) > 1 else ''}"
                pictures.append(draw(group, folder / f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}.png"))
    return tuple(pictures)


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """What goes into one picture: an overview whole, else what one victim is the subject of, at one eps in a figure."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        words = {"overview": "", "T6": row.victim, "T7": row.victim}.get(row.table, f"{row.victim} eps {row.eps}")
        groups.setdefault(words, []).append(row)
    return groups


def plot_overview(rows: Sequence[Row], path: Path) -> Picture:
    """Accuracy against eps, a panel a kind of attacker and a line a defence: the least that any attack leaves."""
    overview = Overview(rows)
    victim = MEAN if len(overview.victims) > 1 else overview.victims[0]
    kinds = [kind for kind in PANELS if any(row.attacker == kind for row in rows)]
    figure, axes = panels(len(kinds), 640)
    styles = looks(overview.defences)
    budgets = (0, *overview.budgets)
    for axis, kind in zip(axes, kinds, strict=True):
        axis.set_title(PANELS[kind], fontsize=14)
        axis.set_xlabel("eps (/255)", fontsize=13)
        axis.set_xticks(range(len(budgets)), [str(eps) for eps in budgets])
        for number, (name, look) in enumerate(styles.items()):
            # Without a defence there is nothing more to know than a white box gives.
            known: Attacker = "white box" if kind == "aware" and look.is_none else kind
            dodge = (number / max(1, len(styles) - 1) - 0.5) * 0.3
            line(axis, _against_eps(overview, known, victim, name, dodge), name, look)
    axes[0].set_ylabel(f"accuracy in %, {victim}" if victim == MEAN else f"accuracy of {victim} in %", fontsize=13)
    finish(figure, axes, path)
    stands = photos(row for row in rows if row.attacker != "aware")
    aware = photos(row for row in rows if row.attacker == "aware")
    caption = (
        f"Suite {overview.suite}: accuracy against eps, {victim}; at each point the attack of that kind that leaves "
        f"least. {stands} photos ({aware} for aware attackers), bars are 95 % intervals. Without a defence there is "
        "nothing more to know: its line among aware attackers is that of the white box."
    )
    return Picture(path, "overview", "Accuracy against eps, by attacker and defence", caption)


def _against_eps(overview: Overview, kind: Attacker, victim: str, defence: str, dodge: float) -> list[Point]:
    if not any(threat.attacker == kind for eps in overview.budgets for threat in overview.threats(eps)):
        return []
    found = [overview.least(kind, eps, victim, defence) for eps in overview.budgets]
    if all(row is None for row in found):
        return []
    ordered = [overview.cell(CLEAN, 0, victim, defence), *found]
    return [_point(place + dodge, row) for place, row in enumerate(ordered) if row is not None and not row.missing]


def plot_layers(rows: Sequence[Row], path: Path) -> Picture:
    """Figure 1: fooling rate against the attacked feature layer, a panel a network unless they share their layers."""
    for row in rows:
        if row.x is None or not isinstance(row.settings.get("layer"), str):
            raise EvaluationError(f"{row.title}: figure 1 needs x and settings.layer; measure the row again")
    victim, eps = only((row.victim for row in rows), "victim in figure 1"), only((row.eps for row in rows), "eps")
    networks = sorted({row.series for row in rows}, key=natural)
    names = {(row.x, row.settings["layer"]) for row in rows}
    shared = len(names) == len({x for x, _ in names})
    figure, axes = panels(1 if shared else len(networks), 560)
    for number, network in enumerate(networks):
        axis = axes[0 if shared else number]
        mine = sorted((row for row in rows if row.series == network), key=lambda row: row.x or 0.0)
        ticks = dict(sorted({row.x or 0.0: row.settings["layer"] for row in (rows if shared else mine)}.items()))
        axis.set_xticks(list(ticks), list(ticks.values()), rotation=40, ha="right", rotation_mode="anchor")
        axis.set_xlabel("attacked layer", fontsize=13)
        if not shared:
            axis.set_title(network, fontsize=14)
        points = [_point(row.x or 0.0, row) for row in mine if not row.missing]
        line(axis, points, network, Look.numbered(number))
    axes[0].set_ylabel(f"fooling rate in %, {victim}", fontsize=13)
    finish(figure, axes, path, legend=shared)
    caption = (
        f"Suite {rows[0].suite}: share of photos whose prediction by {victim} changes when the features of one layer "
        f"of another network are pushed away, eps {eps}. {photos(rows)} photos, bars are 95 % intervals."
    )
    return Picture(path, "F1", "Fooling rate against the attacked feature layer", caption)


def plot_iterations(rows: Sequence[Row], path: Path) -> Picture:
    """Figure 6: accuracy against the number of iterations, a line an attack."""
    for row in rows:
        if row.x is None:
            raise EvaluationError(f"{row.title}: figure 6 needs x, the iterations; measure the row again")
    victim, eps = only((row.victim for row in rows), "victim in figure 6"), only((row.eps for row in rows), "eps")
    figure, axes = panels(1, 560)
    axis = axes[0]
    places = sorted({row.x for row in rows if row.x is not None})
    axis.set_xscale("symlog", linthresh=1.0)
    axis.set_xticks(places, [f"{x:g}" for x in places])
    axis.minorticks_off()
    axis.set_xlabel("iterations", fontsize=13)
    axis.set_ylabel(f"accuracy of {victim} in %", fontsize=13)
    for number, attack in enumerate(sorted({row.series for row in rows}, key=attack_key)):
        mine = sorted((row for row in rows if row.series == attack), key=lambda row: row.x or 0.0)
        points = [_point(row.x or 0.0, row) for row in mine if not row.missing]
        line(axis, points, attack, Look.numbered(number))
    finish(figure, axes, path)
    sources = sorted({row.surrogate for row in rows if row.surrogate})
    made = f" made on {', '.join(sources)}" if sources else ""
    caption = (
        f"Suite {rows[0].suite}: accuracy of {victim} against the iterations of attacks{made}, eps {eps}. "
        f"{photos(rows)} photos, bars are 95 % intervals. SSP starts at a corner of its budget; the others step by a "
        "tenth of it, so before ten iterations they have not used it up."
    )
    return Picture(path, "F6", "Accuracy against iterations, by attack", caption)


def plot_defences(rows: Sequence[Row], path: Path) -> Picture:
    """Tables 6 and 7 as bars: a group a defence, clean and under SSP at 8 and 16; diamonds are the paper's figures."""
    victim = only((row.victim for row in rows), "victim in one plot")
    paper = PUBLISHED[only((row.table for row in rows), "table in one plot")]
    metric = only((row.metric for row in rows), "metric in one plot")
    unaware = [row for row in rows if row.attacker != "aware" and not row.series]
    defences = [name for name, _ in defences_of(unaware)]
    figure, axes = panels(1, 600)
    for number, (column, (attack, eps)) in enumerate(zip(paper.columns, COLUMNS, strict=True)):
        found = {row.defence: row for row in unaware if (family(row.attack), row.eps) == (attack, eps)}
        ours = [_point(place, found[name]) for place, name in enumerate(defences) if _measured(found.get(name))]
        if not ours:
            continue  # an empty column would be in the legend, in another's colour
        published = [(name, paper.at(name, column)) for name in defences]
        theirs = [(defences.index(name), theirs.percent) for name, theirs in published if theirs is not None]
        bars(axes[0], number, len(COLUMNS), column, ours, theirs)
    labels = [name.replace(" ", "\n").replace("-", "-\n") for name in defences]
    axes[0].set_xticks(range(len(defences)), labels)
    axes[0].set_ylabel(f"{metric} of {victim} in %", fontsize=13)
    finish(figure, axes, path)
    caption = (
        f"Suite {rows[0].suite}: {metric} of {victim} behind each defence. {photos(unaware)} images, bars are 95 % "
        f"intervals. Diamonds: the paper's figures ({paper.setting})."
    )
    return Picture(path, rows[0].table, f"{metric} by defence, clean and under SSP", caption)


def _measured(row: Row | None) -> bool:
    return row is not None and not row.missing


def _point(x: float, row: Row) -> Point:
    if row.percent is None or row.interval is None:
        raise EvaluationError(f"{row.title} has no interval; measure it again")
    return Point(x, row.percent, *row.interval)
