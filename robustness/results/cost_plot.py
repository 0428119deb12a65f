"""Quality against cost: what a defence keeps under attack, and how long it takes over an image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from robustness.results.averages import lowest, mean_of_victims
from robustness.results.canvas import GREY, Point, finish, line, looks, panels
from robustness.results.cells import photos
from robustness.results.order import defences_of
from robustness.results.picture import Picture
from robustness.results.row import Row
from robustness.results.timing import Timing

EPS = 8
SECTION = "cost"


def plot_costs(rows: Sequence[Row], timings: Sequence[Timing], folder: Path) -> Iterator[Picture]:
    """A picture for each setting that was timed, as a PNG in ``folder``; none without the suite's rows at 8/255."""
    quality = {row.defence: row for row in unaware_accuracies(rows)}
    for setting in sorted({one.setting for one in timings}) if quality else ():
        mine = [one for one in timings if one.setting == setting]
        if any(one.defence in quality for one in mine):
            name = re.sub(r"[^a-z0-9]+", "-", f"cost {mine[0].words}".lower()).strip("-")
            yield plot_cost(quality, mine, folder / f"{name}.png")


def unaware_accuracies(rows: Sequence[Row]) -> list[Row]:
    """Each defence's row under the unaware white box at 8/255 that leaves least, the mean of victims."""
    mine = [row for row in rows if (row.table, row.attacker, row.eps) == ("purifier", "white box", EPS)]
    mine = [row for row in mine if row.task == "classification"]
    found = []
    for name, _ in defences_of(mine):
        attacks = sorted({row.attack for row in mine if row.defence == name})
        groups = [[row for row in mine if (row.defence, row.attack) == (name, attack)] for attack in attacks]
        found.append(lowest([mean_of_victims(group) for group in groups]))
    return [row for row in found if row.percent is not None]


def plot_cost(quality: dict[str, Row], timings: Sequence[Timing], path: Path) -> Picture:
    """Accuracy at 8/255 against milliseconds an image, a point a defence; the line is what is left without one.

    Defences of ``timings``, all of one setting, that ``quality`` has no row of are named in the caption alone.
    """
    figure, (axis,) = panels(1, 600)
    drawn = [one for one in timings if one.defence in quality]
    styles = looks([(one.defence, one.role) for one in drawn])
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    for one in drawn:
        row = quality[one.defence]
        line(axis, [_point(one, row)], f"{one.defence}, {one.milliseconds:.3g} ms", styles[one.defence])
    for bare in (row for row in quality.values() if row.role == "none" and row.percent is not None):
        axis.axhline(bare.percent or 0.0, color=GREY, linewidth=1.2, linestyle=":", label="no defence")
    axis.set_xlabel(f"milliseconds an image ({timings[0].words})", fontsize=13)
    axis.set_ylabel(f"accuracy in % at eps {EPS}, attacker unaware", fontsize=13)
    finish(figure, (axis,), path)
    absent = sorted(one.defence for one in timings if one.defence not in quality)
    untold = sorted({row.defence for row in quality.values() if row.role != "none"} - {one.defence for one in drawn})
    caption = (
        f"What each defence keeps against what it costs: the unaware white box at eps {EPS} that leaves least, mean of "
        f"victims, {photos(quality.values())} photos, bars are 95 % intervals; {timings[0].words}."
    )
    caption += f" Not drawn, for want of an accuracy: {', '.join(absent)}." if absent else ""
    caption += f" Not drawn, for want of a timing: {', '.join(untold)}." if untold else ""
    return Picture(path, SECTION, f"Accuracy at eps {EPS} against milliseconds an image", caption)


def _point(timing: Timing, row: Row) -> Point:
    percent, (low, high) = row.percent or 0.0, row.interval or (0.0, 0.0)
    return Point(timing.milliseconds, percent, low, high)
