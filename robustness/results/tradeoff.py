"""What protection costs: clean accuracy and accuracy at 4/255 against milliseconds an image, papers' points beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustness.results.canvas import GREY, INK, Point, finish, line, looks, panels
from robustness.results.cells import photos
from robustness.results.order import defences_of
from robustness.results.picture import Picture
from robustness.results.published import PURIFIERS, PublishedPurifier
from robustness.results.real_networks import EPS, SUITE, unseen_mean
from robustness.results.row import Attacker, Row
from robustness.results.timing import Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SECTION = "tradeoff"
PANELS: tuple[tuple[str, Attacker, int], ...] = (
    ("no attack", "none", 0),
    (f"eps {EPS}, attacker unaware", "white box", EPS),
)
SIDE = 224


def plot_tradeoff(rows: Sequence[Row], timings: Sequence[Timing], folder: Path) -> Iterator[Picture]:
    """One picture as a PNG in ``folder``; none without timings at 224 pixels of what the suite judged."""
    mine = [row for row in rows if row.suite == SUITE and row.table == "unaware"]
    judged = dict(defences_of(mine))
    settings = sorted({one.setting for one in timings if one.side == SIDE and one.defence in judged})
    if settings:
        used = [one for one in timings if one.setting == settings[0]]
        yield draw(mine, used, folder / "imagenet-tradeoff.png")


def draw(rows: Sequence[Row], timings: Sequence[Timing], path: Path) -> Picture:
    """Two panels, a point a defence; ``timings`` are of one setting, ``rows`` of the table "unaware"."""
    figure, axes = panels(len(PANELS), 640)
    timed = {one.defence: one for one in timings}
    shown = [(name, role) for name, role in defences_of(rows) if name in timed]
    styles = looks(shown)
    for axis, (title, attacker, eps) in zip(axes, PANELS, strict=True):
        axis.set_title(title, fontsize=14)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("milliseconds an image", fontsize=13)
        bare = unseen_mean(rows, "none", attacker, eps)
        if bare is not None and bare.percent is not None:
            axis.axhline(bare.percent, color=GREY, linewidth=1.2, linestyle=":", label="no defence")
        for name, _ in shown:
            row = unseen_mean(rows, name, attacker, eps)
            if row is not None and row.percent is not None and row.interval is not None:
                line(axis, [Point(timed[name].milliseconds, row.percent, *row.interval)], name, styles[name])
        for place, purifier in enumerate(PURIFIERS):
            _published(axis, purifier, purifier.attacked if eps else purifier.clean, place, timings)
    axes[0].set_ylabel("accuracy in %", fontsize=13)
    finish(figure, axes, path)
    counts = photos(row for row in rows if row.percent is not None)
    caption = (
        f"Accuracy against time: mean of the networks that no training has seen, {counts} photos, the unaware attack "
        f"that leaves least, bars are 95 % intervals; {timings[0].words}. Open marks are others' published figures and "
        "not comparable one to one: " + "; ".join(f"{each.name}: {each.setting}" for each in PURIFIERS) + "."
    )
    return Picture(path, SECTION, "Accuracy against milliseconds an image", caption)


def _published(axis: Axes, purifier: PublishedPurifier, percent: float, place: int, timings: Sequence[Timing]) -> None:
    """A paper's figure: at the time it gives, at ours of the same network, or as a line where there is neither."""
    ours = next((one.milliseconds for one in timings if one.architecture == purifier.architecture), None)
    at = purifier.milliseconds or (ours if purifier.architecture else None)
    name = f"{purifier.name} (published)"
    if at is None:
        axis.axhline(percent, color=INK, linewidth=0.9, linestyle=("--", "-.", ":")[place % 3], label=name)
        return
    axis.plot(
        [at],
        [percent],
        linestyle="",
        marker="Dsp"[place % 3],
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=INK,
        label=name,
    )
